"""Durations as people write them: `15s`, `10m`, `1h30m`, `7d`, `500ms`, `1.5s`, or a number of seconds."""

from __future__ import annotations

import math
import re
from datetime import timedelta

LONGEST = timedelta(days=36_525)
"""A hundred years: added to any clock of today it is still a date."""

_UNITS_US = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
# Patterns here are compiled at their first use: at import they would cost every command a millisecond each.
_PART = r"([0-9]+(?:\.[0-9]+)?)(ms|us|w|d|h|m|s)\s*"
_PLAIN = r"[0-9]+(?:\.[0-9]+)?"
_PARTS = "".join(rf"(?:{_PLAIN}{unit}\s*)?" for unit in _UNITS_US)
PATTERN = rf"^\s*(?:{_PLAIN}|(?=[0-9]){_PARTS})\s*$"
"""The texts that `parse_duration` takes, but for how long they are: a regular expression, for whoever can't call it."""

_EXPECTED = 'expected a duration like "15s", "10m", "1h30m" or "7d", or a number of seconds'


def parse_duration(value: object) -> timedelta:
    """The duration that `value` says: text with units from large to small, or seconds as a number (or as text).

    Raises:
        ValueError: it is none, is negative, or is longer than 100 years; the message doesn't repeat the value.
    """
    if isinstance(value, str):
        return _from_text(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(_EXPECTED)
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(_EXPECTED)
    if value < 0:
        raise ValueError("a duration can't be negative")
    if value > LONGEST.total_seconds():
        raise ValueError("a duration of more than 100 years")
    return timedelta(microseconds=round(value * _UNITS_US["s"]))


def format_duration(value: timedelta) -> str:
    """The text from which `parse_duration` makes exactly this duration: `1h30m`, `1.5s`, `500ms`, `0s`.

    A negative one (two clocks disagree) is shown with a minus sign, for reading alone.
    """
    if value < timedelta(0):
        return "-" + format_duration(-value)
    left = value // timedelta(microseconds=1)
    if 0 < left < _UNITS_US["s"]:
        return f"{left}us" if left % 1000 else f"{left // 1000}ms"
    text = ""
    for unit in ("d", "h", "m"):
        count, left = divmod(left, _UNITS_US[unit])
        if count:
            text += f"{count}{unit}"
    seconds, rest = divmod(left, _UNITS_US["s"])
    if rest:
        return text + f"{seconds}.{rest:06d}".rstrip("0") + "s"
    return text + f"{seconds}s" if seconds or not text else text


def _from_text(text: str) -> timedelta:
    if re.fullmatch(_PLAIN, text):
        return parse_duration(float(text))
    total_us, end, last_us = 0.0, 0, math.inf
    part_of = re.compile(_PART)
    while part := part_of.match(text, end):
        unit_us = _UNITS_US[part[2]]
        if unit_us >= last_us:
            raise ValueError(f"{_EXPECTED}, largest unit first and each unit once")
        # Each part is rounded for itself: the sum of rounded parts is exact, the rounded sum of parts is not.
        number = float(part[1]) * unit_us
        if number > LONGEST / timedelta(microseconds=1):
            raise ValueError("a duration of more than 100 years")
        total_us += round(number)
        end, last_us = part.end(), unit_us
    if not text or end != len(text):
        raise ValueError("a duration can't be negative" if text.startswith("-") else _EXPECTED)
    return parse_duration(total_us / _UNITS_US["s"])
