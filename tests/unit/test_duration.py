"""Durations: what is accepted, what is refused, and that showing one and reading it back changes nothing."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hueyctl.model.duration import LONGEST, PATTERN, format_duration, parse_duration

durations = st.timedeltas(min_value=timedelta(0), max_value=LONGEST)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("15s", timedelta(seconds=15)),
        ("10m", timedelta(minutes=10)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        ("500ms", timedelta(milliseconds=500)),
        ("250us", timedelta(microseconds=250)),
        ("1.5s", timedelta(seconds=1.5)),
        ("1m1.000001s", timedelta(minutes=1, seconds=1, microseconds=1)),
        (" 1h 30m ", timedelta(hours=1, minutes=30)),
        ("90", timedelta(seconds=90)),
        ("0s", timedelta(0)),
        (0, timedelta(0)),
        (90, timedelta(seconds=90)),
        (0.1, timedelta(milliseconds=100)),
        ("36525d", LONGEST),
    ],
)
def test_a_duration_is_text_with_units_or_a_number_of_seconds(value: object, expected: timedelta) -> None:
    assert parse_duration(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "s",
        "5 parsecs",
        "1x",
        "30m1h",
        "1h1h",
        "1m 1",
        "1.s",
        "1e3s",
        "٣s",
        "-5s",
        "--5s",
        "36526d",
        "9" * 400,
        "9" * 400 + "s",
        True,
        None,
        -1,
        -0.001,
        float("nan"),
        float("inf"),
        10**400,
        [],
        b"5s",
    ],
)
def test_anything_else_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


def test_a_negative_or_absurd_duration_is_named_as_such() -> None:
    with pytest.raises(ValueError, match="can't be negative"):
        parse_duration("-5s")
    with pytest.raises(ValueError, match="more than 100 years"):
        parse_duration("40000d")


@given(durations)
def test_showing_a_duration_and_reading_it_back_gives_the_same(value: timedelta) -> None:
    assert parse_duration(format_duration(value)) == value


parts = st.tuples(st.sampled_from(["1", "2.5", "1.", ""]), st.sampled_from(["w", "h", "m", "ms", "us", "-", ""]))
spaced = st.tuples(parts.map("".join), st.sampled_from(["", " "])).map("".join)


@given(st.lists(spaced, max_size=3).map("".join))
def test_the_pattern_takes_what_is_read(text: str) -> None:
    try:
        parse_duration(text)
        read = True
    except ValueError:
        read = False
    assert read == bool(re.fullmatch(PATTERN, text))


@given(st.text(max_size=12))
def test_text_is_read_or_refused_and_never_breaks(text: str) -> None:
    try:
        found = parse_duration(text)
    except ValueError:
        return
    assert timedelta(0) <= found <= LONGEST


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (timedelta(0), "0s"),
        (timedelta(hours=1, minutes=30), "1h30m"),
        (timedelta(days=7), "7d"),
        (timedelta(seconds=1.5), "1.5s"),
        (timedelta(milliseconds=500), "500ms"),
        (timedelta(microseconds=1500), "1500us"),
        (timedelta(minutes=-5), "-5m"),
    ],
)
def test_a_duration_is_shown_as_people_write_it(value: timedelta, expected: str) -> None:
    assert format_duration(value) == expected
