"""What a schedule says and probably doesn't mean: for `check`, as warnings, since each may be right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

from hueyctl.model.cron import NEVER, Cron
from hueyctl.model.definition import Schedule
from hueyctl.model.duration import format_duration
from hueyctl.model.instant import iso, zone
from hueyctl.model.local_time import stretches
from hueyctl.model.schedule import FireTimes
from hueyctl.model.wording import quoted

# Of each field but the year: its name, lowest value, count of values, where it begins anew, and its unit for `every`.
_FIELDS = (
    ("second", 0, 60, "each minute", "s"),
    ("minute", 0, 60, "each hour", "m"),
    ("hour", 0, 24, "each day", "h"),
    ("day of month", 1, 31, "each month", "d"),
    ("month", 1, 12, "each year", ""),
    ("day of week", 0, 7, "each week", "d"),
)
# Two years have every yearly change at least once, whatever the day.
_LOOK_AHEAD = timedelta(days=731)


def warnings(schedule: Schedule, *, now: datetime) -> list[str]:
    """A line for each doubt, beginning with the key that it is about: `cron: minute "*/7" begins anew each hour, …`.

    `now` (aware) decides which clock changes are ahead, and what is over.
    """
    times = FireTimes(schedule)
    found = [f"cron: {line}" for line in _of_cron(schedule, times, now)] if schedule.cron is not None else []
    return [*found, *_of_distances(schedule, times, now), *_of_the_past(schedule, times, now)]


def _of_cron(schedule: Schedule, times: FireTimes, now: datetime) -> Iterator[str]:
    cron = Cron(schedule.cron or "")
    yield from _uneven_steps(cron)
    second, minute, hour, day, _, weekday = cron.fields
    if second == "*" and minute != "*":
        yield "fires in every second of its minutes; with five fields, or 0 in the first of six, once a minute"
    if minute == "*" and not hour.startswith("*"):
        yield "fires in every minute of its hours; for once an hour, write 0 as the minute"
    if not day.startswith("*") and not weekday.startswith("*"):
        yield (
            f"fires on day of month {quoted(day)} and also on each day of week {quoted(weekday)}, as cron has it; "
            "a certain one of the month is written MON#2 or 5L"
        )
    if not hour.startswith("*"):
        yield from _clock_changes(cron, schedule, times, now)


def _uneven_steps(cron: Cron) -> Iterator[str]:
    for field, (name, low, count, anew, unit) in zip(cron.fields, _FIELDS, strict=True):
        for part in field.split(","):
            match = re.fullmatch(r"(\*|[0-9]{1,2})/([0-9]{1,4})", part)
            if match is None:
                continue
            first, step = low if match[1] == "*" else int(match[1]), int(match[2])
            if count % step == 0 or first - low >= step:
                continue
            evenly = f'; for an even distance, write every = "{step}{unit}" in place of cron' if unit else ""
            if first + step >= low + count:
                yield f"{name} {quoted(part)} is {first} alone, since it begins anew {anew}{evenly}"
            else:
                last = first + (low + count - 1 - first) // step * step
                yield f"{name} {quoted(part)} begins anew {anew}: after {last} comes {first}{evenly}"


def _clock_changes(cron: Cron, schedule: Schedule, times: FireTimes, now: datetime) -> Iterator[str]:
    """The first skipped and the first repeated times ahead that the expression names."""
    begin = now.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    where = schedule.timezone
    met: set[bool] = set()  # of forward and of backward changes, the first that matters is enough
    for before, after in pairwise(stretches(zone(where), begin)):
        change = before.end
        if change > begin + _LOOK_AHEAD:
            return
        closes, opens = change + before.offset, change + after.offset
        local = cron.first(min(closes, opens))
        forward = opens > closes
        if local >= max(closes, opens) or forward in met:
            continue
        skipped = f"{local:%H:%M} on {local:%Y-%m-%d}"
        if not forward:
            met.add(forward)
            how = "the first time only" if cron.fixed else "both times"
            yield f"the clock in {where} has {skipped} twice, and it fires {how}"
        elif cron.fixed and times.moved(change.replace(tzinfo=UTC)):
            met.add(forward)
            yield f"the clock in {where} skips {skipped}, and it fires at {opens:%H:%M} then"
        elif not cron.fixed and _nothing_else(cron, closes, opens):
            met.add(forward)
            yield f"the clock in {where} skips {skipped}, and it doesn't fire that day"


def _nothing_else(cron: Cron, closes: datetime, opens: datetime) -> bool:
    """Whether the day of a gap has no time outside of it."""
    midnight = closes.replace(hour=0, minute=0, second=0)
    return cron.first(midnight) >= closes and cron.first(opens) >= midnight + timedelta(days=1)


def _of_distances(schedule: Schedule, times: FireTimes, now: datetime) -> Iterator[str]:
    slots = list(islice(times.between(now, NEVER.replace(tzinfo=UTC)), 5))
    if len(slots) < 2:
        return
    distance = min(later - slot for slot, later in pairwise(slots))
    # With "latest" a window shorter than the distance means something: not too late. With "all" it leaves one.
    if schedule.catch_up == "all" and distance > schedule.catch_up_window:
        window = format_duration(schedule.catch_up_window)
        apart = f"they are {format_duration(distance)} apart, and catch_up_window is {window}"
        yield f'catch_up: "all" can mean one slot at most: {apart}'
    if schedule.jitter > distance:
        yield f"jitter: longer than the {format_duration(distance)} between slots, before which it ends"


def _of_the_past(schedule: Schedule, times: FireTimes, now: datetime) -> Iterator[str]:
    if times.after(now) is None:
        key, at = ("at", schedule.at) if schedule.at is not None else ("end", schedule.end)
        yield f"{key}: {iso(at) if at else 'it'} has passed; it doesn't fire again"
