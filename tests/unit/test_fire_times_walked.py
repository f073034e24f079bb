"""Fire times against a walk: every minute or second of UTC is asked for its local time, and nothing is computed.

The walk knows nothing of cronsim, of offsets or of when clocks change: a local time comes again if it isn't later than
the latest one so far, and was skipped if it lies between two that follow each other. `FIRE_TIMES_WALKS=long` walks
around every change of every zone from 1970 to 2040, which takes many minutes.
"""

from __future__ import annotations

import calendar
import os
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hueyctl.model.definition import Schedule
from hueyctl.model.schedule import FireTimes

LONG = os.environ.get("FIRE_TIMES_WALKS") == "long"
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NAMES = {name: str(number) for number, name in enumerate("SUN MON TUE WED THU FRI SAT".split())}
NAMES |= {name: str(number) for number, name in enumerate("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), 1)}

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Europe/Dublin",
    "Asia/Kathmandu", "Pacific/Apia", "Africa/Casablanca", "America/St_Johns", "Asia/Gaza", "Antarctica/Troll",
    "America/Havana", "Asia/Beirut", "Pacific/Kwajalein", "Asia/Pyongyang", "Africa/Monrovia", "America/Caracas",
]  # fmt: skip
# Changes of these zones, by local day: between them every kind that there has been since 1970.
CHANGES = [
    ("Europe/Berlin", "2026-03-29"), ("Europe/Berlin", "2026-10-25"), ("Europe/Berlin", "2060-03-28"),
    ("America/New_York", "2027-03-14"), ("America/New_York", "2027-11-07"),
    ("Australia/Lord_Howe", "2026-04-05"), ("Australia/Lord_Howe", "2026-10-04"),
    ("America/Sao_Paulo", "2018-02-18"), ("America/Sao_Paulo", "2018-11-04"),
    ("Europe/Dublin", "2026-03-29"), ("Europe/Dublin", "2025-10-26"),
    ("Asia/Kathmandu", "1986-01-01"),  # 15 minutes
    ("Pacific/Apia", "2011-12-30"),  # a day less
    ("Pacific/Kwajalein", "1993-08-21"),  # another one
    ("Africa/Casablanca", "2026-02-15"), ("Africa/Casablanca", "2026-03-22"),
    ("America/St_Johns", "2006-04-02"),  # at 00:01
    ("Antarctica/Troll", "2026-03-29"),  # two hours
    ("America/Havana", "2026-03-08"), ("America/Havana", "2026-11-01"),  # midnight; 01:00
    ("Asia/Pyongyang", "2015-08-15"), ("America/Caracas", "2007-12-09"),  # half an hour back
    ("Africa/Monrovia", "1972-01-07"),  # 44 minutes and 30 seconds
    ("America/Recife", "2000-10-10"),  # two changes within a week
    ("Europe/Warsaw", "1977-10-02"), ("America/Anchorage", "1983-10-30"), ("UTC", "2026-03-29"),
    ("Asia/Singapore", "1981-12-31"),  # half an hour, at the end of a year
    ("Africa/Casablanca", "1985-12-31"), ("Africa/Sao_Tome", "2019-01-01"),  # hours that come twice, at the end of one
]  # fmt: skip
BY_SECONDS = [CHANGES[n] for n in (0, 1, 5, 6, 12, 22)]
EXPRESSIONS = [
    "* * * * *", "*/7 * * * *", "30 * * * *", "0 */2 * * *", "*/10 2 * * *", "* 1-3 * * *", "15 */3 * * SUN",
    "0 0 * * *", "0 2 * * *", "30 2 * * *", "0 3 * * *", "30 1 * * *", "59 1 * * *", "1 0 * * *", "15 0,12 * * *",
    "0,15,30,45 0-4 * * *", "0-59 0-23 * * *", "0-59/20 22-23 * * *", "30 2 * * SUN", "30 2 * * MON-FRI", "0 12 L * *",
    "0 12 LW * *", "30 0 * * 0L", "30 2 * * SUN#1,SUN#2", "0 2 1-7 * 6", "0 2 */2 * 0", "15 1 29 3 *", "0 12 30 12 *",
    "0 0 1 1 *", "45 23 31 DEC *", "30 23 * * 6,7", "0 4,16 * JAN-JUN/2 *",
]  # fmt: skip
IN_SECONDS = ["* * * * * *", "*/25 */10 * * * *", "*/20 30 2 * * *", "15,45 29-31 1-3 * * *", "59 59 1,2,23 * * *"]


class Field(NamedTuple):
    """What a field takes: plain numbers, and what it says of days by their place in the month."""

    numbers: frozenset[int]
    special: Callable[[date], bool]
    star: bool


def field(text: str, low: int, high: int) -> Field:
    numbers: set[int] = set()
    specials: list[Callable[[date], bool]] = []
    for name, number in NAMES.items():
        text = text.replace(name, number)
    for part in text.split(","):
        if part == "L":
            specials.append(lambda day: (day + DAY).day == 1)
        elif part == "LW":
            specials.append(lambda day: day == max(each for each in month_of(day) if each.isoweekday() <= 5))
        elif part.endswith("L"):
            specials.append(lambda day, on=int(part[:-1]): on_weekday(day, on) and (day + 7 * DAY).day <= 7)
        elif "#" in part:
            on, place = map(int, part.split("#"))
            specials.append(lambda day, on=on, place=place: on_weekday(day, on) and (day.day - 1) // 7 == place - 1)
        else:
            body, _, step = part.partition("/")
            first, _, last = body.partition("-")
            begin = low if body == "*" else int(first)
            end = int(last) if last else high if body == "*" or step else begin
            numbers |= set(range(begin, end + 1, int(step or 1)))
    return Field(frozenset(numbers), lambda day: any(each(day) for each in specials), text.startswith("*"))


def on_weekday(day: date, on: int) -> bool:
    return day.isoweekday() % 7 == on


def month_of(day: date) -> Iterator[date]:
    return (day.replace(day=number) for number in range(1, calendar.monthrange(day.year, day.month)[1] + 1))


class Rule:
    """The meaning of an expression for one local time."""

    def __init__(self, text: str) -> None:
        words = text.split()
        words = ["0", *words] if len(words) == 5 else words
        limits = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
        self.second, self.minute, self.hour, self.day, self.month, self.weekday = (
            field(word, *limit) for word, limit in zip(words, limits, strict=True)
        )
        self.wildcard = self.minute.star or self.hour.star
        self.days: dict[date, bool] = {}

    def names(self, local: datetime) -> bool:
        if local.minute not in self.minute.numbers or local.hour not in self.hour.numbers:
            return False
        return local.second in self.second.numbers and self.names_day(local.date())

    def names_day(self, day: date) -> bool:
        if day not in self.days:
            of_month = day.day in self.day.numbers or self.day.special(day)
            weekday = day.isoweekday()
            of_week = not self.weekday.numbers.isdisjoint({weekday, weekday % 7}) or self.weekday.special(day)
            both = self.day.star or self.weekday.star
            of = (of_month and of_week) if both else (of_month or of_week)
            self.days[day] = of and day.month in self.month.numbers
        return self.days[day]


class Moment(NamedTuple):
    at: datetime
    local: datetime
    again: bool
    skipped: list[datetime]


def walk(zone: str, begin: datetime, end: datetime, step: timedelta) -> list[Moment]:
    """The moments after `begin` up to `end`; two days more are walked before, to know what comes again."""
    tz, moments = ZoneInfo(zone), []
    at = begin - 2 * DAY
    latest = at.astimezone(tz).replace(tzinfo=None)
    while at < end:
        at += step
        local = at.astimezone(tz).replace(tzinfo=None)
        count = (local - latest) // step
        # Where the offset has seconds, local times between the steps were skipped as well: each whole one counts.
        moments.append(Moment(at, local, local <= latest, [latest + step * n for n in range(1, count)]))
        latest = max(latest, local)
    return [moment for moment in moments if moment.at > begin]


def walked(rule: Rule, moments: list[Moment]) -> tuple[list[datetime], set[datetime]]:
    """The slots by the rule of DESIGN, and those of them that stand for skipped times alone."""
    slots, moved = [], set()
    for moment in moments:
        regular = rule.names(moment.local) and (rule.wildcard or not moment.again)
        if not regular and not rule.wildcard and any(map(rule.names, moment.skipped)):
            moved.add(moment.at)
        if regular or moment.at in moved:
            slots.append(moment.at)
    return slots, moved


def fire_times(cron: str, zone: str) -> FireTimes:
    return FireTimes(Schedule(name="s", target="s", target_kind="job", timezone=zone, cron=cron))


def compare(expressions: list[str], zone: str, begin: datetime, end: datetime, step: timedelta) -> None:
    moments = walk(zone, begin, end, step)
    for cron in expressions:
        slots, moved = walked(Rule(cron), moments)
        times = fire_times(cron, zone)
        found = list(times.between(begin, end))
        assert found == slots, (cron, zone)
        near = [slot for slot in found if step == SECOND or slot in moved or len(found) < 50]
        assert {slot for slot in near if times.moved(slot)} == moved, (cron, zone)


@pytest.mark.parametrize(("zone", "day"), CHANGES, ids=map(" ".join, CHANGES))
def test_around_a_change_slots_are_those_of_a_walk_by_minutes(zone: str, day: str) -> None:
    noon = datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)
    step = MINUTE if zone != "Africa/Monrovia" else 30 * SECOND
    compare(EXPRESSIONS, zone, noon - 1.5 * DAY, noon + 1.5 * DAY, step)


@pytest.mark.parametrize(("zone", "day"), BY_SECONDS, ids=map(" ".join, BY_SECONDS))
def test_around_a_change_slots_are_those_of_a_walk_by_seconds(zone: str, day: str) -> None:
    tz = ZoneInfo(zone)
    at = datetime.fromisoformat(day).replace(tzinfo=UTC) - DAY
    offset = at.astimezone(tz).utcoffset()
    while at.astimezone(tz).utcoffset() == offset:
        at += MINUTE
    compare(IN_SECONDS, zone, at - 1.1 * HOUR, at + 1.1 * HOUR, SECOND)


@pytest.mark.parametrize(("zone", "day"), CHANGES, ids=map(" ".join, CHANGES))
def test_started_at_any_time_around_a_change_the_next_slot_is_the_same(zone: str, day: str) -> None:
    end = datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC) + 1.5 * DAY
    for cron in ("15,45 * * * *", "15,45 0-23 * * *", "30 2 * * *"):
        times, at = fire_times(cron, zone), end - 3 * DAY
        slots = list(times.between(at, end + DAY))
        while at < end:
            assert times.after(at) == next(slot for slot in slots if slot > at), (cron, at)
            at += 5 * MINUTE + SECOND


QUARTERS = [
    "0 0 1 1 *", "30 2 * * *", "0 12 29 2 *", "15 1 * * SUN#5", "45 23 L * *", "0 6 LW * *", "0 0 13 * 5",
    "30 1 * * 0L", "0 2 */2 * 0", "0 3 31 * *", "0 */6 1 * *", "*/15 2 * 3,10 SUN", "0 0 1 1,7 MON",
]  # fmt: skip


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"])
def test_over_years_slots_are_those_of_a_walk_by_quarters_of_an_hour(zone: str) -> None:
    compare(QUARTERS, zone, datetime(2010, 6, 1, tzinfo=UTC), datetime(2012, 6, 1, tzinfo=UTC), 15 * MINUTE)


if LONG:
    YEARS = range(1970, 2041)

    @pytest.mark.timeout(0)
    @pytest.mark.parametrize("year", YEARS)
    def test_around_every_change_of_every_zone_slots_are_those_of_a_walk(year: int) -> None:
        changes: dict[tuple[datetime, timedelta | None, timedelta | None], str] = {}
        for zone in sorted(available_timezones()):
            day, tz = datetime(year, 1, 10, tzinfo=UTC), ZoneInfo(zone)
            while day < datetime(year + 1, 1, 10, tzinfo=UTC):
                before, after = day.astimezone(tz).utcoffset(), (day + DAY).astimezone(tz).utcoffset()
                if before != after:
                    changes[day, before, after] = zone
                day += DAY
        for (day, _, _), zone in changes.items():
            step = 30 * SECOND if zone == "Africa/Monrovia" else MINUTE
            compare(EXPRESSIONS, zone, day - DAY, day + 2 * DAY, step)


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high)
    spans = st.tuples(one, one).map(lambda pair: f"{min(pair)}-{max(pair)}")
    part = st.one_of(one.map(str), spans, st.tuples(spans, st.integers(1, high)).map(lambda p: f"{p[0]}/{p[1]}"))
    lists = st.lists(part, min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), st.integers(1, high).map("*/{}".format), lists)


CRONS = st.tuples(
    st.sampled_from(["", "", "", "0 ", "*/15 ", "7,31 "]),
    st.one_of(st.just("0"), st.just("30"), numbers(0, 59)),
    st.one_of(st.sampled_from(["2", "0-3", "1,2,3"]), numbers(0, 23)),
    st.one_of(st.just("*"), st.just("L"), numbers(1, 31)),
    st.one_of(st.just("*"), numbers(1, 12)),
    st.one_of(st.just("*"), st.sampled_from(["SUN", "5L", "MON#2"]), numbers(0, 7)),
).map(lambda parts: parts[0] + " ".join(parts[1:]))
NEAR = st.sampled_from(CHANGES).flatmap(
    lambda change: st.tuples(
        st.just(change[0]),
        st.integers(-36 * 3600, 36 * 3600).map(
            lambda s: datetime.fromisoformat(change[1]).replace(hour=12, tzinfo=UTC) + s * SECOND
        ),
    )
)
ANYWHERE = st.tuples(
    st.sampled_from(ZONES),
    st.datetimes(datetime(1970, 1, 1), datetime(2120, 1, 1), timezones=st.just(UTC)),
)


@st.composite
def times_and_instants(draw: st.DrawFn) -> tuple[FireTimes, datetime]:
    zone, instant = draw(st.one_of(NEAR, ANYWHERE))
    if draw(st.integers(0, 9)) == 0:
        every = draw(st.timedeltas(timedelta(milliseconds=100), timedelta(days=900)))
        offset = draw(st.timedeltas(timedelta(0), every - timedelta(microseconds=1)))
        return FireTimes(
            Schedule(name="s", target="s", target_kind="job", timezone=zone, every=every, offset=offset)
        ), instant
    try:
        return fire_times(draw(CRONS), zone), instant
    except ValueError as exc:
        assume("never comes" not in str(exc))
        raise


@settings(max_examples=2000 if LONG else 250)
@given(times_and_instants(), st.floats(0, 1, exclude_max=True), st.integers(1, 30))
def test_slots_grow_and_are_the_same_from_any_starting_point(
    drawn: tuple[FireTimes, datetime], part: float, count: int
) -> None:
    times, instant = drawn
    slots = list(islice(times.between(instant, datetime.max.replace(tzinfo=UTC)), count))
    assert len(slots) == count
    at = instant
    for slot in slots:
        assert slot > at
        assert slot.utcoffset() == timedelta(0)
        assert times.after(at) == slot
        # Fresh eyes, from somewhere between the slots, see the same.
        between = at + timedelta(microseconds=int((slot - at) / timedelta(microseconds=1) * part))
        assert FireTimes(times.schedule).after(min(between, slot - timedelta(microseconds=1))) == slot
        at = slot
    assert list(times.between(instant, slots[-1])) == slots
    assert list(times.between(slots[0], slots[-1] - timedelta(microseconds=1))) == slots[1:-1]
    assert list(times.between(slots[-1], instant)) == []


@settings(max_examples=2000 if LONG else 120)
@given(CRONS, NEAR)
def test_any_expression_around_a_change_has_the_slots_of_a_walk(cron: str, near: tuple[str, datetime]) -> None:
    zone, instant = near
    assume(zone != "Africa/Monrovia")
    try:
        fire_times(cron, zone)
    except ValueError:
        assume(False)
    instant = instant.replace(second=0)
    compare([cron.split(maxsplit=1)[1] if len(cron.split()) == 6 else cron], zone, instant, instant + 4 * HOUR, MINUTE)
