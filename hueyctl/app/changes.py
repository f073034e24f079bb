"""Changes that users ask for: revoke, retry, pause and resume. One answer for each run, whether it was done or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Literal

import msgspec

from hueyctl.app.clock import Clock
from hueyctl.app.finding import find_runs, is_pipeline, known_job, known_queue, known_schedule, select_runs
from hueyctl.app.public import PublicRun, public_of
from hueyctl.app.session import Session
from hueyctl.app.watch import Watch
from hueyctl.errors import UsageError, WaitTimeout
from hueyctl.model.hook import Hooks
from hueyctl.model.run import LIVE, Run, RunState
from hueyctl.model.wording import quoted
from hueyctl.storage.locks import worker_is_dead
from hueyctl.storage.store import Pause, Revocation, RunFilter, Store


class Effect(msgspec.Struct, frozen=True):
    """What a change did to one run: `run` after it; `refusal` says why it was not done (None: it was), `before` that it
    had been already."""

    run: PublicRun
    refusal: str | None = None
    hint: str | None = None
    before: bool = False


def revoke(
    session: Session, runs: Iterable[Sequence[Run]], *, kill: bool, timeout: timedelta | None, clock: Clock
) -> list[Effect]:
    """Never let these runs start, and with `kill` stop those that run; returns when they have stopped.

    Raises:
        WaitTimeout: one still runs after `timeout`. It stays revoked: no other attempt will follow.
    """
    effects: dict[str, Effect] = {}
    stopping: list[str] = []
    for page in runs:
        ids = [run.id for run in page]
        for revocation in session.writer().revoke(ids, kill=kill, by=session.by, now=clock()):
            effects[revocation.run.id] = _effect(session, revocation)
            if revocation.effect == "requested":
                stopping.append(revocation.run.id)
    if effects:
        session.ring()
    for run in _stopped(session, stopping, timeout, clock):
        effects[run.id] = _after_kill(session, run)
    return list(effects.values())


def to_revoke(session: Session, texts: Sequence[str], where: RunFilter) -> Iterator[Sequence[Run]]:
    """The runs to revoke: those named, or all live ones that match."""
    if texts:
        return iter([find_runs(session, texts)])
    return select_runs(session, msgspec.structs.replace(where, states=where.states or tuple(LIVE)))


def to_retry(session: Session, texts: Sequence[str], where: RunFilter) -> Iterator[Sequence[Run]]:
    """The runs to retry: those named, or all that match; where no state is given, failed ones alone."""
    if texts:
        return iter([find_runs(session, texts)])
    return select_runs(session, msgspec.structs.replace(where, states=where.states or (RunState.FAILED,)))


def retry(session: Session, runs: Iterable[Sequence[Run]], *, clock: Clock) -> list[Effect]:
    """Bring ended runs back: same id, attempts count on, retries afresh."""
    effects = []
    for page in runs:
        ids = [run.id for run in page]
        for retried in session.writer().retry(ids, by=session.by, now=clock(), hooks=_hooks(session)):
            hint = None if retried.refusal is None else _instead_of_retry(session.writer(), retried.run)
            effects.append(Effect(public_of(session, retried.run), retried.refusal, hint))
    if effects:
        session.ring()
    return effects


class Switched(msgspec.Struct, frozen=True, kw_only=True):
    """A switch that was set or unset (`changed` false: it wasn't set). `running` go on, `waiting` wait in its scope."""

    kind: Literal["all", "job", "queue", "schedule"]
    name: str
    note: str | None = None
    changed: bool = True
    running: int = 0
    waiting: int = 0


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What to pause or resume; with nothing named, everything."""

    jobs: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()

    def switches(self) -> list[tuple[Literal["all", "job", "queue", "schedule"], str]]:
        """(kind, name) of each switch."""
        named: list[tuple[Literal["all", "job", "queue", "schedule"], str]] = [
            *(("job", name) for name in self.jobs),
            *(("queue", name) for name in self.queues),
            *(("schedule", name) for name in self.schedules),
        ]
        return named or [("all", "")]


def pause(session: Session, scope: Scope, *, note: str | None, now: datetime) -> list[Switched]:
    """Let nothing new be claimed or fired in this scope, from now on; what runs goes on. Durable.

    Raises:
        NotFound: there is no such job, queue or schedule.
        UsageError: what should be a job is a pipeline.
    """
    session.creator()
    for kind, name in scope.switches():
        if kind == "job" and is_pipeline(session, name):
            hint = "pause the jobs that are its steps, or the schedule that starts it"
            raise UsageError(f"{quoted(name)} is a pipeline, and has no switch of its own", hint=hint)
        _KNOWN[kind](session, name)
    pauses = [Pause(kind=kind, name=name, note=note, by=session.by, at=now) for kind, name in scope.switches()]
    session.writer().pause(pauses)
    session.ring()
    return [_switched(session, each.kind, each.name, note=note) for each in pauses]


def resume(session: Session, scope: Scope, *, now: datetime) -> list[Switched]:
    """Unset these switches; each is independent of the others."""
    store = session.writer()
    done = []
    for kind, name in scope.switches():
        was_set = store.resume(kind, name, by=session.by, now=now)
        if not was_set:
            _KNOWN[kind](session, name)
        done.append(_switched(session, kind, name, changed=was_set))
    session.ring()
    return done


_KNOWN: dict[str, Callable[[Session, str], object]] = {
    "all": lambda session, name: None,
    "job": known_job,
    "queue": known_queue,
    "schedule": known_schedule,
}


def _switched(
    session: Session,
    kind: Literal["all", "job", "queue", "schedule"],
    name: str,
    *,
    note: str | None = None,
    changed: bool = True,
) -> Switched:
    if kind == "schedule":
        pending = (RunState.QUEUED, RunState.SCHEDULED)
        return Switched(
            kind=kind,
            name=name,
            note=note,
            changed=changed,
            running=len(session.writer().runs(RunFilter(schedule=name, states=(RunState.RUNNING,)), limit=None)),
            waiting=len(session.writer().runs(RunFilter(schedule=name, states=pending), limit=None)),
        )
    lines = [
        line
        for line in session.writer().lines()
        if kind == "all" or (kind == "job" and line.job == name) or (kind == "queue" and line.queue == name)
    ]
    return Switched(
        kind=kind,
        name=name,
        note=note,
        changed=changed,
        running=sum(line.count for line in lines if line.state is RunState.RUNNING),
        waiting=sum(line.count for line in lines if line.state in (RunState.QUEUED, RunState.SCHEDULED)),
    )


def _instead_of_retry(store: Store, run: Run) -> str | None:
    """What may be meant by a retry that was refused."""
    if run.state is RunState.SUCCEEDED:
        if run.pipeline and run.position is not None:  # a copy of a step would miss its input
            return f"`hueyctl retry --again {run.pipeline[:8]}` enqueues a copy of the whole"
        return f"`hueyctl retry --again {run.id[:8]}` enqueues a copy"
    failed = [each.run for each in store.steps(run.id) if each.run.state is RunState.FAILED] if run.is_pipeline else []
    return f"`hueyctl retry {failed[0].id[:8]}` retries its failed step {failed[0].job} at once" if failed else None


def _effect(session: Session, revocation: Revocation) -> Effect:
    run = public_of(session, revocation.run)
    match revocation.effect:
        case "running":
            refusal = "is running; nothing more of it starts" if run.is_pipeline else "is running"
            return Effect(run, refusal, f"`hueyctl revoke --kill {run.id[:8]}` stops it")
        case "ended" if run.state is not RunState.REVOKED:
            return Effect(run, f"has already {_ENDED[run.state]}")
        case "ended":
            return Effect(run, before=True)
        case _:
            return Effect(run)


def _after_kill(session: Session, run: Run) -> Effect:
    if run.state is RunState.REVOKED:
        return Effect(public_of(session, run))
    return Effect(public_of(session, run), f"has {_ENDED.get(run.state, run.state)} before it could be stopped")


_ENDED = {
    RunState.SUCCEEDED: "succeeded",
    RunState.FAILED: "failed",
    RunState.EXPIRED: "expired",
    RunState.SKIPPED: "been skipped",
}


def _stopped(session: Session, ids: Sequence[str], timeout: timedelta | None, clock: Clock) -> Iterator[Run]:
    """Each of these runs when its attempt has stopped."""
    if not ids:
        return
    deadline = None if timeout is None else monotonic() + timeout.total_seconds()
    store = session.writer()
    with Watch(session) as watch:
        for id in ids:
            while (run := store.get(id)) and run.state is RunState.RUNNING:
                if dead := [worker for worker in _workers_of(store, run) if _is_dead_with_all_it_ran(session, worker)]:
                    # Nobody else may be alive to find that out.
                    store.rescue(dead[0], cause="its worker died", now=clock(), hooks=_hooks(session))
                    session.ring()
                elif not watch.wait(deadline):
                    hint = f"it is being stopped: `hueyctl inspect {id[:8]}`"
                    raise WaitTimeout(f"run {id[:8]} of {run.job} still runs", hint=hint)
            if run:
                yield run


def _hooks(session: Session) -> Hooks:
    """What is to follow where such a change is the end of a run, as it would in a worker."""
    from hueyctl.engine.hooks import hooks_of  # few changes are, and the others needn't load it

    return hooks_of(session.project, session.place)


def _workers_of(store: Store, run: Run) -> set[str]:
    """The workers that run it, or the steps of it."""
    runs = [each.run for each in store.steps(run.id)] if run.is_pipeline else [run]
    return {each.worker for each in runs if each.worker and each.state is RunState.RUNNING}


def _is_dead_with_all_it_ran(session: Session, worker: str) -> bool:
    from hueyctl.process.client import kill_what_outlived  # every `hueyctl enqueue` would wait for it and its like

    return worker_is_dead(session.place, worker) and kill_what_outlived(session.place.guard_lock(worker))
