"""Points in time as people write them, and as hueyctl shows them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Literal

from hueyctl.model.duration import parse_duration

_TIME_OF_DAY = r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?"
_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}


def parse_instant(
    text: str, *, now: datetime, timezone: str, direction: Literal["past", "future"] = "past"
) -> datetime:
    """The instant that `text` means, aware and in UTC.

    It is `now`; a duration (`2h`) before now, or after it where `direction` is "future"; `yesterday`, `today` or
    `tomorrow` (their midnight); a time of day (`14:30`: the last such, or the next); or an ISO date or date and time.
    What names no offset is local time in the IANA zone `timezone`.

    Raises:
        ValueError: it is none of these, or out of range; the message says what is accepted, and not the text.
    """
    text = text.strip()
    word = text.lower()
    if word == "now":
        return now.astimezone(UTC)
    try:
        if word in _DAYS:
            day = now.astimezone(zone(timezone)).date() + timedelta(days=_DAYS[word])
            return datetime.combine(day, time(), zone(timezone)).astimezone(UTC)
        if re.fullmatch(_TIME_OF_DAY, text):
            return _nearest(time.fromisoformat(text.zfill(8 if text.count(":") == 2 else 5)), now, timezone, direction)
        if not text.isdigit() and text[:1].isdigit() and text[-1:] in "wdhms" and "-" not in text:
            distance = parse_duration(text)
            return (now - distance if direction == "past" else now + distance).astimezone(UTC)
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=zone(timezone))).astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("a time before the year 1 or after the year 9999") from exc
    except ValueError as exc:
        example = "2h (ago)" if direction == "past" else "5m (from now)"
        raise ValueError(
            f"expected a time: {example}, now, today, yesterday, tomorrow, 14:30, 2026-03-29, "
            "2026-03-29T14:30 or 2026-03-29T14:30:00+02:00"
        ) from exc


def iso(at: datetime) -> str:
    """RFC 3339 in UTC with `Z`; microseconds only where there are some."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def zone(name: str) -> tzinfo:
    """The IANA time zone of that name.

    Raises:
        ValueError: there is none.
    """
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    # A folder ("Europe") is an OSError, an unknown name a KeyError, a path out of the database a ValueError.
    except (KeyError, ValueError, OSError) as exc:
        raise ValueError("expected an IANA time zone like Europe/Berlin") from exc


def _nearest(at: time, now: datetime, timezone: str, direction: Literal["past", "future"]) -> datetime:
    today = now.astimezone(zone(timezone)).date()
    candidates = [
        datetime.combine(today + timedelta(days=days), at, zone(timezone)).astimezone(UTC) for days in (-1, 0, 1)
    ]
    if direction == "past":
        return max(candidate for candidate in candidates if candidate <= now)
    return min(candidate for candidate in candidates if candidate > now)
