"""Cron expressions: what is accepted, what is refused with which hint, and the local times that they name.

Five fields, or six with seconds first; lists, ranges, steps; names of months and days; `L` and `LW` as day of month,
`5L` (the last Friday) and `MON#2` (the second Monday) as day of week; `@hourly` to `@yearly`. Day of month and day of
week both restricted mean either, unless one of them begins with `*`: then both.

Source: Debian's cron, by way of cronsim, which Healthchecks uses.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from hueyctl.model.wording import did_you_mean, quoted

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
NEVER = datetime.max
"""What `Cron.first` answers when no time is left."""

_SECOND = timedelta(seconds=1)
_NEVER_COMES = "a date that never comes"
_DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_FIELDS = (
    ("second", "0 to 59"),
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of month", "1 to 31, L (the last) or LW (the last from Monday to Friday)"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of week", "0 to 7 or SUN to SAT, 5L (the last Friday) or MON#2 (the second Monday)"),
)


class Cron:
    """An expression that names times: `fields` are its six, seconds first, in capitals; `text` is its one spelling.

    `fixed`: neither minute nor hour begins with `*`, so it means times of a day and not an interval.

    Raises:
        ValueError: it is none, or names a date that never comes; the message says why, and what to write instead.
    """

    __slots__ = ("_ahead", "_low", "_times", "fields", "fixed", "text")

    def __init__(self, text: str) -> None:
        self.fields = _fields(text)
        self.text = " ".join(self.fields)
        self.fixed = not (self.fields[1].startswith("*") or self.fields[2].startswith("*"))
        self._low, self._ahead = NEVER, NEVER
        # Leap days come on each day of the week within 28 years, or 40 where a century lets one out; from 2000 to 2028
        # there is every kind of year. So what isn't found from here on never comes.
        if self.first(datetime(2000, 1, 1)) == NEVER:
            raise ValueError(_NEVER_COMES)

    def first(self, least: datetime) -> datetime:
        """The first local time at or after `least` (naive, a whole second), or NEVER.

        Asked for growing times it goes on where it was, a few µs each; any other question is a search.
        """
        if least < self._low or (self._ahead != NEVER and least > self._ahead + _SECOND):
            from cronsim import CronSim

            self._times = CronSim(self.text, least - _SECOND)
            self._ahead = self._next()
        elif least > self._ahead:
            self._ahead = self._next()
        self._low = least
        return self._ahead

    def _next(self) -> datetime:
        try:
            return next(self._times, NEVER)
        except OverflowError:  # past the year 9999
            return NEVER


def _fields(text: str) -> tuple[str, ...]:
    """The six fields, each of them sound."""
    words = text.split()
    if words and words[0].startswith("@"):
        words = _alias(words)
    if foreign := _foreign(text, words):
        raise ValueError(foreign)
    if len(words) == 5:
        words = ["0", *words]
    fields = tuple(_narrowed(word.upper(), index) for index, word in enumerate(words))
    for index, field in enumerate(fields):
        if not _sound(field, index):
            name, range_ = _FIELDS[index]
            raise ValueError(f"{name} {quoted(words[index])}: {_hint(field, index) or f'expected {range_}'}")
    if not _sound(" ".join(fields)):
        raise ValueError(_NEVER_COMES)
    return fields


def _narrowed(field: str, index: int) -> str:
    """The field with a range of one value and a step (`5-5/10`) as that value: cronsim takes it for `5/10`, which goes
    on to the end."""
    parts = []
    for part in field.split(","):
        ends = re.fullmatch(r"(\w+)-(\w+)/[0-9]*[1-9][0-9]*", part)
        one = ends and _number(ends[1], index) == _number(ends[2], index) >= 0
        parts.append(ends[1] if ends and one else part)
    return ",".join(parts)


def _sound(text: str, index: int | None = None) -> bool:
    """Whether cronsim takes the expression, or one with this field alone."""
    from cronsim import CronSim, CronSimError

    fields = ["*"] * 6
    if index is not None:
        fields[index] = text
        text = " ".join(fields)
    try:
        CronSim(text, datetime(2000, 1, 1))
    # ValueError: a number of thousands of digits.
    except (CronSimError, ValueError):
        return False
    return True


def _alias(words: list[str]) -> list[str]:
    word = words[0].lower()
    if len(words) == 1 and word in ALIASES:
        return ALIASES[word].split()
    if word == "@every":
        raise ValueError(f'write every = "{words[1] if len(words) == 2 else "5m"}" in place of cron')
    if word == "@reboot":
        raise ValueError("@reboot is no time; start the job from what starts the worker, with `hueyctl enqueue`")
    if word in ALIASES:
        raise ValueError(f"{word} stands alone")
    raise ValueError(f"there is no {quoted(word)}{did_you_mean(word, ALIASES)}")


def _foreign(text: str, words: list[str]) -> str:
    """What is wrong with an expression that hasn't five or six fields of cron at all, or ""."""
    if re.match(r"\s*(CRON_)?TZ=", text, re.IGNORECASE):
        return "the time zone has a key of its own: timezone"
    if re.match(r"\s*(cron|rate)\(", text, re.IGNORECASE):
        return "write the fields alone, without cron( and )"
    if len(words) in (5, 6):
        return ""
    if ":" in text:
        return 'this looks like systemd\'s OnCalendar; 02:30 each day is "30 2 * * *"'
    if len(words) == 7:
        return "a year can't be given; start and end bound a schedule"
    return f"expected 5 fields (minute, hour, day of month, month, day of week) or 6 (seconds first), got {len(words)}"


def _hint(field: str, index: int) -> str:
    """What to write in place of a field that other tools would take, or ""."""
    if "?" in field:
        return "write * in place of ?"
    if re.match(r"H($|[/(])", field):
        return "hueyctl has no H; jitter spreads what would start at once"
    if index == 3 and re.fullmatch(r"\d+W", field):
        return "the weekday nearest to a date can't be said; LW is the last weekday of the month"
    if index == 3 and re.match(r"L-\d", field):
        return "days counted from the end of the month can't be said; L is the last day"
    if index == 5 and field == "L":
        return "L goes with a day, as in 5L, the last Friday"
    if index == 5 and (last := re.fullmatch(r"(\w{3})L", field)) and last[1] in _DAYS:
        return f"write {_DAYS.index(last[1])}L for the last {last[1]}"
    names = {4: _MONTHS, 5: _DAYS}.get(index, [])
    for word in re.findall(r"[A-Z]{4,}", field):
        if word[:3] in names:
            return f"write {word[:3]}"
    if (ends := re.fullmatch(r"([^-,/]+)-([^-,/]+)(/.*)?", field)) and (turned := _turned(ends[1], ends[2], index)):
        return turned
    if field.endswith("/0"):
        return "a step of 0"
    return ""


def _turned(first: str, last: str, index: int) -> str:
    """The hint for a range that runs backwards over the end of its field."""
    lowest, highest = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))[index]
    begin, end = _number(first, index), _number(last, index)
    if not lowest <= end < begin <= highest:
        return ""
    parts = [(begin, highest), (lowest, end)]
    return "a range goes upward: write " + ",".join(f"{a}-{b}" if a != b else str(a) for a, b in parts)


def _number(word: str, index: int) -> int:
    """The value of a number or a name of this field; -1 where it is neither."""
    names = {4: ["", *_MONTHS], 5: _DAYS}.get(index, [])
    if word in names:
        return names.index(word)
    return int(word) if re.fullmatch(r"[0-9]{1,9}", word) else -1
