"""What is going on in a store: its workers, what waits for whom, what is held, and what `jobs.toml` says to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from hueyctl import __version__
from hueyctl.app.checkup import Check, ok, problem, warning
from hueyctl.app.public import public
from hueyctl.app.why import brief
from hueyctl.app.workers import START, lives, unserved
from hueyctl.model.definition import Project
from hueyctl.model.instant import iso
from hueyctl.model.mask import Mask
from hueyctl.model.params import misfit
from hueyctl.model.run import RunState
from hueyctl.model.schedule import FireTimes, definition_hash
from hueyctl.model.wording import quoted
from hueyctl.storage.locks import is_free, is_of_here
from hueyctl.storage.place import Place
from hueyctl.storage.store import EventFilter, RunFilter, Store, Worker

# Clocks of one machine agree; that of a container or a resumed machine may be off by a moment.
CLOCK_SLACK = timedelta(seconds=5)
# A slot is decided within milliseconds; a worker that has much to catch up with may take a while.
LATE = timedelta(minutes=1)
# So many runs are looked at one by one.
LOOKED_AT = 5_000


def work(store: Store, place: Place, project: Project | None, *, now: datetime) -> Iterator[Check]:
    """The findings about what the store holds. Raises StoreError where it can't be read."""
    workers = store.workers()
    alive = [worker for worker in workers if lives(place, worker, now)]
    yield from _of_clock(store, now)
    yield from _of_workers(workers, alive, place, store, now)
    if project is not None:
        yield from _of_versions(alive, project)
    yield from _of_queues(store, alive)
    yield from _of_held(store, project)
    if project is not None:
        yield from _of_jobs(store, alive, project)
        if alive:
            yield from _of_schedules(store, project, now)
    for pause in store.pauses():
        what = "everything" if pause.kind == "all" else f"{pause.kind} {quoted(pause.name)}"
        option = "" if pause.kind == "all" else f" --{pause.kind} {pause.name}"
        note = f" ({pause.note})" if pause.note else ""
        yield warning("paused", f"{what} since {iso(pause.at)} by {pause.by}{note}", f"hueyctl resume{option}")


def _of_clock(store: Store, now: datetime) -> Iterator[Check]:
    newest = max((event.time for event in store.last_events(EventFilter(), limit=100)), default=None)
    if newest is not None and newest - now > CLOCK_SLACK:
        yield problem(
            "clock",
            f"the newest event is {brief((newest - now).total_seconds())} in the future: the clock was set back, or "
            "was wrong then",
            "set the clock (timedatectl); nothing is lost, but what is due at a time waits for that time, and so does "
            "pruning",
        )
    else:
        yield ok("clock", "no event is in the future")


def _of_workers(
    workers: Sequence[Worker], alive: Sequence[Worker], place: Place, store: Store, now: datetime
) -> Iterator[Check]:
    healthy = 0
    for worker in workers:
        silent_s = (now - worker.beat_at).total_seconds()
        said = f"worker {worker.id} ({worker.host}:{worker.pid})"
        if worker not in alive:
            yield _dead(said, len(store.running(worker=worker.id)), rescuer=bool(alive))
        elif is_of_here(place, worker.id) and is_free(place.worker_lock(worker.id)):
            yield warning(
                "workers",
                f"{said} is gone, and its guard still ends what it ran",
                "wait; if it stays so, look at what it can't end: ps, and `hueyctl runs --state running`",
            )
        elif silent_s > worker.lease_s:
            yield problem(
                "workers",
                f"{said} is alive, and has been silent for {brief(silent_s)}, longer than its lease of "
                f"{brief(worker.lease_s)}: it is stopped, hangs, or can't write",
                f"kill -CONT {worker.pid}, look at its log, or kill -9 {worker.pid}: then its runs are given to others",
            )
        elif silent_s > worker.lease_s / 2:
            yield warning(
                "workers",
                f"the last heartbeat of {said} is {brief(silent_s)} old, of a lease of {brief(worker.lease_s)}",
                "look at its log: the disk or the machine may be too busy for it to write",
            )
        else:
            healthy += 1
    if healthy or not workers:
        yield ok("workers", f"{healthy} alive and heard of" if healthy else f"none is running: {START} starts one")


def _dead(said: str, running: int, *, rescuer: bool) -> Check:
    found = f"{said} is dead" + (f", and {_runs(running)} of it still counted as running" if running else "")
    if rescuer:
        return warning(
            "workers", found, "nothing: a live worker gives its runs back within seconds; if not, see its log"
        )
    if running:
        return problem("workers", found, f"{START}: it gives them back")
    return warning("workers", found, f"{START}: it clears up")


def _of_versions(alive: Sequence[Worker], project: Project) -> Iterator[Check]:
    others = sorted({worker.version for worker in alive} - {__version__})
    if others:
        yield warning(
            "versions",
            f"hueyctl here is {__version__}, and workers run {', '.join(others)}",
            "restart the workers of another version",
        )
    for worker in alive:
        unknown = sorted(project.jobs.keys() - set(worker.jobs)) if worker.file == str(project.path) else []
        if unknown:
            yield warning(
                "versions",
                f"worker {worker.id} doesn't know {', '.join(map(quoted, unknown))}: it read jobs.toml before",
                f"hueyctl worker reload {worker.id}",
            )


def _of_queues(store: Store, alive: Sequence[Worker]) -> Iterator[Check]:
    waiting: Counter[tuple[str, str]] = Counter()
    later = 0
    for line in store.lines():
        if line.state is RunState.QUEUED:
            waiting[line.queue, line.job] += line.count
        elif line.state is RunState.SCHEDULED:
            later += line.count
    stuck: Counter[str] = Counter()
    for (queue, job), count in waiting.items():
        reason = unserved(alive, queue, job)
        if reason is not None:
            stuck[reason] += count
    for reason, count in stuck.items():
        found, _, hint = reason.partition(": ")
        yield problem("queues", f"{_runs(count)} {'is' if count == 1 else 'are'} due, and {found}", hint)
    if not stuck:
        also = f", {later} for later" if later else ""
        yield ok(
            "queues", f"{sum(waiting.values())} wait{also}; a live worker serves each" if waiting else f"0 wait{also}"
        )


def _of_held(store: Store, project: Project | None) -> Iterator[Check]:
    held: Counter[tuple[str, str]] = Counter()
    for run in store.runs(RunFilter(states=(RunState.HELD,)), limit=LOOKED_AT):
        shown = public(run, project.jobs.get(run.job) if project else None, Mask.of(run))
        held[run.job, shown.reason or "no worker can run it"] += 1
    for (job, reason), count in sorted(held.items()):
        yield problem(
            "held",
            f"{_runs(count)} of {quoted(job)} {'is' if count == 1 else 'are'} held: {reason}",
            "bring a definition back that fits, and `hueyctl worker reload`; "
            f"or `hueyctl revoke --job {job} --state held`",
        )
    if not held:
        yield ok("held", "no run is held")


def _of_jobs(store: Store, alive: Sequence[Worker], project: Project) -> Iterator[Check]:
    """What would be held when a worker of this jobs.toml got to it."""
    defined = {*project.jobs, *project.pipelines, *(job for worker in alive for job in worker.jobs)}
    pending = (RunState.QUEUED, RunState.SCHEDULED, RunState.WAITING)
    undefined: Counter[str] = Counter()
    for line in store.lines():
        if line.state in pending and line.job not in defined:
            undefined[line.job] += line.count
    misfits: Counter[tuple[str, str]] = Counter()
    for run in store.next_up(limit=LOOKED_AT):
        job = project.jobs.get(run.job)
        reason = misfit(job, run.message.params) if job else None
        if reason is not None:
            misfits[run.job, reason] += 1
    for name, count in sorted(undefined.items()):
        yield problem(
            "jobs",
            f"{_runs(count)} of {quoted(name)} {_wait(count)}, which {project.path.name} doesn't define",
            f"bring the definition back, or `hueyctl revoke --job {name}`",
        )
    for (name, reason), count in sorted(misfits.items()):
        yield problem(
            "jobs",
            f"{_runs(count)} of {quoted(name)} {_wait(count)} with parameters that don't fit any more: {reason}",
            f"change the definition so that they fit, or `hueyctl revoke --job {name}`",
        )
    if not undefined and not misfits:
        yield ok("jobs", f"what waits fits {project.path.name}")


def _of_schedules(store: Store, project: Project, now: datetime) -> Iterator[Check]:
    """Whether what live workers fire is what this jobs.toml says, and whether they do."""
    states = {state.name: state for state in store.schedule_states()}
    differing: dict[str, list[str]] = {}
    late = []
    for name, schedule in sorted(project.schedules.items()):
        state = states.get(name)
        if state is None or state.definition != definition_hash(schedule):
            file = state.file if state is not None and state.definition else str(project.path)
            differing.setdefault(file, []).append(name)
        elif schedule.enabled:
            slots = FireTimes(schedule).between(state.last_slot, now - LATE)
            pauses = store.paused_times(name)
            slot = next((slot for slot in slots if not any(pause.covers(slot) for pause in pauses)), None)
            if slot is not None:
                late.append(f"{quoted(name)} at {iso(slot)}")
    for file, names in differing.items():
        listed = ", ".join(map(quoted, names))
        if file == str(project.path):
            found = f"{listed}: no worker has read what {project.path.name} says now"
            yield warning("schedules", found, "hueyctl worker reload --all")
        else:
            yield problem(
                "schedules",
                f"{listed}: fired as {file} has it, which was read last, and not as {project.path} has it",
                "let both files say the same, or give one of them another name; then `hueyctl worker reload --all`",
            )
    if late:
        others = f", and {len(late) - 1} more" if len(late) > 1 else ""
        found = f"{late[0]}{others}: due, and no worker has fired or missed it"
        yield problem("schedules", found, "look at the workers' logs, and at their clocks")
    if project.schedules and not differing and not late:
        yield ok("schedules", f"fired as {project.path.name} has them")


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _wait(count: int) -> str:
    return "waits" if count == 1 else "wait"
