"""Workers: who is alive, what they serve, and asking them to stop or reload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Literal

import msgspec

from hueyctl.app.session import Session
from hueyctl.app.watch import Watch
from hueyctl.errors import NotFound, Refused, StoreError, StoreFull, StoreMissing, UsageError, WaitTimeout
from hueyctl.model.wording import did_you_mean, quoted
from hueyctl.storage.locks import is_of_here, worker_is_dead
from hueyctl.storage.place import Place
from hueyctl.storage.store import Store, Worker

START = "`hueyctl worker start`"


class WorkerStatus(msgspec.Struct, frozen=True):
    """A registered worker. `alive`: it holds its lock. `fresh`: its last beat is no older than its lease."""

    worker: Worker
    alive: bool
    fresh: bool

    def public(self) -> dict[str, Any]:
        """It as JSON-ready values; `lease` in seconds."""
        worker = self.worker
        found: dict[str, Any] = msgspec.to_builtins(
            {
                "id": worker.id,
                "host": worker.host,
                "pid": worker.pid,
                "version": worker.version,
                "file": worker.file,
                "concurrency": worker.concurrency,
                "running": worker.running,
                "queues": worker.queues,
                "jobs": worker.jobs,
                "alive": self.alive,
                "fresh": self.fresh,
                "request": worker.request,
                "lease": worker.lease_s,
                "started_at": worker.started_at,
                "beat_at": worker.beat_at,
            }
        )
        return found


def statuses(session: Session, *, now: datetime) -> list[WorkerStatus]:
    """Every registered worker, the dead that nobody has rescued yet included."""
    return [
        WorkerStatus(
            worker,
            alive=lives(session.place, worker, now),
            fresh=_is_fresh(worker, now),
        )
        for worker in _as_of_now(session.reader())
    ]


def alive(session: Session, store: Store) -> list[Worker]:
    """The workers that live now."""
    now = datetime.now(UTC)
    return [worker for worker in _as_of_now(store) if lives(session.place, worker, now)]


def lives(place: Place, worker: Worker, now: datetime) -> bool:
    """Does this worker live, as far as can be seen from this machine?

    Death is a free lock: no pid is asked and no clock. Of another machine's there is only its last beat to go by: that
    is for showing it, and no run is ever given back for it.
    """
    return not worker_is_dead(place, worker.id) if is_of_here(place, worker.id) else _is_fresh(worker, now)


def _is_fresh(worker: Worker, now: datetime) -> bool:
    return now - worker.beat_at <= timedelta(seconds=worker.lease_s)


def _as_of_now(store: Store) -> list[Worker]:
    # What a worker had at its last beat is up to a third of a lease old: with it, a busy worker looks idle.
    under_way = Counter(run.worker for run in store.running())
    return [msgspec.structs.replace(worker, running=under_way[worker.id]) for worker in store.workers()]


def serves(worker: Worker, queue: str) -> bool:
    """Does this worker take runs of that queue? One that is to stop takes nothing new."""
    return _is_its(worker, queue) and not _is_stopping(worker)


def _is_its(worker: Worker, queue: str) -> bool:
    return worker.queues is None or queue in worker.queues


def _is_stopping(worker: Worker) -> bool:
    return worker.request == "stop"


def unserved(workers: Sequence[Worker], queue: str, job: str) -> str | None:
    """Why none of these live workers will run that job from that queue; None: one will."""
    if not workers:
        return f"no worker is running: {START} starts one"
    serving = [worker for worker in workers if serves(worker, queue)]
    stopping = [worker.id for worker in workers if _is_its(worker, queue) and _is_stopping(worker)]
    if not serving and stopping:
        return f"worker {stopping[0]} is stopping, and no other serves the queue {quoted(queue)}: {START} starts one"
    if not serving:
        return f"no live worker serves the queue {quoted(queue)}: {START} starts one that does"
    if not any(job in worker.jobs for worker in serving):
        unknown = f"no live worker of the queue {quoted(queue)} defines the job {quoted(job)}"
        return f"{unknown}: `hueyctl worker reload`, if jobs.toml does"
    return None


def unused_queues(session: Session, queues: Sequence[str]) -> list[str]:
    """Those of the queues that nothing uses, quoted, with the nearest that something does: typing errors, mostly."""
    project = session.project
    used = {job.queue for job in project.jobs.values()} | set(project.queues)
    used |= {schedule.queue for schedule in project.schedules.values() if schedule.queue is not None}
    with suppress(StoreError):  # the worker says by itself what is wrong with it, and may bring an old one up to date
        used |= {line.queue for line in session.reader().lines()}
    return [f"{quoted(queue)}{did_you_mean(queue, used)}" for queue in queues if queue not in used]


def chosen(session: Session, ids: Sequence[str], *, every: bool, verb: str) -> list[Worker]:
    """The live workers that these ids (or unique beginnings of them) mean, `every` one, or the only one.

    Raises:
        NotFound: there is no such live worker.
        UsageError: an id is ambiguous, or several live and none was named.
        Refused: none was named, and none lives.
    """
    try:
        living = alive(session, session.writer())
    except StoreMissing:
        living = []  # without a store nobody has ever worked here
    if ids:
        return [_named(living, id) for id in dict.fromkeys(ids)]
    if every or len(living) == 1:
        return living
    if not living:
        raise Refused("no worker is running", hint=f"{START} starts one")
    listed = ", ".join(worker.id for worker in living)
    raise UsageError(f"several workers are running: {listed}", hint=f"name one, or `hueyctl worker {verb} --all`")


def ask(
    session: Session, workers: Sequence[Worker], request: Literal["stop", "reload"], *, now: datetime
) -> list[Worker]:
    """Ask these workers to stop or to reload; returns those that could be asked (the others have just gone)."""
    if not workers:
        return []
    store = session.writer()
    try:
        asked = [worker for worker in workers if store.ask(worker.id, request, by=session.by, now=now)]
    except StoreFull as exc:
        signal, pids = {"stop": "TERM", "reload": "HUP"}[request], " ".join(str(worker.pid) for worker in workers)
        raise StoreFull(exc.message, hint=f"free some space; or, where they run, `kill -{signal} {pids}`") from exc
    session.ring()
    return asked


def await_gone(session: Session, workers: Sequence[Worker], *, timeout: timedelta | None) -> None:
    """Return when these workers and all that they started have gone.

    Raises:
        WaitTimeout: one is still there after `timeout`.
    """
    deadline = None if timeout is None else monotonic() + timeout.total_seconds()
    with Watch(session) as watch:
        for worker in workers:
            while not _is_gone(session, worker):
                # A process that ends rings no bell: its locks are looked at ten times a second.
                if not watch.wait(deadline, backstop_s=0.1):
                    hint = f"`kill {worker.pid}` once more interrupts what it still runs"
                    raise WaitTimeout(f"worker {worker.id} is still running", hint=hint)


def _is_gone(session: Session, worker: Worker) -> bool:
    if is_of_here(session.place, worker.id) or session.place.address is None:
        return worker_is_dead(session.place, worker.id)
    # It takes itself out at the end, or another worker does; where none is left for that, its beats tell.
    now = datetime.now(UTC)
    return not any(each.id == worker.id and _is_fresh(each, now) for each in session.reader().workers())


def _named(living: Sequence[Worker], id: str) -> Worker:
    found = [worker for worker in living if worker.id == id] or [w for w in living if w.id.startswith(id)]
    if len(found) > 1:
        raise UsageError(f"worker {quoted(id)} is ambiguous: {', '.join(worker.id for worker in found)}")
    if not found:
        message = f"there is no live worker {quoted(id)}{did_you_mean(id, [worker.id for worker in living])}"
        raise NotFound(message, hint="`hueyctl worker status` lists them")
    return found[0]
