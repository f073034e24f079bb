"""The short form of `make torture`: every failpoint is come to, and at a handful of them nothing is lost."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from history import History, check
from postgres_server import PostgresServer
from run import Sums, befall
from storm import HARMLESS, Plan, Round, play

from hueyctl.failpoints import POINTS


@pytest.mark.timeout(240)  # a busy machine makes a storm slow
def test_every_failpoint_is_come_to_by_a_round(tmp_path: Path) -> None:
    """Also: where nothing dies or fails, and a worker is killed once, every promise is kept."""
    played = play(Plan(dict.fromkeys(POINTS, HARMLESS), seed=1, seconds=1.5), tmp_path)
    assert [point for point in POINTS if not played.fired[point]] == []
    assert check(played.history) == []
    assert played.wrong == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "points",
    [
        {
            "accept.after": "kill@1",
            "claim.after": "kill@4",
            "exit.before": "kill@9",
            "rescue.after": "kill@1",
            "fire.before": "kill@3",
        },
        {
            "accept.before": "error@1",
            "settle.before": "error@3",
            "start.after": "error@4",
            "fire.after": "error@5",
            "renew.after": "stall:0.5@1",
        },
    ],
    ids=["kills", "faults"],
)
def test_promises_are_kept_when_steps_go_wrong(tmp_path: Path, points: dict[str, str]) -> None:
    played = play(Plan(points, seed=1, seconds=1.5), tmp_path)
    assert check(played.history) == []
    assert played.wrong == []
    assert len(played.history.accepted) > 5
    assert played.fired


@pytest.mark.timeout(240)
def test_promises_are_kept_between_machines(tmp_path: Path, postgres_database: str) -> None:
    points = {"claim.after": "kill@3", "settle.before": "kill@6", "rescue.before": "kill@1", "renew.after": "error@1"}
    played = play(Plan(points, seed=1, seconds=1.5, store=postgres_database), tmp_path)
    assert check(played.history) == []
    assert played.wrong == []
    assert len(played.history.accepted) > 5
    assert played.fired


@pytest.mark.timeout(240)
def test_promises_are_kept_and_workers_stay_while_the_server_comes_and_goes(tmp_path: Path) -> None:
    with closing(PostgresServer()) as server:
        name = server.new_database()
        plan = Plan({}, seed=1, seconds=2.0, store=server.address(name))
        played = play(plan, tmp_path, partial(befall, server, name))
    assert check(played.history) == []
    assert played.wrong == []
    assert len(played.history.accepted) > 1
    assert played.outages > 1


def test_a_torture_in_which_an_action_never_fired_fails() -> None:
    sums = Sums([("claim.after", "kill"), ("claim.after", "stall")])
    played = Round(Plan({"claim.after": "kill@3"}, seed=1), History(), fired=Counter({"claim.after": 2}))
    assert sums.add(played) == []
    assert sums.silent() == [("claim.after", "stall")]
    assert sums.exit_code() == 1
    assert sums.told().endswith("NEVER FIRED: claim.after=stall")
    sums.add(Round(Plan({"claim.after": "stall:0.3%0.5:1"}, seed=2), History(), fired=Counter({"claim.after": 1})))
    assert (sums.silent(), sums.exit_code()) == ([], 0)


def test_a_torture_in_which_a_promise_was_broken_fails() -> None:
    sums = Sums([("claim.after", "kill")])
    history = History(accepted=["gone"])
    played = Round(Plan({"claim.after": "kill@3"}, seed=1), history, fired=Counter({"claim.after": 1}))
    assert sums.add(played) == ["A: gone was accepted and is not there"]
    assert sums.exit_code() == 1
