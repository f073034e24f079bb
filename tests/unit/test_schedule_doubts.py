"""What `check` doubts in a schedule, and what it lets pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from toml_file import Toml

from hueyctl.app.check import check
from hueyctl.model.definition import Schedule
from hueyctl.model.schedule_doubts import warnings

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def doubts(cron: str | None = None, zone: str = "UTC", **given: Any) -> list[str]:
    return warnings(Schedule(name="s", target="s", target_kind="job", timezone=zone, cron=cron, **given), now=NOW)


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("*/7 * * * *", 'cron: minute "*/7" begins anew each hour: after 56 comes 0; for an even distance, write'),
        ("3/8 * * * *", 'cron: minute "3/8" begins anew each hour: after 59 comes 3;'),
        ("*/90 * * * *", 'cron: minute "*/90" is 0 alone, since it begins anew each hour; for an even distance'),
        ("*/25 0 0 * * *", 'cron: second "*/25" begins anew each minute: after 50 comes 0'),
        ("0 */5 * * *", 'cron: hour "*/5" begins anew each day: after 20 comes 0; for an even'),
        ("0 0 */2 * *", 'cron: day of month "*/2" begins anew each month: after 31 comes 1'),
        ("0 0 1 */5 *", 'cron: month "*/5" begins anew each year: after 11 comes 1'),
        ("0 0 * * */2", 'cron: day of week "*/2" begins anew each week: after 6 comes 0'),
        ("0 0 13 * 5", 'cron: fires on day of month "13" and also on each day of week "5"'),
        ("* 2 * * *", "cron: fires in every minute of its hours; for once an hour, write 0 as the minute"),
        ("* */5 * * * *", "cron: fires in every second of its minutes"),
    ],
)  # fmt: skip
def test_what_cron_means_and_its_writer_may_not_is_said(cron: str, said: str) -> None:
    (line,) = doubts(cron)
    assert line.startswith(said)


def test_an_even_distance_has_another_key() -> None:
    assert doubts("*/90 * * * *")[0].endswith('write every = "90m" in place of cron')
    assert doubts("0 */5 * * *")[0].endswith('write every = "5h" in place of cron')


@pytest.mark.parametrize(
    ("cron", "zone", "said"),
    [
        ("30 2 * * *", "Europe/Berlin", [
            "cron: the clock in Europe/Berlin has 02:30 on 2026-10-25 twice, and it fires the first time only",
            "cron: the clock in Europe/Berlin skips 02:30 on 2027-03-28, and it fires at 03:00 then",
        ]),
        ("*/20 2 * * *", "Europe/Berlin", [
            "cron: the clock in Europe/Berlin has 02:00 on 2026-10-25 twice, and it fires both times",
            "cron: the clock in Europe/Berlin skips 02:00 on 2027-03-28, and it doesn't fire that day",
        ]),
        ("30 1 * * *", "America/New_York", [
            "cron: the clock in America/New_York has 01:30 on 2026-11-01 twice, and it fires the first time only",
        ]),
        ("15 2 * * *", "Australia/Lord_Howe", [
            "cron: the clock in Australia/Lord_Howe skips 02:15 on 2026-10-04, and it fires at 02:30 then",
        ]),
        ("0 3 * * *", "Europe/Berlin", []),
        ("30 2 * * 1-5", "Europe/Berlin", []),
        ("30 2 1 * *", "Europe/Berlin", []),
        ("30 2 * * *", "Asia/Kathmandu", []),
        ("30 * * * *", "Europe/Berlin", []),
    ],
)  # fmt: skip
def test_times_that_a_clock_change_ahead_skips_or_repeats_are_said(cron: str, zone: str, said: list[str]) -> None:
    assert doubts(cron, zone) == said


def test_catching_up_all_within_less_than_one_slot_is_doubted() -> None:
    day = timedelta(days=1)
    assert doubts(every=day, catch_up="all") == [
        'catch_up: "all" can mean one slot at most: they are 1d apart, and catch_up_window is 1h'
    ]
    assert doubts(every=day) == doubts(every=day, catch_up="all", catch_up_window=7 * day) == []


def test_a_jitter_beyond_the_next_slot_is_doubted() -> None:
    hour = timedelta(hours=1)
    assert doubts("0 * * * *", jitter=2 * hour) == ["jitter: longer than the 1h between slots, before which it ends"]
    assert doubts("0 * * * *", jitter=hour) == []


def test_what_is_over_is_said() -> None:
    assert doubts(at=NOW) == ["at: 2026-07-01T00:00:00Z has passed; it doesn't fire again"]
    assert doubts(at=NOW + timedelta(seconds=1)) == []
    over = doubts("@daily", end=NOW - timedelta(days=2))
    assert over == ["end: 2026-06-29T00:00:00Z has passed; it doesn't fire again"]


@pytest.mark.parametrize(
    "cron",
    ["*/15 * * * *", "5/15 * * * *", "0 */6 * * *", "0 0 1 */3 *", "@hourly", "@weekly", "10-50/7 * * * *",
     "30/7 * * * *", "0 0 L * *", "*/10 * * * * *", "0 9-17 * * MON-FRI", "0 0 */1 * 5", "* * * * *", "* * * * * *"],
)  # fmt: skip
def test_what_is_meant_passes(cron: str) -> None:
    assert doubts(cron) == []


def test_check_says_what_it_doubts_with_its_place(toml: Toml) -> None:
    project = toml.read("[jobs.fetch]\ncommand = ['/bin/sh']\n[schedules.fetch]\ncron = '*/7 * * * *'")
    (warning,) = check(project, environ={}).warnings
    assert warning.startswith('jobs.toml: schedules.fetch.cron: minute "*/7" begins anew each hour')
