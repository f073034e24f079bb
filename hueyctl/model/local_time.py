"""When the local time of a zone jumps: what the tz database knows, found by asking for offsets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple

LAST_YEAR = 9998
"""Local times of the year after would not fit into a datetime."""

# No zone has changed twice within 6.9 days since 1970 (Recife in the year 2000, Gaza each year from 2040 on).
_STEP = timedelta(days=3)
_SECOND = timedelta(seconds=1)


class Stretch(NamedTuple):
    """A time with one offset: from `begin` to before `end`, both naive in UTC; local time is UTC plus `offset`."""

    begin: datetime
    end: datetime
    offset: timedelta


def stretches(zone: tzinfo, begin: datetime) -> Iterator[Stretch]:
    """The stretches from the one that holds `begin` (naive, UTC) to the end of LAST_YEAR, without a hole.

    They are also cut where a year ends; so neighbours may have the same offset.
    """
    for year in range(begin.year, LAST_YEAR + 1):
        for stretch in _of_year(zone, year):
            if stretch.end > begin:
                yield stretch


@lru_cache(maxsize=2000)
def _of_year(zone: tzinfo, year: int) -> tuple[Stretch, ...]:
    found, begin, end = [], datetime(year, 1, 1), datetime(year + 1, 1, 1)
    at, offset = begin, _offset(zone, begin)
    while at < end:
        later = min(at + _STEP, end - _SECOND)
        if (changed := _offset(zone, later)) != offset:
            change = _change(zone, at, later, offset)
            found.append(Stretch(begin, change, offset))
            begin, offset = change, changed
        at = later if later < end - _SECOND else end
    return (*found, Stretch(begin, end, offset))


def _change(zone: tzinfo, before: datetime, after: datetime, offset: timedelta) -> datetime:
    """The first second after `before` whose offset is another one than `offset`, as that of `after` is."""
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        if _offset(zone, middle) == offset:
            before = middle
        else:
            after = middle
    return after


def _offset(zone: tzinfo, at: datetime) -> timedelta:
    return at.replace(tzinfo=UTC).astimezone(zone).utcoffset() or timedelta(0)
