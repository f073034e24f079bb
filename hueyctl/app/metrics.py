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
from hueyctl.model.event import EventType
from hueyctl.model.run import RunState
from hueyctl.storage.place import Place
from hueyctl.storage.store import TOOK_AT_MOST_S, Tally

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
    EventType.HELD,
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
    """What is recorded from the first look at a store on, each event once."""

    def __init__(self) -> None:
        self._seqs: dict[Place, int] = {}  # up to which all is counted, of each store there was
        self._events: Counter[tuple[str, str]] = Counter()  # by type and job
        self._unfired: Counter[tuple[str, str]] = Counter()  # slots, by schedule and type
        self._took: dict[str, list[int]] = {}
        self._took_s: dict[str, float] = {}

    def begin(self, session: Session) -> None:
        """Look at the store for the first time.

        Raises:
            StoreError: it can't be read; all of one that isn't there yet will be new.
        """
        try:
            self._seqs[session.place] = session.reader().last_seq()
        except StoreMissing:
            self._seqs[session.place] = 0
            raise

    def go_on(self, session: Session) -> None:
        """Count what is new. What is defined has its series, though nothing has happened."""
        store, project = session.reader(), session.project
        last = store.last_seq()
        # Of a store that is looked at for the first time, or that an older one was put in the place of, what comes now.
        tally = store.tally(after=min(self._seqs.get(session.place, last), last))
        self._seqs[session.place] = tally.seq
        self._add(tally)
        names = {*project.jobs, *project.pipelines, *(job for worker in store.workers() for job in worker.jobs)}
        for type in WATCHED:
            for name in names:
                self._events[type, name] += 0
        for type in UNFIRED:
            for name in project.schedules:
                self._unfired[name, type] += 0

    def metrics(self) -> Iterator[Metric]:
        """All that was counted."""
        yield _counter(
            "hueyctl_events_total",
            "Events of the event log, since the exporter began to count.",
            ("type", "job_name"),
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
            "How long attempts took, from their start to their end, however that was; lost ones aside.",
            "histogram",
            ("job_name",),
            [
                Sample({"job_name": job}, self._took_s[job], _cumulated(classes))
                for job, classes in sorted(self._took.items())
            ],
        )

    def _add(self, tally: Tally) -> None:
        for (type, job, schedule), count in tally.events.items():
            self._events[type, job or ""] += count
            if schedule is not None and type in UNFIRED:
                self._unfired[schedule, type] += count
        for (job_of, took_class), (count, seconds) in tally.took.items():
            self._took.setdefault(job_of, [0] * (len(TOOK_AT_MOST_S) + 1))[took_class] += count
            self._took_s[job_of] = self._took_s.get(job_of, 0.0) + seconds


class Latest:
    """When things happened last, though the store has forgotten it since: runs are pruned after a week."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], float] = {}

    def of(self, what: str, name: str, at: datetime | None) -> float:
        """The latest of all times that were given for it, in seconds since the epoch; 0 without any."""
        latest = max(self._seen.get((what, name), 0.0), 0.0 if at is None else at.timestamp())
        self._seen[what, name] = latest
        return latest


def up(is_up: bool) -> Metric:
    """Could the store be read?"""
    return _gauge("up", "Whether the store could be read (1) or not (0).", (), [({}, int(is_up))])


def gauges(session: Session, latest: Latest, *, now: datetime) -> Iterator[Metric]:
    """The state of the store as it is now, and of what it has forgotten what `latest` remembers.

    Raises:
        StoreError: it can't be read.
    """
    workers = statuses(session, now=now)
    yield up(True)
    yield _gauge(
        "build_info", "The version of hueyctl that looks.", ("version",), [({"version": hueyctl.__version__}, 1)]
    )
    yield _gauge(
        "config_ok",
        "Whether jobs.toml is right (1) or not (0); workers go on with what they have read.",
        (),
        [({}, int(session.file_error is None))],
    )
    yield from _of_runs(session, workers, now)
    yield from _of_workers(workers)
    yield from _of_schedules(session, latest, now)
    yield from _of_ends(session, latest, workers)
    if session.place.address is None:
        yield _gauge("store_bytes", "The size of the store's files, output aside.", (), [({}, _size(session))])


def _of_runs(session: Session, workers: Sequence[WorkerStatus], now: datetime) -> Iterator[Metric]:
    store = session.reader()
    lines, pauses = store.lines(), store.pauses()
    paused = {(pause.kind, pause.name) for pause in pauses}
    next_up = [run for run in store.heads() if not {("all", ""), ("queue", run.queue), ("job", run.job)} & paused]
    longest: dict[tuple[str, str], datetime] = {}
    for run in store.running():  # the longest first
        longest.setdefault((run.queue, run.job), run.started_at or now)
    yield _gauge(
        "runs",
        "Live runs, by what they wait for or do.",
        ("queue", "job_name", "state"),
        [({"queue": line.queue, "job_name": line.job, "state": line.state.value}, line.count) for line in lines],
    )
    yield _gauge(
        "next_run_waiting_seconds",
        "How long the queued run that is the next of its job and queue has been due; paused ones aside.",
        ("queue", "job_name"),
        [({"queue": run.queue, "job_name": run.job}, _since(run.due_at, now)) for run in next_up],
    )
    yield _gauge(
        "longest_running_seconds",
        "How long the attempt that has been under way the longest has been.",
        ("queue", "job_name"),
        [({"queue": queue, "job_name": job}, _since(at, now)) for (queue, job), at in longest.items()],
    )
    yield _gauge(
        "queue_served",
        "Whether a live worker takes runs of the queue (1) or none does (0).",
        ("queue",),
        [({"queue": each.name}, int(each.served)) for each in queue_states(session.project, lines, workers, pauses)],
    )
    yield _gauge(
        "paused",
        "The pauses in force; kind is all, job, queue or schedule.",
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


def _of_schedules(session: Session, latest: Latest, now: datetime) -> Iterator[Metric]:
    store, views = session.reader(), schedules(session, now=now)
    yield _gauge(
        "schedule_next_timestamp_seconds",
        "The next slot of the schedule, whether or not anybody will fire it.",
        ("schedule",),
        [({"schedule": each.schedule.name}, each.next.timestamp()) for each in views if each.next],
    )
    names = [each.schedule.name for each in views]
    fired = {name: found[0] if (found := store.last_decided(name, "fired")) else None for name in names}
    yield _gauge(
        "schedule_last_fired_timestamp_seconds",
        "The last slot of the schedule that fired; 0: none of its newest 1,000 did.",
        ("schedule",),
        [({"schedule": name}, latest.of("fired", name, at)) for name, at in fired.items()],
    )
    missed = {name: found[1] if (found := store.last_decided(name, "missed")) else None for name in names}
    yield _gauge(
        "schedule_last_missed_timestamp_seconds",
        "When a slot of the schedule was last found to have been missed; 0: none of its newest 1,000 was.",
        ("schedule",),
        [({"schedule": name}, latest.of("missed", name, at)) for name, at in missed.items()],
    )


def _of_ends(session: Session, latest: Latest, workers: Sequence[WorkerStatus]) -> Iterator[Metric]:
    store, project = session.reader(), session.project
    # Those that workers know have theirs although the file is wrong.
    names = {*project.jobs, *project.pipelines, *(job for each in workers for job in each.worker.jobs)}
    for state in (RunState.SUCCEEDED, RunState.FAILED):
        ended = store.last_ended(names, state)
        yield _gauge(
            f"last_{state.value}_timestamp_seconds",
            f"When a run of the job or pipeline last {state.value}; 0: none that is kept, as far as is looked.",
            ("job_name",),
            [({"job_name": name}, latest.of(state.value, name, ended.get(name))) for name in sorted(names)],
        )


def _gauge(name: str, help: str, labels: tuple[str, ...], values: Sequence[tuple[Labels, float]]) -> Metric:
    samples = [Sample(of, value) for of, value in values]
    return Metric(f"hueyctl_{name}", help, "gauge", labels, samples)


def _since(at: datetime, now: datetime) -> float:
    return max(0.0, (now - at).total_seconds())


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
