"""When schedules fire, by example: clock changes, bounds, grids, jitter; as cron(8) of Debian has it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hueyctl.model.definition import Schedule
from hueyctl.model.schedule import FireTimes, definition_hash, jittered, rule_hash


def schedule(cron: str | None = None, zone: str = "Europe/Berlin", **given: Any) -> Schedule:
    return Schedule(name="nightly", target="fetch", target_kind="job", timezone=zone, cron=cron, **given)


def local(times: FireTimes, day: str, days: int = 1) -> list[str]:
    """The slots from midnight UTC of `day` on, in UTC, with a mark at those that were moved."""
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    slots = times.between(start - timedelta(microseconds=1), start + timedelta(days=days, microseconds=-1))
    return [f"{slot:%d %H:%M}{' moved' if times.moved(slot) else ''}" for slot in slots]


@pytest.mark.parametrize(
    ("cron", "zone", "day", "expected"),
    [
        # Berlin skips 02:00 to 03:00 (01:00 UTC): fixed times in it become one at the end of the gap.
        ("30 2 * * *", "Europe/Berlin", "2026-03-29", ["29 01:00 moved"]),
        ("0,30 2 * * *", "Europe/Berlin", "2026-03-29", ["29 01:00 moved"]),
        ("*/10 30 2 * * *", "Europe/Berlin", "2026-03-29", ["29 01:00 moved"]),
        ("30 2,4 * * *", "Europe/Berlin", "2026-03-29", ["29 01:00 moved", "29 02:30"]),
        ("0 2-4 * * *", "Europe/Berlin", "2026-03-29", ["29 01:00", "29 02:00"]),
        ("0 3 * * *", "Europe/Berlin", "2026-03-29", ["29 01:00"]),
        ("*/20 2 * * *", "Europe/Berlin", "2026-03-29", []),
        ("30 */2 * * *", "Europe/Berlin", "2026-03-29", [f"29 {h:02}:30" for h in range(2, 24, 2)]),
        ("30 2 * * SUN", "Europe/Berlin", "2026-03-29", ["29 01:00 moved"]),
        ("30 2 * * MON", "Europe/Berlin", "2026-03-29", []),
        # It has 02:00 to 03:00 twice (from 00:00 UTC and from 01:00 UTC).
        ("30 2 * * *", "Europe/Berlin", "2026-10-25", ["25 00:30"]),
        ("30 3 * * *", "Europe/Berlin", "2026-10-25", ["25 02:30"]),
        ("0 3 * * *", "Europe/Berlin", "2026-10-25", ["25 02:00"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-10-25", ["25 00:00", "25 00:30", "25 01:00", "25 01:30"]),
        ("30 * 25 10 *", "Europe/Berlin", "2026-10-25", [f"25 {h:02}:30" for h in range(23)]),
        # Lord Howe moves by half an hour, at 02:00: to 02:30 at 15:30 UTC, and back to 01:30 at 15:00 UTC.
        ("0 2 * * *", "Australia/Lord_Howe", "2026-10-03", ["03 15:30 moved"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03", ["03 15:30 moved"]),
        ("30 2 * * *", "Australia/Lord_Howe", "2026-10-03", ["03 15:30"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04", ["04 14:45"]),
        ("*/30 1 * * *", "Australia/Lord_Howe", "2026-04-04", ["04 14:00", "04 14:30", "04 15:00"]),
        # São Paulo skipped midnight (03:00 UTC), and repeated the hour before it, on the day before.
        ("0 0 * * *", "America/Sao_Paulo", "2018-11-04", ["04 03:00 moved"]),
        ("30 23 * * *", "America/Sao_Paulo", "2018-02-18", ["18 01:30"]),
        # Dublin's winter is its daylight saving time, and a negative one: the clock shows the same.
        ("30 1 * * *", "Europe/Dublin", "2026-03-29", ["29 01:00 moved"]),
        ("30 1 * * *", "Europe/Dublin", "2026-10-25", ["25 00:30"]),
        # Samoa had no 30 December 2011: it ended where the 29th did, at 10:00 UTC.
        ("0 12 * * *", "Pacific/Apia", "2011-12-30", ["30 10:00 moved", "30 22:00"]),
        ("0 12 30 12 *", "Pacific/Apia", "2011-12-30", ["30 10:00 moved"]),
        ("0 0,12 * * *", "Pacific/Apia", "2011-12-30", ["30 10:00", "30 22:00"]),
        ("45 5 * * *", "Asia/Kathmandu", "2026-01-01", ["01 00:00"]),
        # Morocco leaves its summer time for Ramadan: back on 15 February, at 02:00 UTC, forward on 22 March.
        ("30 2 * * *", "Africa/Casablanca", "2026-02-15", ["15 01:30"]),
        ("30 2 * * *", "Africa/Casablanca", "2026-03-22", ["22 02:00 moved"]),
    ],
)  # fmt: skip
def test_clock_changes_are_met_as_debians_cron_meets_them(cron: str, zone: str, day: str, expected: list[str]) -> None:
    assert local(FireTimes(schedule(cron, zone)), day) == expected


def test_start_and_end_are_slots_where_they_fall_on_one() -> None:
    bounds = {"start": datetime(2026, 1, 1, 12, tzinfo=UTC), "end": datetime(2026, 1, 1, 14, tzinfo=UTC)}
    for rule in ({"cron": "0 * * * *"}, {"every": timedelta(hours=1)}):
        assert local(FireTimes(schedule(**rule, **bounds)), "2026-01-01") == ["01 12:00", "01 13:00", "01 14:00"]


def test_a_grid_begins_with_the_epoch_and_its_offset_and_knows_no_zone() -> None:
    times = FireTimes(schedule(every=timedelta(hours=7), offset=timedelta(minutes=5)))
    slot = times.after(datetime(2026, 3, 29, tzinfo=UTC))
    assert slot is not None
    assert (slot - datetime(1970, 1, 1, 0, 5, tzinfo=UTC)) % timedelta(hours=7) == timedelta(0)
    assert datetime(2026, 3, 29, tzinfo=UTC) < slot <= datetime(2026, 3, 29, 7, tzinfo=UTC)
    assert times.after(slot) == slot + timedelta(hours=7)
    first = times.after(datetime(1970, 1, 1, tzinfo=UTC))
    assert first == datetime(1970, 1, 1, 0, 5, tzinfo=UTC)


def test_a_single_instant_comes_once() -> None:
    at = datetime(2026, 3, 29, 1, 2, 3, 4, tzinfo=UTC)
    times = FireTimes(schedule(at=at))
    assert times.after(at - timedelta(microseconds=1)) == at
    assert times.after(at) is None


@pytest.mark.parametrize("rule", [{"cron": "* * * * *"}, {"every": timedelta(days=36_000)}, {"cron": "0 0 29 2 *"}])
def test_time_ends_without_an_error(rule: dict[str, Any]) -> None:
    times = FireTimes(schedule(zone="Pacific/Kiritimati", **rule))
    assert times.after(datetime.max.replace(tzinfo=UTC)) is None
    assert times.after(datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)) is None
    assert times.after(datetime.min.replace(tzinfo=UTC)) is not None


def test_a_naive_instant_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        FireTimes(schedule("* * * * *")).after(datetime(2026, 1, 1))


def test_jitter_is_stable_and_spread_over_its_length() -> None:
    slots = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(400)]
    late = [jittered("nightly", slot, timedelta(hours=1)) - slot for slot in slots]
    assert late == [jittered("nightly", slot, timedelta(hours=1)) - slot for slot in slots]
    assert late[0] == timedelta(seconds=3453, microseconds=88978)  # on every machine, and in every version
    assert timedelta(0) <= min(late) < timedelta(minutes=3)
    assert timedelta(minutes=57) < max(late) < timedelta(hours=1)
    assert timedelta(minutes=25) < sum(late, timedelta(0)) / len(late) < timedelta(minutes=35)
    assert jittered("other", slots[0], timedelta(hours=1)) != jittered("nightly", slots[0], timedelta(hours=1))
    assert jittered("nightly", slots[0], timedelta(0)) == slots[0]
    jittered("nightly", slots[0], timedelta(days=36_525))


def test_a_due_time_is_never_past_the_next_slot() -> None:
    times = FireTimes(schedule("0,1 * * * *", jitter=timedelta(hours=3)))
    slots = list(times.between(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 5, tzinfo=UTC)))
    due = [times.due(slot) for slot in slots]
    assert all(slot <= at < after for slot, at, after in zip(slots, due, slots[1:], strict=False))
    assert due != slots
    plain = FireTimes(schedule("0 * * * *"))
    assert plain.due(slots[0]) == slots[0]


def test_a_rule_has_one_hash_whatever_its_spelling_and_where_zone_doesnt_matter() -> None:
    assert rule_hash(schedule("@daily")) == rule_hash(schedule(" 0  0 * * * "))
    assert rule_hash(schedule("0 0 * * mon")) == rule_hash(schedule("0 0 0 * * MON"))
    assert rule_hash(schedule("@daily")) == rule_hash(schedule("@daily", params={"x": 1}, jitter=timedelta(1)))
    minute = timedelta(minutes=1)
    assert rule_hash(schedule(every=minute)) == rule_hash(schedule(zone="UTC", every=minute))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rules = [
        schedule("@daily"), schedule("@hourly"), schedule("@daily", zone="UTC"), schedule(every=minute),
        schedule(every=minute, offset=minute / 2), schedule(at=at), schedule("@daily", start=at),
        schedule("@daily", end=at),
    ]  # fmt: skip
    assert len({rule_hash(each) for each in rules}) == len(rules)
    assert len({definition_hash(each) for each in rules}) == len(rules)


def test_a_definition_hash_covers_everything_that_workers_must_agree_on() -> None:
    changes: list[dict[str, Any]] = [
        {}, {"params": {"a": 1}}, {"params": {"a": [1, "x"]}}, {"priority": 1}, {"queue": "q"}, {"enabled": False},
        {"jitter": timedelta(1)}, {"overlap": "allow"}, {"catch_up": "all"}, {"catch_up_window": timedelta(2)},
        {"catch_up_max": 5}, {"grace": timedelta(1)},
    ]  # fmt: skip
    assert len({definition_hash(schedule("@daily", **change)) for change in changes}) == len(changes)
    assert definition_hash(schedule("@daily", params={"a": 1, "b": 2})) == definition_hash(
        schedule("0 0 * * *", params={"b": 2, "a": 1})
    )
    assert definition_hash(schedule("@daily")) == definition_hash(schedule("@daily"))
    assert len(definition_hash(schedule("@daily"))) == len(rule_hash(schedule("@daily"))) == 64
