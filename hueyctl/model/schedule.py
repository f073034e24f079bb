"""The slots of a schedule: pure, with time passed in, and the same whoever asks, wherever it begins.

A cron expression is computed on local time and mapped to UTC here. Where the clock jumps forward, a *fixed* expression
(neither minute nor hour begins with `*`) that names skipped times has one slot, the first instant after the gap, which
is one with a regular slot there; a wildcard one has none for them. Where the clock jumps back, a fixed expression has
slots in the first pass only, a wildcard one in both. Days and months are judged on the local time that is named.
`every` is a grid from 1970-01-01T00:00:00Z plus `offset`: it knows no zone, and can't drift.

Source: Debian's cron(8) for the clock changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import msgspec

from hueyctl.model.cron import NEVER, Cron
from hueyctl.model.definition import Schedule
from hueyctl.model.instant import iso, zone
from hueyctl.model.local_time import LAST_YEAR, stretches

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)
# No clock has gone back further than a day: local times that come twice have come within it.
_FURTHEST_BACK = timedelta(days=2)


class FireTimes:
    """The slots of one schedule, from its `start` to its `end`, both included; none lies before 1970 or after 9998.

    Instants are aware; slots are in UTC. Answers don't depend on what was asked before. Not for use by several
    threads at once.

    Raises:
        ValueError: the cron expression or the time zone is wrong, which `config` has ruled out.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._cron = None if schedule.cron is None else Cron(schedule.cron)
        self._zone = zone(schedule.timezone)

    def after(self, instant: datetime) -> datetime | None:
        """The first slot strictly after `instant`; None when there never is one again."""
        return next(self._from(instant), None)

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The slots after `start` up to `end`, `end` included, in order. There may be very many: take what you need."""
        return takewhile(lambda slot: slot <= end, self._from(start))

    def moved(self, slot: datetime) -> bool:
        """Whether this slot stands for local times that a clock change skipped, and for no regular one."""
        if self._cron is None or not self._cron.fixed or self.after(slot - _MICROSECOND) != slot:
            return False
        local = slot.astimezone(self._zone).replace(tzinfo=None)
        return self._cron.first(local) != local

    def due(self, slot: datetime) -> datetime:
        """When the run of this slot is due: at the slot, or with `jitter` up to that much later.

        It is always before the next slot, so that jitter never changes the order of slots. The slot stays what the
        run is known by.
        """
        jitter = self.schedule.jitter
        if not jitter:
            return slot
        following = self.after(slot)
        return jittered(self.schedule.name, slot, jitter if following is None else min(jitter, following - slot))

    def _from(self, instant: datetime) -> Iterator[datetime]:
        if instant.tzinfo is None:
            raise ValueError("a fire time is asked for with an aware datetime")
        schedule = self.schedule
        begin = max(instant.astimezone(UTC), _EPOCH)
        if schedule.start is not None:
            begin = max(begin, schedule.start - _MICROSECOND)
        slots, end = self._of_rule(begin), schedule.end
        return slots if end is None else takewhile(lambda slot: slot <= end, slots)

    def _of_rule(self, begin: datetime) -> Iterator[datetime]:
        """The slots strictly after `begin`, whatever `start` and `end` say."""
        if self._cron is not None:
            return self._of_cron(self._cron, begin.replace(tzinfo=None, microsecond=0))
        if self.schedule.every is not None:
            return self._of_grid(self.schedule.every, begin)
        at = self.schedule.at
        return iter([at] if at is not None and at > begin else [])

    def _of_grid(self, every: timedelta, begin: datetime) -> Iterator[datetime]:
        zero = _EPOCH + self.schedule.offset
        try:
            slot = zero + ((begin - zero) // every + 1) * every
            while slot.year <= LAST_YEAR:
                yield slot
                slot += every
        except OverflowError:  # past the year 9999
            return

    def _of_cron(self, cron: Cron, begin: datetime) -> Iterator[datetime]:
        """Stretch by stretch of one offset, in naive UTC: in each, slots are its local times minus the offset."""
        reached: datetime | None = None  # how far local time had come before this stretch
        for stretch in stretches(self._zone, begin - _FURTHEST_BACK):
            opens = stretch.begin + stretch.offset
            least = max(opens, begin + stretch.offset + _SECOND)
            if cron.fixed and reached is not None:
                skipped = reached < opens and stretch.begin > begin and cron.first(reached) < opens
                if skipped:
                    yield stretch.begin.replace(tzinfo=UTC)
                least = max(least, opens + _SECOND if skipped else reached)
            closes = stretch.end + stretch.offset
            while least < closes and (local := cron.first(least)) < closes:
                yield (local - stretch.offset).replace(tzinfo=UTC)
                least = local + _SECOND
            if least < closes and local == NEVER:
                return
            reached = closes if reached is None else max(reached, closes)


def jittered(schedule_name: str, slot: datetime, jitter: timedelta) -> datetime:
    """`slot` plus a part of `jitter`, from nothing up to before all of it, that is the same on every machine and every
    time for this schedule and slot, and evenly spread over schedules and slots."""
    digest = hashlib.sha256(f"{schedule_name}\n{iso(slot)}".encode()).digest()
    jitter_us = jitter // _MICROSECOND
    return slot + timedelta(microseconds=jitter_us * int.from_bytes(digest[:8]) >> 64)


def rule_hash(schedule: Schedule) -> str:
    """What decides the slots alone: the rule, its zone where it has one, start and end; 64 hex digits.

    Two spellings of a rule (`@daily`, `0 0 * * *`) are one. Where this has changed, a schedule starts from now.
    """
    return _digest(_rule(schedule))


def definition_hash(schedule: Schedule) -> str:
    """All of a schedule: its rule, what it runs and with what, and its policies; 64 hex digits.

    Workers whose files differ in this must not fire the schedule side by side.
    """
    named = ("cron", "every", "offset", "at", "timezone", "start", "end")
    fields = msgspec.structs.asdict(schedule)
    return _digest([_rule(schedule), {key: value for key, value in fields.items() if key not in named}])


def _rule(schedule: Schedule) -> list[object]:
    cron = None if schedule.cron is None else Cron(schedule.cron).text
    # The zone of a grid or of one instant decides nothing: it was needed to read them.
    named_zone = None if cron is None else schedule.timezone
    return [cron, named_zone, schedule.every, schedule.offset, schedule.at, schedule.start, schedule.end]


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
