"""The history checker: is what happened what hueyctl promises? It knows the documentation and nothing else.

It is given what was seen from outside (the ids that `enqueue` printed, the marks that the jobs left themselves, what
was killed how often) and what hueyctl says of it (`events --json`, `runs --json`), and compares them. The letters in
front of what it finds are those of the promises in docs/reliability.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Record = Mapping[str, Any]

TERMINAL = frozenset({"succeeded", "failed", "revoked", "expired", "skipped"})
NOT_STARTED = frozenset({"waiting", "scheduled", "queued", "held"})
FAILURES = frozenset({"error", "timeout", "canceled"})
# What ends an attempt. `released` ends one too that never began; else it is the end of being held, or of waiting.
ENDS = FAILURES | {"complete", "lost", "interrupted", "released"}
AFTER_AN_END = frozenset({"queued", "scheduled", "failed", "revoked"})

# The states in which an event of each type may come, and those that it may lead to. None: the run isn't there yet.
STEPS: Mapping[str, tuple[frozenset[str | None], frozenset[str]]] = {
    "enqueued": (frozenset({None, "scheduled", "waiting"}), frozenset({"queued", "waiting"})),
    "scheduled": (frozenset({None, "waiting"}), frozenset({"scheduled"})),
    "executing": (frozenset({"queued"}), frozenset({"running"})),
    "complete": (frozenset({"running"}), frozenset({"succeeded"})),
    **{end: (frozenset({"running"}), AFTER_AN_END) for end in (*FAILURES, "lost", "interrupted")},
    "released": (frozenset({"running", "held", "waiting"}), frozenset({"queued", "revoked"})),
    "revoke-requested": (frozenset({"running"}), frozenset({"running"})),
    "revoked": (frozenset(NOT_STARTED), frozenset({"revoked"})),
    "expired": (frozenset(NOT_STARTED), frozenset({"expired"})),
    "skipped": (frozenset(NOT_STARTED), frozenset({"skipped"})),
    "held": (frozenset({"queued"}), frozenset({"held"})),
    "retried": (frozenset(TERMINAL - {"succeeded"}), frozenset({"queued", "waiting"})),
}
# The same of a pipeline's own run, which nobody executes: its steps run.
UNENDED = frozenset({"waiting", "running"})
WHOLE: Mapping[str, tuple[frozenset[str | None], frozenset[str]]] = {
    "enqueued": (frozenset({None}), frozenset({"waiting"})),
    "executing": (frozenset({"waiting"}), frozenset({"running"})),
    "complete": (frozenset({"running"}), frozenset({"succeeded"})),
    **{end: (UNENDED, frozenset({end})) for end in sorted(TERMINAL - {"succeeded"})},
    "retried": (frozenset(TERMINAL - {"succeeded"}), UNENDED),
}


@dataclass(frozen=True)
class Mark:
    """What an attempt wrote when it began (`start`), went on (`tick`) and was done (`end`), whatever came of it."""

    kind: str
    run: str
    attempt: int


@dataclass(frozen=True)
class Limits:
    """A job's policy in `jobs.toml`."""

    retries: int = 0
    crash_limit: int = 3


@dataclass
class History:
    """All that is known of one round.

    `marks` are in the order in which they were written. `deaths`: for each worker's id, how often something was done
    to its processes that can cost it what it runs (kills, failing disks, stalls longer than a lease).
    `never_started`: runs whose revocation was confirmed before any worker was there. `pruned`: the states whose runs
    may be gone, since the retention was short. `periods_ms`: the schedules, each a grid from 1970 on, of which every
    slot after `watched_from` up to `watched_until` was to be decided. `after`: the jobs that are steps, each with those
    of the same pipeline that must have succeeded before it may begin. `limits_of`: by run, a key and how many attempts
    of runs with this key may be under way at a time.
    """

    accepted: list[str] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    events: list[Record] = field(default_factory=list)
    runs: list[Record] = field(default_factory=list)
    limits: dict[str, Limits] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    concurrency: int = 1
    never_started: list[str] = field(default_factory=list)
    pruned: frozenset[str] = frozenset()
    periods_ms: Mapping[str, int] = field(default_factory=dict)
    watched_from: datetime | None = None
    watched_until: datetime | None = None
    after: Mapping[str, frozenset[str]] = field(default_factory=dict)
    limits_of: dict[str, tuple[str, int]] = field(default_factory=dict)


@dataclass
class Told:
    """What the events tell of one run."""

    state: str | None = None
    attempt: int = 0
    ends: dict[int, str] = field(default_factory=dict)
    workers: dict[int, str | None] = field(default_factory=dict)
    due: str | None = None  # the event that must come next
    lap: Counter[str] = field(default_factory=Counter)  # what came since it was enqueued or retried


def check(history: History) -> list[str]:
    """Everything that is false in this history, one line each; nothing: every promise was kept."""
    told, false = _replay(history)
    return [
        *false,
        *_accepted_end(history, told),
        *_states_agree(history, told),
        *_executions(history, told),
        *_no_overlap(history.marks),
        *_no_crowd(history),
        *_revoked_never_ran(history, told),
        *_pipelines(history, told),
        *_slots_once(history),
        *_losses_have_causes(history, told),
    ]


def extra_executions(history: History) -> int:
    """How many attempts began and came to nothing, through no fault of their job."""
    told, _ = _replay(history)
    started = {(mark.run, mark.attempt) for mark in history.marks if mark.kind == "start"}
    return sum(
        (run, attempt) in started and end in {"lost", "interrupted"}
        for run, each in told.items()
        for attempt, end in each.ends.items()
    )


def _replay(history: History) -> tuple[dict[str, Told], list[str]]:
    told: dict[str, Told] = defaultdict(Told)
    false, seq = [], 0
    for event in history.events:
        if event["seq"] <= seq:
            false.append(f"E: event {event['seq']} comes after {seq}")
        seq = event["seq"]
        if event["run"] is not None and event["run"] == event["pipeline"]:
            false += [f"{found} ({_shown(event)})" for found in _step_of_whole(told[event["run"]], event)]
        elif event["run"] is not None:
            limits = history.limits.get(event["job"], Limits())
            false += [f"{found} ({_shown(event)})" for found in _step(told[event["run"]], event, limits)]
    false += [f"E: {run}: the events end before its {each.due}" for run, each in told.items() if each.due]
    return dict(told), false


def _step(told: Told, event: Record, limits: Limits) -> Iterator[str]:
    """Move on by one event; what is false about it."""
    type, state, attempt = event["type"], event["state"], event["attempt"]
    if type == "stale":
        if state != told.state:
            yield f"E: a stale end changed {told.state} to {state}"
        return
    before, told.state = told.state, state
    due, told.due = told.due, None
    if due is not None or type in {"failed", "retrying"}:
        # The second event of an end, of the same transaction.
        if type != due or state != before:
            yield f"E: {due or 'no such event'} was to come next, with the state {before}"
        return
    came, leads = STEPS.get(type, (frozenset({before}), frozenset({before})))
    if before not in came or state not in leads:
        yield f"E: no {type} leads from {before} to {state}"
    if type == "executing":
        if attempt != told.attempt + 1:
            yield f"B: attempt {attempt} follows attempt {told.attempt}"
        told.attempt, told.workers[attempt] = attempt, event["worker"]
        told.lap["executing"] += 1
    elif type == "retried":
        told.lap.clear()
    elif type in ENDS and not (type == "released" and before in NOT_STARTED):
        yield from _end(told, type, state, attempt)
    yield from _bounds(told, state, limits)


def _step_of_whole(told: Told, event: Record) -> Iterator[str]:
    """Move a pipeline's own run on by one event; what is false about it."""
    type, state, before = event["type"], event["state"], told.state
    came, leads = WHOLE.get(type, (frozenset({before}), frozenset({before})))
    if before not in came or state not in leads:
        yield f"E: no {type} leads a pipeline from {before} to {state}"
    told.state = state


def _end(told: Told, type: str, state: str, attempt: int) -> Iterator[str]:
    if attempt != told.attempt:
        yield f"B: attempt {attempt} ended while attempt {told.attempt} ran"
    if attempt in told.ends:
        yield f"B: attempt {attempt} has two outcomes: {told.ends[attempt]} and {type}"
    told.ends[attempt] = type
    told.lap["failures" if type in FAILURES else "lost" if type == "lost" else "given back"] += 1
    if state in {"failed", "revoked"}:
        told.due = state
    elif type in FAILURES:
        told.due = "retrying"


def _bounds(told: Told, state: str, limits: Limits) -> Iterator[str]:
    lap = told.lap
    if lap["failures"] > limits.retries + 1 or (lap["failures"] > limits.retries and state in {"queued", "scheduled"}):
        yield f"D: it failed {lap['failures']} times and goes on, with {limits.retries} retries"
    if lap["lost"] > limits.crash_limit or (lap["lost"] == limits.crash_limit and state == "queued"):
        yield f"D: it was lost {lap['lost']} times and goes on, with a crash_limit of {limits.crash_limit}"
    if lap["executing"] > limits.retries + limits.crash_limit + lap["given back"]:
        yield f"D: attempt {lap['executing']} since it was enqueued"


def _accepted_end(history: History, told: Mapping[str, Told]) -> Iterator[str]:
    runs = {run["id"]: run for run in history.runs}
    for id in history.accepted:
        state = runs[id]["state"] if id in runs else None
        if state is None and id in told and told[id].state in history.pruned:
            continue
        if state not in TERMINAL:
            yield f"A: {id} was accepted and is {state or 'not there'}"
    for run in history.runs:
        if run["schedule"] is not None and run["state"] not in TERMINAL:
            yield f"A: {run['id']} was enqueued by schedule {run['schedule']} and is {run['state']}"


def _states_agree(history: History, told: Mapping[str, Told]) -> Iterator[str]:
    ids = Counter(run["id"] for run in history.runs)
    yield from (f"E: {id} is there {count} times" for id, count in ids.items() if count > 1)
    for run in history.runs:
        each = told.get(run["id"], Told())
        if (each.state, each.attempt) != (run["state"], run["attempt"] or 0):
            found = f"{run['state']} at attempt {run['attempt']}"
            yield f"E: {run['id']} is {found}, and {each.state} at attempt {each.attempt} by its events"
    for id, each in told.items():
        if id not in ids and each.state not in history.pruned:
            yield f"E: {id} has events, is {each.state} by them, and is not there"


def _executions(history: History, told: Mapping[str, Told]) -> Iterator[str]:
    """What the jobs saw is what the events say."""
    seen: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for mark in history.marks:
        seen[mark.run, mark.attempt][mark.kind] += 1
    for (run, attempt), kinds in seen.items():
        if run not in told or attempt not in told[run].workers:
            yield f"B: {run}: attempt {attempt} ran, and no event says so"
        if kinds["start"] != 1 or kinds["end"] > 1:
            yield f"B: {run}: attempt {attempt} began {kinds['start']} times and ended {kinds['end']} times"
    for run, each in told.items():
        for attempt in each.workers:
            end, kinds = each.ends.get(attempt), seen.get((run, attempt), Counter())
            if end is None:
                yield f"B: {run}: attempt {attempt} has no outcome"
            elif end == "complete" and not kinds["end"]:
                yield f"B: {run}: attempt {attempt} is complete, and never came to its end"
            elif end == "error" and not kinds["start"]:
                yield f"B: {run}: attempt {attempt} failed, and never began"
            elif end == "released" and kinds:
                yield f"B: {run}: attempt {attempt} was given back unstarted, and ran"


def _no_overlap(marks: Iterable[Mark]) -> Iterator[str]:
    newest: dict[str, int] = {}
    for mark in marks:
        if mark.attempt < newest.get(mark.run, 0):
            yield f"B: {mark.run}: attempt {mark.attempt} still ran ({mark.kind}) when {newest[mark.run]} had begun"
        newest[mark.run] = max(mark.attempt, newest.get(mark.run, 0))


def _no_crowd(history: History) -> Iterator[str]:
    """No more attempts than allowed were under way at a time, each from its first mark to its last."""
    spans: dict[str, dict[tuple[str, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    most: dict[str, int] = {}
    for at, mark in enumerate(history.marks):
        if mark.run in history.limits_of:
            key, most[key] = history.limits_of[mark.run]
            spans[key][mark.run, mark.attempt].append(at)
    for key, attempts in spans.items():
        for (run, attempt), seen in attempts.items():
            beside = [other for other, its in attempts.items() if its[0] <= seen[0] <= its[-1]]
            if len(beside) > most[key]:
                others = ", ".join(f"attempt {number} of {id}" for id, number in beside if id != run)
                yield f"B: {key}: attempt {attempt} of {run} began beside {others}; {most[key]} may be under way"


def _revoked_never_ran(history: History, told: Mapping[str, Told]) -> Iterator[str]:
    ran = {mark.run for mark in history.marks}
    for id in history.never_started:
        if id in ran:
            yield f"B: {id} was revoked before it could start, and ran"
        if id not in told or told[id].state != "revoked":
            yield f"A: {id} was revoked, and is {told[id].state if id in told else 'not there'}"


def _pipelines(history: History, told: Mapping[str, Told]) -> Iterator[str]:
    """A step begins when all that it is after have succeeded, and the whole ends as its steps did."""
    done: dict[str, set[str]] = defaultdict(set)  # the jobs of each pipeline's steps that succeeded
    steps: dict[str, dict[str, str]] = defaultdict(dict)
    for event in history.events:
        run, whole, job = event["run"], event["pipeline"], event["job"]
        if whole is None or run == whole:
            continue
        steps[whole][run] = job
        if event["type"] == "executing" and not history.after[job] <= done[whole]:
            yield f"A: {run} ({job}) began before {', '.join(sorted(history.after[job] - done[whole]))} had succeeded"
        if event["type"] == "complete":
            done[whole].add(job)
    for whole, jobs in steps.items():
        if set(jobs.values()) != set(history.after):
            yield f"A: pipeline {whole} has the steps {', '.join(sorted(jobs.values()))}"
        states = {told[run].state for run in jobs}
        bad = states - {"succeeded"}
        if told[whole].state not in (bad or {"succeeded"}):
            ended = ", ".join(sorted(map(str, states)))
            yield f"E: pipeline {whole} is {told[whole].state}, and its steps are {ended}"
    # What the steps wrote themselves says the same: none began before those that it is after had come to their end.
    whole_of = {run: whole for whole, jobs in steps.items() for run in jobs}
    done.clear()
    for mark in history.marks:
        whole = whole_of.get(mark.run)
        if whole is None:
            continue
        job = steps[whole][mark.run]
        if mark.kind == "end" and told[mark.run].ends.get(mark.attempt) == "complete":
            done[whole].add(job)
        elif mark.kind == "start" and not history.after[job] <= done[whole]:
            yield f"A: {mark.run} ({job}) ran before {', '.join(sorted(history.after[job] - done[whole]))} had ended"


def _slots_once(history: History) -> Iterator[str]:
    """Each slot is a run, or is recorded as missed or skipped: one of them, once, and not before its time."""
    slots = Counter((run["schedule"], run["scheduled_at"]) for run in history.runs if run["scheduled_at"] is not None)
    yield from (f"C: slot {at} of {schedule} has {count} runs" for (schedule, at), count in slots.items() if count > 1)
    decided: dict[str, dict[datetime, list[str]]] = defaultdict(lambda: defaultdict(list))
    seen = set()
    for event in history.events:
        run, schedule = event["run"], event["schedule"]
        if event["slot"] is None or run in seen:
            continue
        if run is not None:
            seen.add(run)
        slot = datetime.fromisoformat(event["slot"])
        decided[schedule][slot].append(event["type"] if run is None else f"run {run}")
        if datetime.fromisoformat(event["time"]) < slot:
            yield f"C: slot {slot} of {schedule} was decided at {event['time']}, before its time"
    for schedule, each in decided.items():
        for slot, outcomes in each.items():
            if len(outcomes) > 1:
                yield f"C: slot {slot} of {schedule} was decided {len(outcomes)} times: {', '.join(outcomes)}"
            if schedule not in history.periods_ms or _grid(slot, history.periods_ms[schedule]) != slot:
                yield f"C: {slot} is no slot of {schedule}"
    for schedule, period_ms in history.periods_ms.items():
        assert history.watched_from is not None
        assert history.watched_until is not None
        slot, period = _grid(history.watched_from, period_ms), timedelta(milliseconds=period_ms)
        while (slot := slot + period) <= history.watched_until:
            if slot not in decided[schedule]:
                yield f"C: slot {slot} of {schedule} was neither fired nor recorded"


def _grid(at: datetime, period_ms: int) -> datetime:
    """The last instant up to `at` of a grid that begins with 1970."""
    zero = datetime(1970, 1, 1, tzinfo=UTC)
    return at - (at - zero) % timedelta(milliseconds=period_ms)


def _losses_have_causes(history: History, told: Mapping[str, Told]) -> Iterator[str]:
    """Each death costs a run one execution at most, and a worker those that it had under way."""
    lost: Counter[str | None] = Counter()
    for run, each in told.items():
        own = Counter(each.workers.get(attempt) for attempt, end in each.ends.items() if end == "lost")
        lost += own
        for worker, count in own.items():
            deaths = history.deaths.get(worker or "", 0)
            if count > deaths:
                yield f"B: {run} was lost {count} times by worker {worker}, which died {deaths} times"
    for worker, count in lost.items():
        most = history.concurrency * history.deaths.get(worker or "", 0)
        if count > most:
            yield f"B: worker {worker} lost {count} attempts; its deaths explain {most}"


def _shown(event: Record) -> str:
    return f"event {event['seq']}: {event['type']} of {event['run']} attempt {event['attempt']}"


def marks_from(lines: Sequence[str]) -> list[Mark]:
    """The marks of a file with a line `KIND RUN ATTEMPT` each. A line cut short by a kill is none."""
    found = [line.split(" ") for line in lines]
    return [Mark(words[0], words[1], int(words[2])) for words in found if len(words) == 3 and words[2].isdecimal()]
