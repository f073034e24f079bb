"""Cron expressions: what is accepted, and what is said to those who come from another cron."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hueyctl.model.cron import ALIASES, NEVER, Cron


def firsts(text: str, count: int, since: str = "2026-01-01") -> list[str]:
    """The first local times at or after `since` that the expression names."""
    cron, at, found = Cron(text), datetime.fromisoformat(since), []
    for _ in range(count):
        at = cron.first(at)
        found.append(at.isoformat(" ").removesuffix(":00"))
        at += timedelta(seconds=1)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 2 * * *", ["2026-01-01 02:30", "2026-01-02 02:30"]),
        ("*/15 * * * * *", ["2026-01-01 00:00", "2026-01-01 00:00:15"]),
        ("10 30 2 1 JAN *", ["2026-01-01 02:30:10", "2027-01-01 02:30:10"]),
        ("0 0 L * *", ["2026-01-31 00:00", "2026-02-28 00:00"]),
        ("0 0 LW * *", ["2026-01-30 00:00", "2026-02-27 00:00"]),
        ("0 0 * * 5L", ["2026-01-30 00:00", "2026-02-27 00:00"]),
        ("0 0 * * mon#2", ["2026-01-12 00:00", "2026-02-09 00:00"]),
        ("0 0 * * 7", ["2026-01-04 00:00", "2026-01-11 00:00"]),
        ("0 0 13 * 5", ["2026-01-02 00:00", "2026-01-09 00:00", "2026-01-13 00:00"]),
        ("0 0 */12 * 5", ["2026-02-13 00:00", "2026-03-13 00:00"]),
        ("0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00"]),
        ("0 0 */28 2 MON#5", ["2044-02-29 00:00"]),
        # cronsim takes a range of one value for an open one.
        ("0 0 5-5/10 JAN-1/3 *", ["2026-01-05 00:00", "2027-01-05 00:00"]),
        ("0 0 5/10 1 *", ["2026-01-05 00:00", "2026-01-15 00:00", "2026-01-25 00:00"]),
        ("@Hourly", ["2026-01-01 00:00", "2026-01-01 01:00"]),
    ],
)
def test_an_expression_names_these_times(text: str, expected: list[str]) -> None:
    assert firsts(text, len(expected)) == expected


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_its_expression(alias: str) -> None:
    assert Cron(alias.upper()).text == "0 " + ALIASES[alias]


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("30 2 * * *", True),
        ("0 0-23 * * *", True),
        ("*/10 30 2 * * *", True),
        ("* 2 * * *", False),
        ("0 */2 * * *", False),
        ("@hourly", False),
        ("@daily", True),
    ],
)
def test_fixed_is_what_begins_neither_minute_nor_hour_with_a_star(text: str, fixed: bool) -> None:
    assert Cron(text).fixed is fixed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected 5 fields (minute, hour, day of month, month, day of week) or 6 (seconds first), got 0"),
        ("* * * *", "or 6 (seconds first), got 4"),
        ("0 0 0 1 1 * 2027", "a year can't be given; start and end bound a schedule"),
        ("60 * * * *", 'minute "60": expected 0 to 59'),
        ("* 24 * * *", 'hour "24": expected 0 to 23'),
        ("99 * * * * *", 'second "99": expected 0 to 59'),
        ("0 0 32 * *", 'day of month "32": expected 1 to 31, L (the last)'),
        ("0 0 * 13 *", 'month "13": expected 1 to 12 or JAN to DEC'),
        ("0 0 * * 8", 'day of week "8": expected 0 to 7 or SUN to SAT, 5L (the last Friday) or MON#2'),
        ("*/0 * * * *", 'minute "*/0": a step of 0'),
        ("0 22-2 * * *", 'hour "22-2": a range goes upward: write 22-23,0-2'),
        ("0 0 * * FRI-MON", 'day of week "FRI-MON": a range goes upward: write 5-6,0-1'),
        ("0 0 * * SAT-SUN", "write 6,0"),
        ("0 0 * NOV-FEB *", "write 11-12,1-2"),
        ("0 0 * * Monday", 'day of week "Monday": write MON'),
        ("0 0 * March *", "write MAR"),
        ("0 0 ? * MON", 'day of month "?": write * in place of ?'),
        ("H 2 * * *", "jitter"),
        ("H/15 * * * *", "jitter"),
        ("0 0 15W * *", "LW is the last weekday of the month"),
        ("0 0 L-3 * *", "L is the last day"),
        ("0 0 * * L", "as in 5L, the last Friday"),
        ("0 0 * * FRIL", "write 5L for the last FRI"),
        ("0 0 30 2 *", "a date that never comes"),
        ("0 0 */29 2 MON#5", "a date that never comes"),
        ("@every 10m", 'write every = "10m" in place of cron'),
        ("@reboot", "@reboot is no time"),
        ("@dayly", 'there is no "@dayly"; did you mean "@daily"?'),
        ("@daily 5", "@daily stands alone"),
        ("CRON_TZ=Europe/Berlin 0 2 * * *", "the time zone has a key of its own: timezone"),
        ("cron(0 2 * * ? *)", "write the fields alone"),
        ("Mon *-*-* 02:30:00", "systemd"),
        ("٣ * * * *", "minute"),
        ("9" * 5000 + " * * * *", "minute"),
    ],
)
def test_what_is_refused_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        Cron(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


_FIELD = st.text("0123456789*/-,#LWMONFRIJAH?", min_size=1, max_size=6)


@given(st.lists(_FIELD, min_size=5, max_size=6))
def test_any_five_or_six_fields_are_accepted_or_refused_and_what_is_accepted_comes(fields: list[str]) -> None:
    with suppress(ValueError):
        assert Cron(" ".join(fields)).first(datetime(2000, 1, 1)) < datetime(2041, 1, 1)


def test_any_order_of_questions_gets_the_same_answers() -> None:
    cron = Cron("*/20 5,17 * * *")
    asked = [datetime(2026, month, day, hour) for month in (5, 1, 12) for day in (1, 28, 2) for hour in (0, 6, 5, 20)]
    assert [cron.first(at) for at in asked] == [Cron("*/20 5,17 * * *").first(at) for at in asked]


def test_past_the_last_year_there_is_nothing() -> None:
    assert Cron("0 0 29 2 *").first(datetime(9999, 1, 1)) == NEVER
