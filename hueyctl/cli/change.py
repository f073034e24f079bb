"""`hueyctl revoke`, `retry`, `pause` and `resume`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from hueyctl.app import changes, finding
from hueyctl.app.changes import Effect, Scope, Switched
from hueyctl.app.clock import utc_now
from hueyctl.cli.answer import Answer, Line, Lines
from hueyctl.cli.options import JobName, Runs, Since, States, instant, timeout
from hueyctl.cli.settings import settings
from hueyctl.cli.words import count, short
from hueyctl.errors import Refused, UsageError
from hueyctl.storage.store import RunFilter

Jobs = Annotated[list[str] | None, typer.Option("--job", metavar="JOB", help="This job alone; repeatable.")]
Queues = Annotated[list[str] | None, typer.Option("--queue", metavar="QUEUE", help="This queue alone; repeatable.")]
Schedules = Annotated[
    list[str] | None, typer.Option("--schedule", metavar="SCHEDULE", help="This schedule alone; repeatable.")
]


def revoke(
    *,
    runs: Runs = None,
    job: JobName = None,
    state: States = None,
    since: Since = None,
    kill: Annotated[bool, typer.Option("--kill", help="Stop those that run, and return when they have.")] = False,
    patience: Annotated[
        str | None, typer.Option("--timeout", metavar="DURATION", help="Wait no longer for that (exit 124).")
    ] = None,
) -> Answer:
    """Never let runs start: those named, or all live ones that match."""
    session = settings.store_session()
    where = _where(runs, job, state, since)
    chosen = changes.to_revoke(session, runs or (), where)
    effects = changes.revoke(session, chosen, kill=kill, timeout=timeout("timeout", patience), clock=utc_now)
    return _answer(effects, "revoked")


def retry(
    runs: Runs = None,
    job: JobName = None,
    state: States = None,
    since: Since = None,
    again: Annotated[bool, typer.Option("--again", help="Enqueue a copy, of a succeeded run too.")] = False,
) -> Answer:
    """Bring ended runs back under the same id. Those named, or all failed ones (or of --state) that match."""
    session = settings.session() if again else settings.store_session()
    where = _where(runs, job, state, since)
    chosen = changes.to_retry(session, runs or (), where)
    from hueyctl.app.enqueue import enqueue_again, warnings

    if again:
        copies = enqueue_again(session, [run for page in chosen for run in page], now=utc_now())
        notes = warnings(session, copies)
        ids = Lines([run.id for run in copies])
        return Answer(documents=[{"runs": msgspec.to_builtins(copies)}], blocks=[ids], notes=notes)
    effects = changes.retry(session, chosen, clock=utc_now)
    back = [effect.run for effect in effects if effect.refusal is None]
    return _answer(effects, "retried", notes=warnings(session, back))


def pause(
    job: Jobs = None,
    queue: Queues = None,
    schedule: Schedules = None,
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for those who wonder later.")] = None,
) -> Answer:
    """Let nothing new start, until `resume`; what runs goes on."""
    switched = changes.pause(settings.store_session(), _scope(job, queue, schedule), note=note, now=utc_now())
    return Answer(documents=[{"paused": _public(switched)}], blocks=[Line(_paused(each)) for each in switched])


def resume(job: Jobs = None, queue: Queues = None, schedule: Schedules = None) -> Answer:
    """Take a pause back; each is a switch of its own."""
    session = settings.store_session()
    switched = changes.resume(session, _scope(job, queue, schedule), now=utc_now())
    notes = [_unchanged(each) for each in switched if not each.changed]
    if switched[0].kind == "all":
        still = [f"{each.kind} {each.name}" for each in session.reader().pauses()]
        notes += [f"{what} is still paused: `hueyctl resume --{what}`" for what in still]
    return Answer(
        documents=[{"resumed": _public(switched)}],
        blocks=[Line(f"resumed {_what(each)}") for each in switched if each.changed],
        notes=notes,
    )


def _where(runs: Sequence[str] | None, job: str | None, state: Sequence[str] | None, since: str | None) -> RunFilter:
    selected = job is not None or state or since is not None
    if runs and selected:
        raise UsageError("either name runs, or select them by --job, --state and --since")
    if not runs and not selected:
        raise UsageError("which runs? name them, or select them by --job, --state or --since")
    session = settings.store_session()
    return RunFilter(
        states=finding.parse_states(state),
        job=finding.known_job(session, job),
        since=instant("since", since, utc_now()),
    )


def _answer(effects: Sequence[Effect], verb: str, *, notes: Sequence[str] = ()) -> Answer:
    done = [effect for effect in effects if effect.refusal is None]
    refused = [effect for effect in effects if effect.refusal is not None]
    return Answer(
        documents=[
            {
                "runs": msgspec.to_builtins([each.run for each in done]),
                "refused": [{"id": each.run.id, "reason": each.refusal, "hint": each.hint} for each in refused],
            }
        ],
        blocks=[Lines([_line(each, verb) for each in done])] if done else [],
        notes=notes if effects else ["no such runs: nothing to do"],
        errors=[
            Refused(f"run {short(each.run.id)} of {each.run.job} {each.refusal}", hint=each.hint) for each in refused
        ],
    )


def _line(effect: Effect, verb: str) -> str:
    name = f"{short(effect.run.id)} {effect.run.job}"
    return f"{name} had been {verb} before" if effect.before else f"{verb} {name}"


def _scope(job: Sequence[str] | None, queue: Sequence[str] | None, schedule: Sequence[str] | None) -> Scope:
    return Scope(jobs=tuple(job or ()), queues=tuple(queue or ()), schedules=tuple(schedule or ()))


def _public(switched: Sequence[Switched]) -> object:
    return msgspec.to_builtins(switched)


def _what(each: Switched) -> str:
    return "everything" if each.kind == "all" else f"{each.kind} {each.name}"


def _unchanged(each: Switched) -> str:
    return "there was no pause of everything" if each.kind == "all" else f"{_what(each)} was not paused"


def _paused(each: Switched) -> str:
    note = f" ({each.note})" if each.note else ""
    under_way = f"{count(each.running, 'run')} under way {'goes' if each.running == 1 else 'go'} on"
    if each.kind == "schedule":
        # What it has fired isn't held back: that is a matter of its job and queue.
        live = each.running + each.waiting
        go_on = f"{count(live, 'run')} of it {'goes' if live == 1 else 'go'} on"
        return f"paused {_what(each)}{note}: it fires nothing; {go_on}"
    waiting = f"{each.waiting} {'waits' if each.waiting == 1 else 'wait'}"
    return f"paused {_what(each)}{note}: {under_way}, {waiting}"
