"""Points in time as people type them after --since, --until and --at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hueyctl.model.instant import iso, parse_instant, zone

NOON = datetime(2026, 3, 29, 12, 0, tzinfo=UTC)  # 14:00 in Berlin, where the clock went from 02:00 to 03:00 that night


def at(text: str, **options: object) -> str:
    options = {"timezone": "Europe/Berlin", "direction": "past", **options}
    return iso(parse_instant(text, now=NOON, **options))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", "2026-03-29T12:00:00Z"),
        ("2h", "2026-03-29T10:00:00Z"),
        ("1.5s", "2026-03-29T11:59:58.500000Z"),
        ("today", "2026-03-28T23:00:00Z"),
        ("Yesterday", "2026-03-27T23:00:00Z"),
        ("tomorrow", "2026-03-29T22:00:00Z"),
        ("13:30", "2026-03-29T11:30:00Z"),
        ("14:30", "2026-03-28T13:30:00Z"),
        ("9:05:01", "2026-03-29T07:05:01Z"),
        ("2026-03-29", "2026-03-28T23:00:00Z"),
        ("20260329", "2026-03-28T23:00:00Z"),
        ("2026-03-29T14:30", "2026-03-29T12:30:00Z"),
        ("2026-03-29 14:30:00+09:00", "2026-03-29T05:30:00Z"),
        ("2026-03-29T14:30:00Z", "2026-03-29T14:30:00Z"),
    ],
)
def test_a_time_is_read_in_the_given_zone_and_comes_out_in_utc(text: str, expected: str) -> None:
    assert at(text) == expected


def test_a_duration_or_time_of_day_lies_in_the_direction_that_is_asked_for() -> None:
    assert at("2h", direction="future") == "2026-03-29T14:00:00Z"
    assert at("14:30", direction="future") == "2026-03-29T12:30:00Z"
    assert at("13:30", direction="future") == "2026-03-30T11:30:00Z"


@pytest.mark.parametrize("text", ["", "soon", "90", "2", "-2h", "25:00", "2026-13-01", "2h ago?", "1e9s", "\0", "२h"])
def test_what_is_no_time_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time: 2h"):
        at(text)


def test_a_time_that_utc_can_not_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="after the year 9999"):
        at("9999-12-31T23:59:59-05:00")


@given(st.text(max_size=20), st.sampled_from(["past", "future"]))
def test_any_text_gives_an_aware_utc_time_or_a_value_error(text: str, direction: str) -> None:
    try:
        found = parse_instant(text, now=NOON, timezone="Europe/Berlin", direction=direction)
    except ValueError:
        return
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize("name", ["Europe/Berln", "Europe", "", "../etc/passwd", "/etc/localtime"])
def test_a_zone_that_does_not_exist_is_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match="IANA"):
        zone(name)


def test_times_are_shown_in_utc_with_microseconds_only_where_there_are_some() -> None:
    assert iso(datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))) == "2026-01-02T01:04:05Z"
    assert iso(datetime(2026, 1, 2, 3, 4, 5, 60, tzinfo=UTC)) == "2026-01-02T03:04:05.000060Z"
