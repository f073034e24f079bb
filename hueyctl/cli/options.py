"""Options that mean the same on every command that has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated

import typer

from hueyctl.cli.settings import settings
from hueyctl.errors import UsageError

Limit = Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="At most so many, the newest.")]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="From then on: 2h (ago), yesterday, 2026-03-29T14:30.")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before then.")]
JobName = Annotated[str | None, typer.Option("--job", metavar="JOB", help="Of this job.")]
States = Annotated[
    list[str] | None, typer.Option("--state", metavar="STATE", help="In this state; repeatable, or with commas.")
]
Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN...", help="An id, the first 4 or more of one, a job or pipeline (its newest run), or last."
    ),
]
OneRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="An id, the first 4 or more of one, a job or pipeline (its newest run), or last."
    ),
]


def instant(name: str, text: str | None, now: datetime, *, timezone: str | None = None) -> datetime | None:
    """The time that a user wrote for `--name`, in that time zone or the file's; raises UsageError."""
    if text is None:
        return None
    from hueyctl.model.instant import parse_instant
    from hueyctl.model.wording import quoted

    try:
        return parse_instant(text, now=now, timezone=timezone or settings.store_session().project.timezone)
    except ValueError as exc:
        raise UsageError(f"--{name}: {exc}, got {quoted(text)}") from exc


@contextmanager
def named_as_options(names: Iterable[str], *, job: str) -> Iterator[None]:
    """Let what is wrong with a value that these options gave be said of `--delay`, and not of `delay`."""
    try:
        yield
    except UsageError as exc:
        what, colon, wrong = exc.message.partition(": ")
        if what == job or what not in names:  # it may be about a job of such a name
            raise
        raise UsageError(f"--{what}{colon}{wrong}", hint=exc.hint) from exc


def timeout(name: str, text: str | None) -> timedelta | None:
    """The duration that a user wrote for `--name`; raises UsageError."""
    from hueyctl.app.order import duration

    return duration(f"--{name}", text)
