"""The whole at a glance: queues, what runs, what is next, what failed, who works, what is paused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from hueyctl.app.public import PublicRun, public_of
from hueyctl.app.session import Session
from hueyctl.app.surroundings import surroundings
from hueyctl.app.why import in_its_way
from hueyctl.app.workers import WorkerStatus, serves, statuses, unserved
from hueyctl.model.definition import Project
from hueyctl.model.run import Run, RunState
from hueyctl.storage.store import Line, Pause

SHOWN = 10
_PROGRESS = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*/\s*([0-9]+(?:\.[0-9]+)?)(?:\s+(.*))?")
_PROGRESS_MAX = 4096


class Progress(msgspec.Struct, frozen=True):
    """How far a running attempt says it is: `text` alone, or `done` of `total` and a text."""

    done: float | None
    total: float | None
    text: str


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """How many live runs stand in a queue, and whether a live worker serves it."""

    name: str
    queued: int
    scheduled: int
    running: int
    held: int
    waiting: int
    served: bool
    paused: bool


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What `inspect` shows without a name. `progress` is by run; so is `in_the_way`, what keeps those that are next
    up from being claimed, beside that it isn't due or their turn yet."""

    queues: list[QueueState]
    running: list[PublicRun]
    progress: dict[str, Progress]
    next_up: list[PublicRun]
    in_the_way: dict[str, list[str]]
    recent_failures: list[PublicRun]
    workers: list[WorkerStatus]
    pauses: list[Pause]


def overview(session: Session, *, now: datetime) -> Overview:
    """The state of the store as it is now."""
    store = session.reader()
    workers = statuses(session, now=now)
    running, pauses, next_up = store.running(), store.pauses(), store.next_up(limit=SHOWN)
    living = [status.worker for status in workers if status.alive]

    def in_the_way(run: Run) -> list[str]:
        around = surroundings(session, run, workers=living, pauses=pauses, under_way=running, now=now)
        nobody = unserved(living, run.queue, run.job) if living else None  # that nobody works at all is said once
        return [session.mask(run).text(line) for line in (*in_its_way(run, around), nobody) if line]

    return Overview(
        queues=queue_states(session.project, store.lines(), workers, pauses),
        running=[public_of(session, run) for run in running],
        progress={run.id: found for run in running if (found := progress(session, run))},
        next_up=[public_of(session, run) for run in next_up],
        in_the_way={run.id: lines for run in next_up if (lines := in_the_way(run))},
        # A pipeline fails by a step of it: that one is shown, and it has the output.
        recent_failures=[public_of(session, run) for run in store.last_failed(limit=SHOWN)],
        workers=workers,
        pauses=pauses,
    )


def progress(session: Session, run: Run) -> Progress | None:
    """What a running attempt last wrote into its HUEYCTL_PROGRESS, secrets masked; None where it wrote nothing."""
    if run.state is not RunState.RUNNING:
        return None
    try:
        with session.place.progress(run.id, run.attempt).open("rb") as file:
            written = file.read(_PROGRESS_MAX)
    except OSError:
        return None
    lines = written.decode(errors="replace").split("\n")
    line = next((line.strip() for line in reversed(lines) if line.strip()), None)
    if line is None:
        return None
    line = session.mask(run).text(line)
    if found := _PROGRESS.fullmatch(line):
        return Progress(_number(found[1]), _number(found[2]), found[3] or "")
    return Progress(None, None, line)


def public_progress(progress: Progress | None) -> dict[str, Any] | None:
    """It as JSON-ready values."""
    return None if progress is None else msgspec.to_builtins(progress)


def _number(text: str) -> float:
    return float(text) if "." in text else int(text)


def queue_states(
    project: Project, lines: Sequence[Line], workers: Sequence[WorkerStatus], pauses: Sequence[Pause]
) -> list[QueueState]:
    """The queues that jobs, live runs or workers have, by name."""
    living = [status.worker for status in workers if status.alive]
    counts: dict[str, dict[RunState, int]] = {job.queue: {} for job in project.jobs.values()}
    for line in lines:
        states = counts.setdefault(line.queue, {})
        states[line.state] = states.get(line.state, 0) + line.count
    for worker in living:
        for queue in worker.queues or ():
            counts.setdefault(queue, {})
    stopped = {pause.name for pause in pauses if pause.kind == "queue"}
    everything = any(pause.kind == "all" for pause in pauses)
    return [
        QueueState(
            name=name,
            queued=states.get(RunState.QUEUED, 0),
            scheduled=states.get(RunState.SCHEDULED, 0),
            running=states.get(RunState.RUNNING, 0),
            held=states.get(RunState.HELD, 0),
            waiting=states.get(RunState.WAITING, 0),
            served=any(serves(worker, name) for worker in living),
            paused=everything or name in stopped,
        )
        for name, states in sorted(counts.items())
    ]
