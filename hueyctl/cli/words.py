"""Ages, durations, sizes and short ids, as people read them; JSON has the exact values."""

from __future__ import annotations

from datetime import datetime

from hueyctl.app.public import PublicRun
from hueyctl.app.why import brief
from hueyctl.model.definition import Param
from hueyctl.model.instant import iso

SHORT = 8


def age(at: datetime | None, now: datetime) -> str:
    """`3m20s ago`, `in 5s`, or nothing."""
    if at is None:
        return ""
    seconds = (now - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"in {brief(-seconds)}" if seconds < 0 else f"{brief(seconds)} ago"


def moment(at: datetime | None, now: datetime) -> str:
    """`2026-11-23T00:23:16.906919Z (3m20s ago)`, or nothing."""
    return "" if at is None else f"{iso(at)} ({age(at, now)})"


def took(run: PublicRun, now: datetime) -> str:
    """How long the newest attempt took, or has been running."""
    if run.started_at is None:
        return ""
    end = run.finished_at or (now if run.state == "running" else None)
    return brief(max(0.0, (end - run.started_at).total_seconds())) if end else ""


def size(count: int) -> str:
    """`512 B`, `1.5 KiB`, `10 MiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.1f}".removesuffix(".0") + f" {unit}"
        amount /= 1024
    raise AssertionError


def rate(per_hour: float) -> str:
    """`7.5/s`, `12/min`, `3/h`, `0.5/d`: in the shortest of these units that one of them happens in."""
    for unit, hours in (("s", 1 / 3600), ("min", 1 / 60), ("h", 1.0), ("d", 24.0)):
        if per_hour * hours >= 1 or unit == "d":
            return f"{per_hour * hours:,.{1 if per_hour * hours < 100 else 0}f}".removesuffix(".0") + f"/{unit}"
    raise AssertionError


def short(id: str | None) -> str:
    """The first 8 of an id."""
    return (id or "")[:SHORT]


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 run`, `3 runs`; `many` where it isn't `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def as_text(value: object) -> str:
    """A JSON value in a cell: text as it is, the rest as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    import msgspec

    return msgspec.json.encode(value).decode()


def beginning(text: str, most: int = 200) -> str:
    """A text of any length, in a line: its beginning, and how long it is."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def shown_default(param: Param) -> str:
    """A parameter's default in a cell, masked where it is secret."""
    return "***" if param.secret and param.default is not None else as_text(param.default)
