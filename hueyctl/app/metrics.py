"""What monitoring asks for, as numbers with labels: the state of the store now, and what happened since somebody began
to count.

Names and units are those of Prometheus: seconds, bytes, a `_total` for what only grows. Labels have names of jobs,
queues and schedules, and nothing that is new for each run or worker: each combination is a series that is kept.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

import hueyctl
from hueyctl.app.overview import queue_states
from hueyctl.app.schedules import schedules
from hueyctl.app.session import Session
from hueyctl.app.workers import WorkerStatus, statuses
from hueyctl.errors import StoreMissing
from hueyctl.model.definition import Project
from hueyctl.model.event import EventType
from hueyctl.model.run import RunState
from hueyctl.storage.store import TOOK_AT_MOST_S, Store, Tally

Labels = Mapping[str, str]

# What somebody will want to be told of when it happens the first time: a series that begins with it has not grown.
WATCHED = (
    EventType.COMPLETE,
    EventType.FAILED,
    EventType.EXPIRED,
    EventType.REVOKED,
    EventType.SKIPPED,
    EventType.RETRYING,
    EventType.TIMEOUT,
    EventType.LOST,
)
UNFIRED = (EventType.MISSED, EventType.SKIPPED)


class Sample(msgspec.Struct, frozen=True):
    """A value of a metric. `buckets`, of a histogram alone: of each class its upper bound in the metric's unit (inf for
    the last), and how many were no larger; `value` is then their sum."""

    labels: Labels
    value: float
    buckets: Sequence[tuple[float, int]] = ()


class Metric(msgspec.Struct, frozen=True):
    """A name, what it means, and a value for each of its labels' values (`samples`); all have the same labels."""

    name: str
    help: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    samples: Sequence[Sample]

    def public(self) -> dict[str, Any]:
        """It as JSON-ready values."""
        samples = [{"labels": dict(each.labels), "value": each.value} for each in self.samples]
        return {"name": self.name, "type": self.kind, "help": self.help, "samples": samples}


class Counts:
    """What was recorded since it was made, or behind the event `after`; each event counts once."""

    def __init__(self, after: int) -> None:
        self._seq = after
        self._events: Counter[tuple[str, str]] = Counter()  # by type and job
        self._unfired: Counter[tuple[str, str]] = Counter()  # slots, by schedule and type
        self._took: dict[str, list[int]] = {}
        self._took_s: dict[str, float] = {}

    def go_on(self, store: Store, project: Project) -> None:
        """Count what is new; what the project defines has its series, though nothing has happened."""
        if store.last_seq() < self._seq:
            self._seq = 0  # it is another store, whose history is short
        self._add(store.tally(after=self._seq))
        for type in WATCHED:
            for name in (*project.jobs, *project.pipelines):
                self._events[type, name] += 0
        for type in UNFIRED:
            for name in project.schedules:
                self._unfired[name, type] += 0

    def metrics(self) -> Iterator[Metric]:
        """All that was counted."""
        yield _counter(
            "hueyctl_events_total",
            "Events of the event log, since the exporter began to count.",
            ("type", "job"),
            self._events,
        )
        yield _counter(
            "hueyctl_slots_unfired_total",
            "Slots of the schedule that were missed or skipped, since the exporter began to count.",
            ("schedule", "outcome"),
            self._unfired,
        )
        yield Metric(
            "hueyctl_attempt_duration_seconds",
            "How long attempts took, from their start to their end, however they ended.",
            "histogram",
            ("job",),
            [
                Sample({"job": job}, self._took_s[job], _cumulated(classes))
                for job, classes in sorted(self._took.items())
            ],
        )

    def _add(self, tally: Tally) -> None:
        self._seq = tally.seq
        for (type, job, schedule), count in tally.events.items():
            self._events[type, job or ""] += count
            if schedule is not None and type in UNFIRED:
                self._unfired[schedule, type] += count
        for (job_of, took_class), (count, seconds) in tally.took.items():
            self._took.setdefault(job_of, [0] * (len(TOOK_AT_MOST_S) + 1))[took_class] += count
            self._took_s[job_of] = self._took_s.get(job_of, 0.0) + seconds


def up(is_up: bool) -> Metric:
    """Could the store be read?"""
    return Metric(
        "hueyctl_up", "Whether the store could be read (1) or not (0).", "gauge", (), [Sample({}, int(is_up))]
    )


def gauges(session: Session, *, now: datetime) -> Iterator[Metric]:
    """The state of the store as it is now.

    Raises:
        StoreError: it can't be read.
    """
    workers = statuses(session, now=now)
    yield _gauge("info", "The version of hueyctl that looks.", ("version",), [({"version": hueyctl.__version__}, 1)])
    yield _gauge(
        "config_ok",
        "Whether jobs.toml is right (1) or not (0); workers go on with what they have read.",
        (),
        [({}, int(session.file_error is None))],
    )
    yield from _of_runs(session, workers, now)
    yield from _of_workers(workers)
    yield from _of_schedules(session, now)
    yield from _of_ends(session)
    if session.place.address is None:
        yield _gauge("store_bytes", "The size of the store's files, output aside.", (), [({}, _size(session))])


def newest_event(session: Session) -> int:
    """The number of the newest event, 0 where there is no store yet: what to count from."""
    try:
        return session.reader().last_seq()
    except StoreMissing:
        return 0


def _of_runs(session: Session, workers: Sequence[WorkerStatus], now: datetime) -> Iterator[Metric]:
    store = session.reader()
    lines, pauses = store.lines(), store.pauses()
    waiting = [({"queue": run.queue, "job": run.job}, (now - run.due_at).total_seconds()) for run in store.heads()]
    queues = queue_states(session.project, lines, workers, pauses)
    yield _gauge(
        "runs",
        "Live runs, by what they wait for or do.",
        ("queue", "job", "state"),
        [({"queue": line.queue, "job": line.job, "state": line.state.value}, line.count) for line in lines],
    )
    yield _gauge(
        "next_run_waiting_seconds",
        "How long the queued run that is the next of its job and queue has been due.",
        ("queue", "job"),
        [(labels, max(0.0, waited_s)) for labels, waited_s in waiting],
    )
    yield _gauge(
        "queue_served",
        "Whether a live worker takes runs of the queue (1) or none does (0).",
        ("queue",),
        [({"queue": each.name}, int(each.served)) for each in queues],
    )
    yield _gauge(
        "paused",
        "The switches that are set; kind is all, job, queue or schedule.",
        ("kind", "name"),
        [({"kind": each.kind, "name": each.name}, 1) for each in pauses],
    )


def _of_workers(workers: Sequence[WorkerStatus]) -> Iterator[Metric]:
    counts = {"alive": 0, "silent": 0, "dead": 0}
    for each in workers:
        counts["dead" if not each.alive else "alive" if each.fresh else "silent"] += 1
    yield _gauge(
        "workers",
        "Registered workers: alive; silent (alive, and its heartbeat is older than its lease); dead (not rescued yet).",
        ("state",),
        [({"state": state}, count) for state, count in counts.items()],
    )
    yield _gauge(
        "worker_concurrency",
        "How many runs the live workers can have going at a time.",
        (),
        [({}, sum(each.worker.concurrency for each in workers if each.alive))],
    )


def _of_schedules(session: Session, now: datetime) -> Iterator[Metric]:
    views = schedules(session, now=now)
    yield _gauge(
        "schedule_next_timestamp_seconds",
        "The next slot of the schedule.",
        ("schedule",),
        [({"schedule": each.schedule.name}, each.next.timestamp()) for each in views if each.next],
    )
    yield _gauge(
        "schedule_last_slot_timestamp_seconds",
        "The last slot of the schedule that was decided, by whether it fired, was skipped or was missed.",
        ("schedule", "outcome"),
        [
            ({"schedule": each.schedule.name, "outcome": each.last.outcome}, each.last.slot.timestamp())
            for each in views
            if each.last
        ],
    )


def _of_ends(session: Session) -> Iterator[Metric]:
    store, project = session.reader(), session.project
    for state in (RunState.SUCCEEDED, RunState.FAILED):
        ended = {name: store.last_ended(name, state) for name in sorted({*project.jobs, *project.pipelines})}
        yield _gauge(
            f"last_{state.value}_timestamp_seconds",
            f"When a run of the job or pipeline last {state.value}, of those that are kept (its newest 1,000).",
            ("job",),
            [({"job": name}, at.timestamp()) for name, at in ended.items() if at],
        )


def _gauge(name: str, help: str, labels: tuple[str, ...], values: Sequence[tuple[Labels, float]]) -> Metric:
    samples = [Sample(of, value) for of, value in values]
    return Metric(f"hueyctl_{name}", help, "gauge", labels, samples)


def _counter(name: str, help: str, labels: tuple[str, str], counts: Mapping[tuple[str, str], int]) -> Metric:
    samples = [Sample(dict(zip(labels, key, strict=True)), count) for key, count in sorted(counts.items())]
    return Metric(name, help, "counter", labels, samples)


def _size(session: Session) -> int:
    """Without opening any: to close it again would drop SQLite's locks."""
    path = session.place.path
    total = 0
    for each in (path, path.with_name(f"{path.name}-wal")):
        try:
            total += os.stat(each).st_size
        except FileNotFoundError:
            continue
    return total


def _cumulated(classes: Sequence[int]) -> list[tuple[float, int]]:
    total, found = 0, []
    for most, count in zip((*TOOK_AT_MOST_S, float("inf")), classes, strict=True):
        total += count
        found.append((most, total))
    return found
