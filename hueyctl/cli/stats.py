"""`hueyctl stats`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from hueyctl.app.clock import utc_now
from hueyctl.app.finding import known_job
from hueyctl.app.stats import Stats
from hueyctl.app.stats import stats as stats_of
from hueyctl.app.why import brief
from hueyctl.cli.answer import Answer, Table
from hueyctl.cli.options import Until, instant
from hueyctl.cli.settings import settings
from hueyctl.cli.words import rate
from hueyctl.model.instant import iso
from hueyctl.storage.store import JobStats, Spread


def stats(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Of this job alone; or of a pipeline, as a whole.")
    ] = None,
    *,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="From then on: 2h (ago), yesterday, 2026-03-29T14:30; otherwise 24h."),
    ] = None,
    until: Until = None,
) -> Answer:
    """Show by job how runs ended, and how long they waited and took.

    p50 is what half of them took at most, p95 what 95 of 100 did. With --json times are in seconds.
    """
    session, now = settings.store_session(), utc_now()
    found = stats_of(
        session,
        known_job(session, name),
        since=instant("since", since, now),
        until=instant("until", until, now) or now,
    )
    span = f"from {_second(found.since)} to {_second(found.until)}"
    lines = [*found.jobs, found.total] if name is None else found.jobs
    return Answer(
        documents=[found.public()],
        blocks=[_ends(found, lines, f"ended {span}"), _times(lines)] if found.jobs else [],
        notes=[] if found.total.ended else [f"no run ended {span}"],
    )


def _ends(found: Stats, lines: Sequence[JobStats], title: str) -> Table:
    rows = [
        (
            *(_name(each), str(each.succeeded), str(each.failed), str(each.other)),
            "" if each.failure_rate is None else f"{each.failure_rate:.1%}",
            *(str(each.retried), str(each.lost), rate(found.per_hour(each))),
        )
        for each in lines
    ]
    return Table(("job", "succeeded", "failed", "other", "failing", "retried", "lost", "rate"), rows, title)


def _times(lines: Sequence[JobStats]) -> Table:
    rows = [(_name(each), *_spread(each.waited), *_spread(each.took)) for each in lines]
    columns = ("waited p50", "waited p95", "waited max", "took p50", "took p95", "took max")
    return Table(("job", *columns), rows, "waited to start, and took from there to the end")


def _name(line: JobStats) -> str:
    return line.job or "total"


def _spread(spread: Spread | None) -> tuple[str, str, str]:
    return ("", "", "") if spread is None else (brief(spread.p50), brief(spread.p95), brief(spread.max))


def _second(at: datetime) -> str:
    return iso(at.replace(microsecond=0))
