"""`hueyctl events`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from typing import Annotated

import typer

from hueyctl.app import finding
from hueyctl.app.clock import utc_now
from hueyctl.app.events import events_after, last_events, parse_types
from hueyctl.app.events import follow as follow_events
from hueyctl.app.public import public_event
from hueyctl.app.session import Session
from hueyctl.app.why import brief
from hueyctl.cli.answer import Answer, Lines
from hueyctl.cli.options import JobName, Since, Until, instant
from hueyctl.cli.settings import settings, stdout_fd
from hueyctl.cli.words import as_text, short
from hueyctl.errors import UsageError
from hueyctl.model.event import Event, EventType
from hueyctl.model.instant import iso
from hueyctl.storage.store import EventFilter

NEWEST = 50
"""How many are shown where nothing says from where on."""


def events(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each event as it happens.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            metavar="N",
            min=0,
            help=f"The newest so many; otherwise {NEWEST}, all of a run, or with --follow none.",
        ),
    ] = None,
    type: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Of this type; repeatable, or with commas.")
    ] = None,
    job: JobName = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Of this run.")] = None,
    since: Since = None,
    until: Until = None,
    after: Annotated[
        int | None, typer.Option("--after", metavar="SEQ", min=0, help="Go on behind the event of that seq.")
    ] = None,
) -> Iterable[Answer]:
    """Show the event log, the newest last; with --follow as it grows."""
    session, now = settings.store_session(), utc_now()
    types = parse_types(type)
    if after is not None and limit is not None and follow:
        raise UsageError("--limit and --after: following goes on behind one of them")
    fresh = follow and not session.exists()
    where = EventFilter(
        types=types,
        job=job if fresh else finding.known_job(session, job),
        run=None if run is None else finding.find_run(session, run).id,
        since=instant("since", since, now),
        until=instant("until", until, now),
    )
    if follow:
        if after is None and limit is None and since is not None:
            after = 0
        return _follow(session, where, after, limit or 0, fresh=fresh)
    bounded = after is not None or where.run is not None or where.since is not None or where.until is not None
    if after is not None:
        return (_answer(page) for page in events_after(session, where, after=after, limit=limit))
    if bounded and limit is None:
        return (_answer(page) for page in events_after(session, where, after=0))
    return [_answer(last_events(session, where, limit=NEWEST if limit is None else limit))]


def _follow(session: Session, where: EventFilter, after: int | None, last: int, *, fresh: bool) -> Iterator[Answer]:
    if fresh:
        yield Answer(notes=[f"there is no store yet; waiting for {session.place.shown}"])
        after = after or 0  # it may be there by now, and all that is in it has come since
    for page in follow_events(session, where, after=after, last=last, output=stdout_fd()):
        yield _answer(page)


def _answer(page: Sequence[Event]) -> Answer:
    return Answer(documents=[public_event(event) for event in page], blocks=[Lines([line(event) for event in page])])


def line(event: Event) -> str:
    """An event on one line: when, what, whose, and what else is known."""
    at = event.time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    whose = f"{short(event.run)} {event.job}" if event.run else (event.schedule or event.worker or "")
    if event.slot and not event.run:
        whose += f" {iso(event.slot)}"
    attempt = f" #{event.attempt}" if event.attempt else ""
    said = [f"{event.data['reason']}"] if event.data.get("reason") else []
    switched = event.type in (EventType.PAUSED, EventType.RESUMED)
    if switched:
        whose = (
            "everything" if event.data.get("kind") == "all" else f"{event.data.get('kind')} {event.data.get('name')}"
        )
    for name, value in event.data.items():
        if name == "reason" or value is None or (switched and name in ("kind", "name")):
            continue
        said.append(brief(value) if name == "duration_s" and isinstance(value, float) else f"{name}={as_text(value)}")
    by = event.by if event.by and event.by != event.worker and said[:1] != [f"{event.type} by {event.by}"] else ""
    parts = [f"{whose}{attempt}", ", ".join(said), f"by {by}" if by else ""]
    return f"{event.seq:>6}  {at}  {event.type:<16} {'  '.join(part for part in parts if part)}".rstrip()
