"""The history checker finds what it is there to find: each false history here is rejected, and the true one is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from history import History, Limits, Mark, check, extra_executions, marks_from

# A run that failed once and then succeeded; one that was lost with its worker; one that was revoked before it began;
# one that was revoked while it ran; one that was held, failed, and was retried; one that nobody was told of; one that a
# schedule made, of which the next slot was skipped and the one after it missed; and a pipeline of two steps.
TOLD = """
    flaky enqueued queued - ; flaky executing running 1 w1 ; flaky error scheduled 1 w1 ; flaky retrying scheduled 1 w1
    lost scheduled scheduled - ; lost enqueued queued - ; lost executing running 1 w1
    never scheduled scheduled - ; never revoked revoked -
    flaky enqueued queued 1 ; flaky executing running 2 w2 ; flaky complete succeeded 2 w2
    lost lost queued 1 w1 ; lost executing running 2 w2 ; lost complete succeeded 2 w2 ; lost stale succeeded 2 w2
    killed enqueued queued - ; killed executing running 1 w2 ; killed revoke-requested running 1 w2
    killed canceled revoked 1 w2 ; killed revoked revoked 1 w2
    held enqueued queued - ; held held held - ; held released queued - ; held executing running 1 w2
    held error failed 1 w2 ; held failed failed 1 w2 ; held retried queued 1 ; held executing running 2 w2
    held released queued 2 w2 ; held executing running 3 w2 ; held complete succeeded 3 w2
    unsaid enqueued queued - ; unsaid expired expired -
    slot enqueued queued - ; slot executing running 1 w2 ; slot complete succeeded 1 w2
    @02:30:01 skipped - - ; @02:30:02 missed - -
    whole enqueued waiting - ; one enqueued queued - ; two enqueued waiting - ; one executing running 1 w2
    whole executing running - ; one complete succeeded 1 w2 ; two released queued - ; two executing running 1 w2
    two error failed 1 w2 ; two failed failed 1 w2 ; whole failed failed - ; whole retried running -
    two retried queued 1 ; two executing running 2 w2 ; two complete succeeded 2 w2 ; whole complete succeeded -
    """
MARKED = """start lost 1, start flaky 1, tick lost 1, end flaky 1, start flaky 2, end flaky 2, start lost 2, end lost 2,
    start killed 1, start held 1, end held 1, start held 3, end held 3,
    start slot 1, end slot 1, start one 1, end one 1, start two 1, end two 1, start two 2, end two 2"""
JOBS = {"flaky": "flaky", "held": "held", "one": "first", "two": "second", "whole": "pair"}
WHOLES = {"whole": "whole", "one": "whole", "two": "whole"}
DAY = "2026-03-01"
SLOTS = {"slot": f"{DAY}T02:30:00Z"}


def event(seq: int, text: str) -> dict[str, Any]:
    run, type, state, attempt, *worker = text.split()
    slot = f"{DAY}T{run[1:]}Z" if run.startswith("@") else SLOTS.get(run)
    return {
        "seq": seq,
        "time": f"{DAY}T02:30:03.5Z",
        "type": type,
        "state": None if state == "-" else state,
        "run": None if run.startswith("@") else run,
        "job": JOBS.get(run, "plain"),
        "attempt": None if attempt == "-" else int(attempt),
        "worker": worker[0] if worker else None,
        "schedule": "pulse" if slot else None,
        "slot": slot,
        "pipeline": WHOLES.get(run),
    }


def true_history() -> History:
    texts = [text for line in TOLD.strip().splitlines() for text in line.split(";")]
    events = [event(seq, text) for seq, text in enumerate(texts, 1)]
    last = {each["run"]: each for each in events if each["run"]}
    runs = [
        {"id": id, "scheduled_at": each["slot"]} | {key: each[key] for key in ("state", "attempt", "schedule")}
        for id, each in last.items()
    ]
    return History(
        accepted=["flaky", "lost", "never", "killed", "held", "whole"],
        marks=marks_from([text.strip() for text in MARKED.split(",")]),
        events=list(events),
        runs=list(runs),
        limits={"flaky": Limits(retries=1), "held": Limits(), "plain": Limits()},
        deaths={"w1": 1},
        concurrency=2,
        never_started=["never"],
        periods_ms={"pulse": 1000},
        watched_from=at("02:29:59.5"),
        watched_until=at("02:30:02.5"),
        after={"first": frozenset(), "second": frozenset({"first"})},
    )


def at(time: str) -> datetime:
    return datetime.fromisoformat(f"{DAY}T{time}Z")


def find(history: History, text: str) -> dict[str, Any]:
    """The event of that text."""
    wanted = event(0, text)
    [found] = [each for each in history.events if {**each, "seq": 0} == wanted]
    return found


def drop(text: str) -> Callable[[History], None]:
    return lambda history: history.events.remove(find(history, text))


def change(text: str, **facts: Any) -> Callable[[History], None]:
    return lambda history: find(history, text).update(facts)


def insert_after(text: str, *new: str) -> Callable[[History], None]:
    def insert(history: History) -> None:
        at = history.events.index(find(history, text)) + 1
        history.events[at:at] = [event(0, each) for each in new]
        history.events = [{**each, "seq": seq} for seq, each in enumerate(history.events, 1)]

    return insert


def end_as(run: str, **facts: Any) -> Callable[[History], None]:
    def end(history: History) -> None:
        [found] = [each for each in history.runs if each["id"] == run]
        found.update(facts)

    return end


def gone(run: str) -> Callable[[History], None]:
    def forget(history: History) -> None:
        history.runs = [each for each in history.runs if each["id"] != run]
        history.events = [each for each in history.events if each["run"] != run]
        history.marks = [each for each in history.marks if each.run != run]

    return forget


def gone_from_runs(run: str) -> Callable[[History], None]:
    return lambda history: limit(runs=[each for each in history.runs if each["id"] != run])(history)


def mark(at: int, text: str) -> Callable[[History], None]:
    return lambda history: history.marks.insert(at % (len(history.marks) + 1), marks_from([text])[0])


def unmark(text: str) -> Callable[[History], None]:
    return lambda history: history.marks.remove(marks_from([text])[0])


def limit(**facts: Any) -> Callable[[History], None]:
    return lambda history: vars(history).update(facts)


def both(*lies: Callable[[History], None]) -> Callable[[History], None]:
    def tell(history: History) -> None:
        for lie in lies:
            lie(history)

    return tell


FALSE: dict[str, tuple[str, Callable[[History], None]]] = {
    "an accepted run is gone": ("A: flaky was accepted and is not there", gone("flaky")),
    "an accepted run never ends": (
        "A: held was accepted and is queued",
        both(drop("held executing running 3 w2"), drop("held complete succeeded 3 w2"), end_as("held", state="queued")),
    ),
    "a revoked run comes to life": (
        "A: never was revoked, and is queued",
        change("never revoked revoked -", state="queued"),
    ),
    "a revoked run ran": ("B: never was revoked before it could start, and ran", mark(-1, "start never 1")),
    "an attempt has two outcomes": (
        "B: attempt 2 has two outcomes: complete and error",
        insert_after("flaky complete succeeded 2 w2", "flaky error failed 2 w2", "flaky failed failed 2 w2"),
    ),
    "an attempt has no outcome": ("B: lost: attempt 1 has no outcome", drop("lost lost queued 1 w1")),
    "an end is of an attempt that didn't run": (
        "B: attempt 1 ended while attempt 2 ran",
        change("flaky complete succeeded 2 w2", attempt=1),
    ),
    "an attempt is counted twice": ("B: attempt 1 follows attempt 1", change("lost executing running 2 w2", attempt=1)),
    "an attempt is left out": ("B: attempt 3 follows attempt 1", change("flaky executing running 2 w2", attempt=3)),
    "two attempts overlap": ("B: lost: attempt 1 still ran (tick) when 2 had begun", mark(-1, "tick lost 1")),
    "an attempt ran twice": ("B: flaky: attempt 2 began 2 times", mark(6, "start flaky 2")),
    "an attempt ran of which nobody knows": ("B: held: attempt 4 ran, and no event says so", mark(-1, "start held 4")),
    "a success never came to its end": ("B: flaky: attempt 2 is complete, and never", unmark("end flaky 2")),
    "a failure never began": (
        "B: held: attempt 1 failed, and never began",
        both(unmark("start held 1"), unmark("end held 1")),
    ),
    "what was given back unstarted ran": ("B: held: attempt 2 was given back unstarted", mark(-3, "start held 2")),
    "a slot has two runs": (
        "C: slot 2026-03-01T02:30:00Z of pulse has 2 runs",
        both(*(end_as(run, schedule="pulse", scheduled_at=SLOTS["slot"]) for run in ("slot", "unsaid"))),
    ),
    "a slot was fired twice, and one of its runs is gone": (
        "C: slot 2026-03-01 02:30:00+00:00 of pulse was decided 2 times: run unsaid, run slot",
        change("unsaid enqueued queued -", schedule="pulse", slot=SLOTS["slot"]),
    ),
    "a slot was fired and missed": (
        "C: slot 2026-03-01 02:30:00+00:00 of pulse was decided 2 times: run slot, missed",
        change("@02:30:02 missed - -", slot=SLOTS["slot"]),
    ),
    "a slot was forgotten": (
        "C: slot 2026-03-01 02:30:02+00:00 of pulse was neither fired nor recorded",
        drop("@02:30:02 missed - -"),
    ),
    "a slot was decided before its time": (
        "C: slot 2026-03-01 02:30:02+00:00 of pulse was decided at 2026-03-01T02:30:01.9Z",
        change("@02:30:02 missed - -", time=f"{DAY}T02:30:01.9Z"),
    ),
    "a slot lies beside its schedule": (
        "C: 2026-03-01 02:30:02.500000+00:00 is no slot of pulse",
        change("@02:30:02 missed - -", slot=f"{DAY}T02:30:02.5Z"),
    ),
    "the run of a slot never ends": (
        "A: slot was enqueued by schedule pulse and is running",
        both(drop("slot complete succeeded 1 w2"), end_as("slot", state="running")),
    ),
    "a run failed too often": ("D: it failed 1 times and goes on, with 0 retries", limit(limits={})),
    "a run crashed too often": (
        "D: it was lost 1 times and goes on, with a crash_limit of 1",
        limit(limits={"flaky": Limits(1), "plain": Limits(crash_limit=1)}),
    ),
    "a run starts again and again": (
        "D: attempt 5 since it was enqueued",
        insert_after(
            "lost executing running 2 w2",
            *(f"lost executing running {attempt} w2" for attempt in (3, 4, 5, 6)),
        ),
    ),
    "events out of order": ("E: event 1 comes after 1", change("flaky executing running 1 w1", seq=1)),
    "a state without its event": ("E: flaky is failed at attempt 2", end_as("flaky", state="failed")),
    "an attempt without its event": ("E: flaky is succeeded at attempt 3", end_as("flaky", attempt=3)),
    "an event that leads nowhere": (
        "E: no complete leads from running to queued",
        change("flaky complete succeeded 2 w2", state="queued"),
    ),
    "an event after the end": (
        "E: no executing leads from succeeded to running",
        insert_after("flaky complete succeeded 2 w2", "flaky executing running 3 w2"),
    ),
    "a retried success": (
        "E: no retried leads from succeeded",
        insert_after("flaky complete succeeded 2 w2", "flaky retried queued 2"),
    ),
    "half of an end": ("E: retrying was to come next", drop("flaky retrying scheduled 1 w1")),
    "half of the last end": ("E: killed: the events end before its revoked", drop("killed revoked revoked 1 w2")),
    "the other half": ("E: no such event was to come next", drop("held error failed 1 w2")),
    "a late end that counts": ("E: a stale end changed", change("lost stale succeeded 2 w2", state="failed")),
    "a run that is there twice": ("E: flaky is there 2 times", lambda history: history.runs.append(history.runs[0])),
    "a run that only its events know": ("E: unsaid has events", gone_from_runs("unsaid")),
    "a run without events": (
        "E: unsaid is expired",
        both(drop("unsaid enqueued queued -"), drop("unsaid expired expired -")),
    ),
    "a step began too early": (
        "A: two (second) began before first had succeeded",
        drop("one complete succeeded 1 w2"),
    ),
    "a step ran too early": ("A: two (second) ran before first had ended", mark(0, "start two 1")),
    "a step is missing": ("A: pipeline whole has the steps first", gone("two")),
    "a pipeline ends better than its steps": (
        "E: pipeline whole is succeeded, and its steps are failed, succeeded",
        both(*(change(f"two {end} 2 w2", state="failed") for end in ("executing running", "complete succeeded"))),
    ),
    "a pipeline goes where none can": (
        "E: no complete leads a pipeline from waiting to succeeded",
        both(*(change(f"whole {each} -", state="waiting") for each in ("executing running", "retried running"))),
    ),
    "more at a time than may be": (
        "B: door: attempt 1 of flaky began beside attempt 1 of lost; 1 may be under way",
        limit(limits_of={"lost": ("door", 1), "flaky": ("door", 1)}),
    ),
    "a loss without a cause": ("B: lost was lost 1 times by worker w1, which died 0 times", limit(deaths={})),
    "more losses than a death explains": ("B: worker w1 lost 1 attempts; its deaths explain 0", limit(concurrency=0)),
}


def test_the_true_history_has_nothing_false_in_it() -> None:
    assert check(true_history()) == []
    assert extra_executions(true_history()) == 1


def test_what_may_be_beside_each_other_or_comes_after_the_other_is_true() -> None:
    history = true_history()
    history.limits_of = {"lost": ("door", 2), "flaky": ("door", 2), "held": ("wall", 1), "slot": ("wall", 1)}
    assert check(history) == []


@pytest.mark.parametrize("name", FALSE)
def test_a_false_history_is_rejected(name: str) -> None:
    expected, lie = FALSE[name]
    history = copy.deepcopy(true_history())
    lie(history)
    found = check(history)
    assert any(expected in line for line in found), found


def test_a_pruned_run_may_be_gone_if_its_events_tell_of_its_end() -> None:
    history = true_history()
    history.runs = [run for run in history.runs if run["id"] != "flaky"]
    assert check(history)
    history.pruned = frozenset({"succeeded"})
    assert check(history) == []
    history.runs = [run for run in history.runs if run["id"] != "killed"]
    assert check(history) == [
        "A: killed was accepted and is not there",
        "E: killed has events, is revoked by them, and is not there",
    ]


def test_a_mark_that_was_cut_short_is_none() -> None:
    assert marks_from(["start a 1", "end a", "tick", "start b x", ""]) == [Mark("start", "a", 1)]
