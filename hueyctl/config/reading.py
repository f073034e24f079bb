"""Readers: small functions that turn one value of the file into its final type, or say what is wrong with it.

A reader gets the place of the value and the value, and returns None after it has complained there; so one pass over
the file finds everything that is wrong with it. It also has the JSON Schema of what it takes, which `hueyctl schema`
prints: see `Reader`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from hueyctl.model.duration import LONGEST, PATTERN, format_duration, parse_duration
from hueyctl.model.instant import zone
from hueyctl.model.wording import did_you_mean, kind_of, quoted, shown

T = TypeVar("T")

_BARE_KEY = r"[A-Za-z0-9_-]+"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_SIZE = r"([0-9]{1,15}(?:\.[0-9]+)?) ?(B|[KMGT]i?B)"
_LONGEST_NAME = 100
_INT64 = 2**63 - 1


class File:
    """The file being read: its name, the folder of its paths, what is wrong with it so far, and the keys of every
    kind of table by how that is written (`[schedules.NAME]`), to say where a misplaced one belongs."""

    __slots__ = ("dir", "name", "problems", "tables")

    def __init__(self, name: str, dir: Path, tables: Mapping[str, Mapping[str, object]]) -> None:
        self.name = name
        self.dir = dir
        self.problems: list[str] = []
        self.tables = tables


class At:
    """A place in the file. `wrong` reports a problem there, among those of the whole file."""

    __slots__ = ("file", "keys")

    def __init__(self, file: File, keys: tuple[str | int, ...] = ()) -> None:
        self.file = file
        self.keys = keys

    def __truediv__(self, key: str) -> At:
        """The place of a key in this table."""
        return At(self.file, (*self.keys, key))

    def __getitem__(self, index: int) -> At:
        """The place of an element of this list, counted from 0."""
        return At(self.file, (*self.keys, index))

    def wrong(self, message: str) -> None:
        """Report a problem here."""
        place = "".join(map(_segment, self.keys)).removeprefix(".")
        self.file.problems.append(f"{self.file.name}: {place}: {message}")

    @property
    def dir(self) -> Path:
        """The file's folder."""
        return self.file.dir

    @property
    def problems(self) -> list[str]:
        """What is wrong with the file so far."""
        return self.file.problems


def _segment(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return "." + (key if re.fullmatch(_BARE_KEY, key) else quoted(key))


Schema = Mapping[str, Any]


class Reader(Generic[T]):
    """What reads one value, and the JSON Schema of the values that it takes, for editors.

    The schema must take whatever the reader does: an editor that underlines what `check` finds right is worse than one
    that stays silent. It may take more, for it sees one value alone. Its words are those that mean the same in draft
    2020-12 and in draft 7, since taplo passes over newer ones.
    """

    __slots__ = ("_read", "schema")

    def __init__(self, read: Callable[[At, object], T | None], schema: Schema) -> None:
        self._read = read
        self.schema = schema

    def __call__(self, at: At, value: object) -> T | None:
        return self._read(at, value)


class Key:
    """A key that a table may have: what reads its value, and what it means, in a line for editors."""

    __slots__ = ("meaning", "reader")

    def __init__(self, reader: Reader[Any], meaning: str) -> None:
        self.reader = reader
        self.meaning = meaning


Keys = Mapping[str, Key]


def takes(schema: Schema) -> Callable[[Callable[[At, object], T | None]], Reader[T]]:
    """Makes a function the reader of the values that `schema` describes."""
    return lambda read: Reader(read, schema)


def unread(schema: Schema) -> Reader[object]:
    """The value as it stands: what it may be depends on other keys, and is checked with them."""
    return Reader(lambda at, value: value, schema)


@takes({"type": "object"})
def table(at: At, value: object) -> dict[str, Any] | None:
    """A table as it stands, for readers that look at its keys themselves."""
    if isinstance(value, dict):
        return value
    return _expected(at, "a table", value)


@takes({"type": "string"})
def text(at: At, value: object) -> str | None:
    """Any text; NUL can't be handed to a process, and is refused wherever it stands."""
    if not isinstance(value, str):
        hint = f'; write "{value}"' if isinstance(value, int) and not isinstance(value, bool) and value < 10**9 else ""
        return _expected(at, "text", value, hint)
    if "\0" in value:
        at.wrong("a NUL character")
        return None
    return value


_FILLED = {"type": "string", "pattern": r"\S"}


@takes(_FILLED)
def filled_text(at: At, value: object) -> str | None:
    """Text that isn't empty."""
    found = text(at, value)
    if found is None or found.strip():
        return found
    return _expected(at, "text", value)


@takes({"type": "boolean"})
def flag(at: At, value: object) -> bool | None:
    """true or false."""
    return value if isinstance(value, bool) else _expected(at, "true or false", value)


def integer(least: int = -_INT64 - 1, most: int = _INT64) -> Reader[int]:
    """An integer from `least` to `most`."""
    # TOML's integers have 64 bits anyway, and many a JSON reader's have less.
    bounds = {"minimum": least, "maximum": most}

    @takes({"type": "integer", **{word: bound for word, bound in bounds.items() if abs(bound) < _INT64}})
    def read(at: At, value: object) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        if most != _INT64:
            return _expected(at, f"an integer from {least} to {most}", value)
        return _expected(at, "an integer of 64 bits" if least < 0 else f"an integer of {least} or more", value)

    return read


def number(least: float) -> Reader[float]:
    """A finite number of `least` or more."""

    @takes({"type": "number", "minimum": least})
    def read(at: At, value: object) -> float | None:
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value < math.inf:
            return float(min(value, 1e18))
        return _expected(at, f"a number of {least:g} or more", value)

    return read


_DURATION = {
    "type": ["string", "number"],
    "pattern": PATTERN,
    "minimum": 0,
    "maximum": LONGEST // timedelta(seconds=1),
}


@takes(_DURATION)
def duration(at: At, value: object) -> timedelta | None:
    """A duration; 0 is one."""
    try:
        return parse_duration(value)
    except ValueError as exc:
        at.wrong(f"{exc}, got {shown(value)}")
        return None


def some_time(least: timedelta = timedelta(microseconds=1)) -> Reader[timedelta]:
    """A duration of `least` or more; without it, of more than 0."""

    @takes({**_DURATION, "minimum": least.total_seconds()})
    def read(at: At, value: object) -> timedelta | None:
        found = duration(at, value)
        if found is None or found >= least:
            return found
        bound = "more than 0" if least < timedelta(milliseconds=1) else f"{format_duration(least)} or more"
        return _expected(at, f"a duration of {bound}", value)

    return read


def size(most: int) -> Reader[int]:
    """A number of bytes from 1 to `most`: an integer, or text like `10MiB`."""

    @takes({"type": ["string", "integer"], "pattern": rf"^\s*{_SIZE}\s*$", "minimum": 1, "maximum": most})
    def read(at: At, value: object) -> int | None:
        count = value
        if isinstance(value, str) and (match := re.fullmatch(_SIZE, value.strip())):
            unit = match[2]
            base = 1024 if "i" in unit else 1000
            count = round(float(match[1]) * base ** " KMGT".index(unit[0])) if unit != "B" else round(float(match[1]))
        if isinstance(count, bool) or not isinstance(count, int):
            return _expected(at, 'a size like "10MiB", or a number of bytes', value)
        return count if 1 <= count <= most else _expected(at, f"a size from 1 to {most} bytes", value)

    return read


def one_of(*words: str) -> Reader[str]:
    """One of these words."""

    @takes({"enum": list(words)})
    def read(at: At, value: object) -> str | None:
        if isinstance(value, str) and value in words:
            return value
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        return _expected(at, " or ".join(quoted(word) for word in words), value, hint)

    return read


def list_of(element: Reader[T], *, filled: bool = False) -> Reader[tuple[T, ...]]:
    """A list, each element read by `element`; `filled`: of one or more."""

    @takes({"type": "array", "items": element.schema, **({"minItems": 1} if filled else {})})
    def read(at: At, value: object) -> tuple[T, ...] | None:
        if not isinstance(value, list):
            return _expected(at, "a list", value)
        if filled and not value:
            at.wrong("expected a list of one or more, got an empty one")
            return None
        found = [element(at[index], item) for index, item in enumerate(value)]
        kept = tuple(item for item in found if item is not None)
        return kept if len(kept) == len(found) else None

    return read


_CODES = list_of(integer(0, 255), filled=True)


@takes(_CODES.schema)
def exit_codes(at: At, value: object) -> frozenset[int] | None:
    """A list of exit codes."""
    codes = _CODES(at, value)
    return None if codes is None else frozenset(codes)


_TEXTS = list_of(text, filled=True)


@takes(_TEXTS.schema)
def argv(at: At, value: object) -> tuple[str, ...] | None:
    """An argument vector: a list of texts, of which the first, the program, isn't empty."""
    if isinstance(value, str):
        at.wrong(f'expected a list of arguments like ["curl", "-fsSL"], got {shown(value)}; a shell line is a script')
        return None
    found = _TEXTS(at, value)
    if found and not found[0].strip():
        at[0].wrong("the program's name is empty")
        return None
    return found


@takes(
    {
        "type": "object",
        "propertyNames": {"pattern": r"^[^=\x00]+$"},
        "additionalProperties": {"type": "string"},
    }
)
def environment(at: At, value: object) -> dict[str, str] | None:
    """Variables. What they hold may be secret, and is in no message."""
    found = table(at, value)
    if found is None:
        return None
    sound = True
    for name, content in found.items():
        if not name or "=" in name or "\0" in name:
            (at / name).wrong("no name for an environment variable")
        elif not isinstance(content, str):
            (at / name).wrong(f"expected text, got {kind_of(content)}; put it in quotes")
        elif "\0" in content:
            (at / name).wrong("a NUL character")
        else:
            continue
        sound = False
    return found if sound else None


@takes(_FILLED)
def path(at: At, value: object) -> Path | None:
    """A path; relative ones are of the file's folder, and `~` is the user's. Symbolic links stay as they are."""
    found = filled_text(at, value)
    if found is None:
        return None
    try:
        return at.dir / Path(found).expanduser()
    except RuntimeError:
        at.wrong(f"there is no home folder for {shown(value)}")
        return None


@takes(_FILLED)
def program(at: At, value: object) -> Path | None:
    """A path to a program, or its bare name (`python3.12`), which is left to PATH."""
    if isinstance(value, str) and value.strip() and "/" not in value and "\0" not in value:
        return Path(value)
    return path(at, value)


@takes(_FILLED)
def timezone(at: At, value: object) -> str | None:
    """The name of an IANA time zone that this machine knows."""
    name = filled_text(at, value)
    if name is None:
        return None
    try:
        zone(name)
    except ValueError:
        from zoneinfo import available_timezones

        return _expected(at, "an IANA time zone like Europe/Berlin", value, did_you_mean(name, available_timezones()))
    return name


# An editor takes TOML's dates and times for text like that.
@takes({"type": "string", "pattern": r"^\s*[0-9]{4}"})
def instant(at: At, value: object) -> datetime | None:
    """A date and time, as TOML's own or as ISO text. Without an offset it stays naive: its zone is read elsewhere."""
    expected = "a date and time like 2026-03-29T02:30:00+02:00"
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.strip())
        except ValueError:
            return _expected(at, expected, value)
    if isinstance(value, datetime):
        return value
    return datetime.combine(value, time()) if isinstance(value, date) else _expected(at, expected, value)


def in_utc(at: At, value: datetime, zone_name: str) -> datetime | None:
    """A date and time in UTC; a naive one is local to the zone: where it comes twice, its first time, and where the
    clock skips it, a mistake."""
    try:
        local = value if value.tzinfo else value.replace(tzinfo=zone(zone_name))
        found = local.astimezone(UTC)
        there = found.astimezone(local.tzinfo)
    except OverflowError:
        at.wrong("a time before the year 1 or after the year 9999")
        return None
    if there.replace(tzinfo=None, fold=0) != local.replace(tzinfo=None, fold=0):
        at.wrong(
            f"the clock in {zone_name} skips {local:%H:%M} on {local:%Y-%m-%d}; write a time that it shows, or UTC"
        )
        return None
    return found


@takes({"type": "string", "pattern": f"^{_NAME}$", "maxLength": _LONGEST_NAME})
def name(at: At, value: object) -> str | None:
    """The name of a job, queue, pipeline or schedule."""
    if not isinstance(value, str):
        return _expected(at, "a name", value)
    if not re.fullmatch(_NAME, value):
        # A leading dash would be an option, a leading dot a hidden or a relative path.
        expected = "a name of letters, digits, -, _ and . that begins with a letter, a digit or _"
        return _expected(at, expected, value)
    if len(value) > _LONGEST_NAME:
        return _expected(at, f"a name of at most {_LONGEST_NAME} characters", value)
    return value


def named(at: At, value: object) -> Iterable[tuple[str, At, dict[str, Any]]]:
    """The tables in a table of named ones (`[jobs.NAME]`), each with its place; what is none has been reported."""
    for key, item in (table(at, value) or {}).items():
        place = at / key
        if name(place, key) is not None and (found := table(place, item)) is not None:
            yield key, place, found


def _expected(at: At, what: str, value: object, hint: str = "") -> T | None:
    """Report; None, as what a reader returns then."""
    at.wrong(f"expected {what}, got {shown(value)}{hint}")
    return None
