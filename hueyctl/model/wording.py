"""How messages show what users wrote: quoted, shortened, without control characters, and with the nearest right one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, time

_LONGEST = 60


def shown(value: object) -> str:
    """A value for an error message: scalars in TOML's spelling, text quoted and cut after 60 characters, the rest by
    its kind. Nothing in it can move a cursor or break a line."""
    match value:
        case str():
            return quoted(value)
        case bool():
            return "true" if value else "false"
        case int():
            # Python refuses to print an integer of more than 4,300 digits.
            return str(value) if value.bit_length() < 128 else "a huge integer"
        case float():
            return repr(value)
        case date() | time():
            return value.isoformat()
        case _:
            return kind_of(value)


def quoted(text: str) -> str:
    """Text in double quotes, cut after 60 characters, with everything unprintable escaped."""
    cut = text[:_LONGEST]
    inner = "".join(_escaped(char) for char in cut)
    return f'"{inner}"' + ("…" if len(text) > _LONGEST else "")


def kind_of(value: object) -> str:
    """What sort of value it is, without the value: `a list`, `an integer`."""
    match value:
        case None:
            return "null"
        case str():
            return "text"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case list() | tuple():
            return "a list"
        case dict():
            return "a table"
        case date() | time():
            return "a date or time"
        case _:
            return type(value).__name__


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that was probably meant; None where none is near."""
    from difflib import get_close_matches

    by_spelling = {_spelling(candidate): candidate for candidate in names}
    found = get_close_matches(_spelling(name[:100]), by_spelling, n=1, cutoff=0.6)
    return by_spelling[found[0]] if found else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean "retries"?`, or nothing: to go on with at the end of a message."""
    found = nearest(name, names)
    return f"; did you mean {quoted(found)}?" if found else ""


def _spelling(name: str) -> str:
    return name.lower().replace("-", "_")


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char) or char.encode("unicode_escape").decode()
