"""`hueyctl schedule`: list, next, trigger and backfill."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Annotated, get_args

import msgspec
import typer

from hueyctl.app import schedules
from hueyctl.app.clock import utc_now
from hueyctl.app.schedules import Overlap, ScheduleDetail, ScheduleView, SlotView
from hueyctl.cli.answer import Answer, Block, Facts, Line, Lines, Table
from hueyctl.cli.groups import Group
from hueyctl.cli.options import instant, named_as_options
from hueyctl.cli.runs import runs_table
from hueyctl.cli.settings import here, settings
from hueyctl.cli.words import age, as_text, count, short
from hueyctl.errors import ConfigError, UsageError
from hueyctl.model.duration import format_duration
from hueyctl.model.instant import iso, parse_instant, zone
from hueyctl.model.wording import did_you_mean, quoted

schedule = typer.Typer(
    cls=Group,
    help="List schedules, see when they fire, and fire them by hand.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A schedule of jobs.toml.")]


@schedule.command("list")
def list_() -> Answer:
    """List the schedules: when each fires next, and its last slot."""
    session, now = settings.session(), utc_now()
    views = schedules.schedules(session, now=now)
    return Answer(
        documents=[{"schedules": [schedules.public_schedule(session, view) for view in views]}],
        blocks=[schedules_table(views, now)] if views else [],
        notes=[] if views else [f"{session.project.path.name} defines no schedules"],
    )


@schedule.command("next")
def next_(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A schedule of jobs.toml.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=10_000, help="So many.")] = 10,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Those after then; otherwise after now.")
    ] = None,
    cron: Annotated[
        str | None, typer.Option("--cron", metavar="EXPRESSION", help="Of this expression, which stands in no file.")
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option("--timezone", metavar="ZONE", help="Show them in this time zone; --cron is in it, too."),
    ] = None,
) -> Answer:
    """Show when a schedule fires next. Or when a cron expression would (no jobs.toml is needed for that)."""
    if (name is None) == (cron is None):
        both = "not both" if name else "none was given"
        raise UsageError(f"expected a schedule's name, or --cron EXPRESSION; {both}")
    shown_in = _zone(timezone)
    notes = []
    if cron is not None:
        timezone = timezone or _default_timezone()
        tried = schedules.tried_out(cron, timezone)
    else:
        tried = schedules.known(settings.session(), name or "")
        timezone = timezone or tried.timezone
        notes += [] if tried.enabled else [f"{name} is disabled: none of these will fire"]
    local = shown_in or zone(timezone)
    after = _from(start, timezone)
    found = schedules.next_times(tried, after=after, limit=limit)
    times = [_local(slot, local) for slot, _ in found]
    moved = [text for text, (_, was_moved) in zip(times, found, strict=True) if was_moved]
    if len(found) < limit:
        notes.append("it never fires again" if found else "it never fires after that")
    document = {"schedule": name, "times": times, **({"moved": moved} if moved else {})}
    marked = [f"{text}  moved by the clock change" if text in moved else text for text in times]
    return Answer(documents=[document], blocks=[Lines(marked)] if marked else [], notes=notes)


@schedule.command()
def trigger(
    name: Name,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not before: 14:30, tomorrow, 2026-03-29T14:30.")
    ] = None,
) -> Answer:
    """Start what a schedule starts, now and by hand. Prints the run's id."""
    from hueyctl.app.enqueue import warnings
    from hueyctl.app.order import due

    session, now = settings.session(), utc_now()
    timezone = schedules.known(session, name).timezone
    with named_as_options(["at"], job=name):
        due_at = due(None, at, now=now, timezone=timezone)
    run = schedules.trigger(session, name, due_at=due_at, now=now)
    notes = warnings(session, [run])
    return Answer(documents=[{"run": msgspec.to_builtins(run)}], blocks=[Line(run.id)], notes=notes)


@schedule.command()
def backfill(
    name: Name,
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="The first slot: at or after then.")],
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="The last slot: at or before then; otherwise now.")
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(get_args(Overlap)),
            help="What happens while others of it run; otherwise one after the other, or as the schedule allows.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help=f"Also if these are more than {schedules.UNASKED_MAX} slots.")
    ] = False,
) -> Answer:
    """Fire the slots of a time that is over. Not those that have fired; prints the ids, the oldest first."""
    from hueyctl.app.enqueue import warnings

    if overlap is not None and overlap not in get_args(Overlap):
        near = did_you_mean(overlap, get_args(Overlap))
        raise UsageError(f"--overlap: expected one of {', '.join(get_args(Overlap))}, got {quoted(overlap)}{near}")
    session, now = settings.session(), utc_now()
    known = schedules.known(session, name)
    decided = schedules.backfill(
        session,
        name,
        start=_instant("from", start, known.timezone, now),
        end=now if end is None else _instant("to", end, known.timezone, now),
        overlap=overlap,  # type: ignore[arg-type]  # one of them, as was checked above
        confirmed=yes,
        now=now,
    )
    ids = [each.run for each in decided if each.outcome == "fired" and each.run]
    outcomes = Counter(each.outcome for each in decided)
    notes = [] if decided else ["there is no slot between these times"]
    if outcomes["past"]:
        notes.append(f"{count(outcomes['past'], 'slot')} had fired before")
    notes += [f"{iso(each.slot)} was skipped: {each.reason}" for each in decided if each.outcome == "skipped"]
    if ids:
        newest = session.reader().get(ids[-1])
        notes += warnings(session, [newest] if newest else [])
    return Answer(
        documents=[{"schedule": name, "slots": msgspec.to_builtins(decided)}],
        blocks=[Lines(ids)] if ids else [],
        notes=notes,
    )


def schedule_answer(found: ScheduleDetail, now: datetime) -> Answer:
    """What `inspect` shows of a schedule."""
    view, session = found.view, settings.session()
    document = {
        "schedule": schedules.public_schedule(session, view),
        "next": msgspec.to_builtins(found.next),
        "slots": msgspec.to_builtins(found.slots),
        "runs": msgspec.to_builtins(found.runs),
    }
    blocks: list[Block] = [Facts(_facts(view, document["schedule"]["params"])), *slots_blocks(found, now)]
    if found.runs:
        blocks.append(runs_table(found.runs, now, "newest runs"))
    return Answer(documents=[document], blocks=blocks)


def slots_blocks(found: ScheduleDetail, now: datetime) -> list[Block]:
    """The slots to come, and what became of the last ones."""
    blocks: list[Block] = []
    local = zone(found.view.schedule.timezone)
    if found.next:
        blocks.append(Lines([f"{_local(at, local)} ({age(at, now)})" for at in found.next], "next slots"))
    if found.slots:
        rows = [(_local(each.slot, local), age(each.slot, now), *_outcome(each)) for each in found.slots]
        blocks.append(Table(("slot", "age", "outcome", "run", "reason"), rows, "last slots"))
    return blocks


def schedules_table(views: Sequence[ScheduleView], now: datetime, title: str | None = None) -> Table:
    """Schedules, one a line."""
    columns = ("schedule", "job", "fires", "next", "last", "outcome", "state")
    return Table(columns, [_row(view, now) for view in views], title)


def slots_table(views: Sequence[tuple[datetime, ScheduleView]], now: datetime, title: str) -> Table:
    """The next slot of schedules, one a line."""
    rows = [
        (view.schedule.name, view.schedule.target, age(at, now), _in_its_zone(at, view), _state(view))
        for at, view in views
    ]
    return Table(("schedule", "job", "due", "slot", "state"), rows, title)


def _row(view: ScheduleView, now: datetime) -> tuple[str, ...]:
    last = view.last
    return (
        view.schedule.name,
        view.schedule.target,
        schedules.in_words(view.schedule),
        "" if view.next is None else _in_its_zone(view.next, view),
        "" if last is None else age(last.slot, now),
        "" if last is None else _outcome(last)[0],
        _state(view),
    )


def _outcome(slot: SlotView) -> tuple[str, str, str]:
    """What became of a slot, in a word; its run; and why."""
    if slot.run is None:
        return (slot.outcome, "", slot.reason or "")
    return (slot.state.value if slot.state else slot.outcome, short(slot.run), slot.reason or "")


def _state(view: ScheduleView) -> str:
    if not view.schedule.enabled:
        return "disabled"
    if view.pause is None:
        return "over" if view.next is None else "on"
    return f"paused by {view.pause.by}" + (f" ({view.pause.note})" if view.pause.note else "")


def _facts(view: ScheduleView, params: dict[str, object]) -> list[tuple[str, str]]:
    schedule = view.schedule
    window = f"up to {format_duration(schedule.catch_up_window)} late"
    caught_up = {
        "none": "nothing",
        "latest": f"the latest slot, {window}",
        "all": f"the last {count(schedule.catch_up_max, 'slot')}, {window}",
    }[schedule.catch_up]
    overlap = {
        "skip": "a slot is skipped while a run is live",
        "queue": "one run waits for the one that is live",
        "allow": "runs go side by side",
        "replace": "a new run ends the one that is live",
    }[schedule.overlap]
    pairs = [
        ("schedule", schedule.name),
        (schedule.target_kind, schedule.target),
        ("fires", schedules.in_words(schedule)),
        ("state", _state(view)),
        ("params", " ".join(f"{name}={as_text(value)}" for name, value in params.items())),
        ("queue", schedule.queue or ""),
        ("priority", as_text(schedule.priority)),
        ("jitter", format_duration(schedule.jitter) if schedule.jitter else ""),
        ("overlap", overlap),
        ("catches up", f"{caught_up}; in time within {format_duration(schedule.grace)}"),
    ]
    return [(name, value) for name, value in pairs if value]


def _default_timezone() -> str:
    """That of the jobs.toml that is at hand, if there is one, so that an expression is tried as it would be read."""
    from hueyctl import config

    try:
        path = config.find(settings.file, cwd=here(), environ=os.environ)
        return config.load(path, environ=os.environ).timezone
    except ConfigError:
        return "UTC"


def _zone(name: str | None) -> tzinfo | None:
    if name is None:
        return None
    try:
        return zone(name)
    except ValueError as exc:
        from zoneinfo import available_timezones

        near = did_you_mean(name, available_timezones())
        raise UsageError(f"--timezone: {exc}, got {quoted(name)}{near}") from exc


def _from(text: str | None, timezone: str) -> datetime:
    now = utc_now()
    if text is None:
        return now
    try:
        return parse_instant(text, now=now, timezone=timezone, direction="future")
    except ValueError as exc:
        raise UsageError(f"--from: {exc}, got {quoted(text)}") from exc


def _instant(name: str, text: str, timezone: str, now: datetime) -> datetime:
    found = instant(name, text, now, timezone=timezone)
    assert found is not None, "there is a text"
    return found


def _in_its_zone(at: datetime, view: ScheduleView) -> str:
    return _local(at, zone(view.schedule.timezone))


def _local(at: datetime, local: tzinfo) -> str:
    """An instant as the zone shows it, with its offset; UTC's is Z."""
    return iso(at) if str(local) == "UTC" else at.astimezone(local).isoformat()
