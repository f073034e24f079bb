"""Which attempts are waited for: those that are known to be short, together, and not for long."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

from hueyctl.engine.pace import BRIEF_S, LINGER_S, SHORT_S, Pace


def attempt(job: str, token: str, took_s: float = math.inf, *, in_thread: bool = True) -> Any:
    """As much of an attempt as matters here."""
    named, claimed = SimpleNamespace(name=job), SimpleNamespace(token=token)
    return SimpleNamespace(job=named, claim=claimed, took_s=took_s, in_thread=in_thread)


def used_to(took_s: float) -> Pace:
    pace = Pace()
    pace.ended(attempt("a", "before", took_s))
    return pace


def test_nobody_waits_for_what_is_not_known_or_takes_its_time() -> None:
    for pace in (Pace(), used_to(SHORT_S), used_to(math.inf)):
        pace.handed_over([attempt("a", "1"), attempt("a", "2")])
        assert not pace.others_end()
        assert not pace.one_by_one
        assert pace.linger_until == 0


def test_one_that_is_not_known_among_short_ones_is_waited_for_by_none() -> None:
    pace = used_to(SHORT_S / 2)
    pace.handed_over([attempt("a", "1"), attempt("b", "2")])
    assert not pace.others_end()


def test_short_ones_are_waited_for_to_the_last_of_them_whatever_else_is_under_way() -> None:
    pace = used_to(SHORT_S / 2)
    first, second = attempt("a", "1", SHORT_S / 2), attempt("a", "2", SHORT_S / 2)
    pace.handed_over([first, second])
    assert pace.others_end()
    pace.ended(attempt("a", "of another hand-over", SHORT_S / 2))
    pace.ended(first)
    assert pace.others_end()
    pace.ended(second)
    assert not pace.others_end()


def test_the_wait_has_an_end() -> None:
    pace = used_to(SHORT_S / 2)
    before = time.monotonic()
    pace.handed_over([attempt("a", "1"), attempt("a", "2")])
    assert before < pace.linger_until <= time.monotonic() + LINGER_S
    pace.linger_until = before
    assert not pace.others_end()


def test_only_brief_ones_in_threads_may_go_one_by_one() -> None:
    pace = used_to(BRIEF_S / 2)
    pace.handed_over([attempt("a", "1"), attempt("a", "2")])
    assert pace.one_by_one
    pace.handed_over([attempt("a", "1"), attempt("a", "2", in_thread=False)])
    assert not pace.one_by_one
    pace = used_to(BRIEF_S * 2)
    pace.handed_over([attempt("a", "1")])
    assert pace.others_end()
    assert not pace.one_by_one


def test_what_is_usual_follows_what_is() -> None:
    pace = used_to(1.0)
    for number in range(60):
        pace.ended(attempt("a", str(number), 0.0001))
    assert pace.usual_s("a") < SHORT_S
    pace.ended(attempt("a", "slow", 1.0))
    assert pace.usual_s("a") > SHORT_S
    pace.ended(attempt("a", "never performed"))
    assert pace.usual_s("a") < 1
