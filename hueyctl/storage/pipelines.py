"""Pipelines in the store: all runs of one are there from its start, and the end of a step decides what becomes of those
that wait for it, in the same transaction.

The run of a pipeline is a row that nobody claims: it waits until a step is claimed, is running until none is left, and
ends as its steps did at worst. A step waits until all that it waits for have succeeded. An edge says that one run waits
for another; those of the pipeline's own run say which steps are the last, whose results are its result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from hueyctl.model.event import EventType
from hueyctl.model.handover import Input
from hueyctl.model.run import TERMINAL, NewRun, Run, RunState
from hueyctl.storage.database import Database
from hueyctl.storage.log import Log
from hueyctl.storage.rows import RUN_COLUMNS, Row, instant, run_from
from hueyctl.storage.store import StepRun

ADD_EDGE: Final = "INSERT INTO edges (child, parent, position) VALUES (?, ?, ?)"

BY_ID: Final = f"SELECT {RUN_COLUMNS} FROM runs WHERE id = ?"

# In the order of the steps; `position` is null for the pipeline's own run.
_OF_PIPELINE: Final = "pipeline = ? AND pipeline IS NOT NULL AND position >= 0"
STEPS: Final = f"SELECT {RUN_COLUMNS} FROM runs WHERE {_OF_PIPELINE} ORDER BY position"
AFTER: Final = """
SELECT child.position, parent.position FROM runs AS child JOIN edges ON edges.child = child.n
JOIN runs AS parent ON parent.n = edges.parent
WHERE child.pipeline = ? AND child.pipeline IS NOT NULL AND child.position >= 0 ORDER BY child.position, edges.position
"""
LIVE: Final = f"""
SELECT {RUN_COLUMNS} FROM runs INDEXED BY runs_going_on WHERE {_OF_PIPELINE} AND finished_at IS NULL
"""
INPUTS: Final = """
SELECT runs.position, runs.job, runs.result, runs.result_error FROM edges JOIN runs ON runs.n = edges.parent
WHERE edges.child = ? ORDER BY edges.position
"""

# Nothing is left to wait for. From behind: where many run side by side, the last of them mostly end last.
_MAY_START: Final = """
state = 'waiting' AND position IS NOT NULL AND (
    SELECT 1 FROM edges JOIN runs AS before ON before.n = edges.parent
    WHERE edges.child = runs.n AND before.state <> 'succeeded' ORDER BY edges.parent DESC LIMIT 1
) IS NULL
"""
# Of those that wait for one run, and of a whole pipeline, unless it waits itself for others of its schedule.
STARTING: Final = f"""
SELECT {RUN_COLUMNS} FROM runs WHERE n IN (SELECT child FROM edges WHERE parent = ?) AND {_MAY_START} ORDER BY n
"""
BEGINNING: Final = f"{LIVE} AND {_MAY_START} AND (SELECT gate FROM runs WHERE id = ?1) IS NULL ORDER BY n"

START: Final = "UPDATE runs SET state = 'queued', due_at = ?1, expires_at = ?1 + expires_us WHERE n = ?2"
NOT_HANDED_ON: Final = f"{INPUTS.replace('ORDER', 'AND runs.result_error IS NOT NULL ORDER')} LIMIT 1"
FAIL: Final = "UPDATE runs SET state = 'failed', finished_at = ?, reason = ? WHERE n = ?"

# What was skipped or revoked before has skipped those behind it then.
SKIP: Final = f"""
WITH RECURSIVE later (n) AS (
    SELECT runs.n FROM edges JOIN runs ON runs.n = edges.child
    WHERE edges.parent = ?1 AND runs.state = 'waiting' AND runs.position IS NOT NULL
    UNION
    SELECT runs.n FROM later JOIN edges ON edges.parent = later.n JOIN runs ON runs.n = edges.child
    WHERE runs.state = 'waiting' AND runs.position IS NOT NULL
)
UPDATE runs SET state = 'skipped', finished_at = ?2, reason = ?3 WHERE n IN (SELECT n FROM later)
RETURNING {RUN_COLUMNS}
"""

BAD: Final = TERMINAL - {RunState.SUCCEEDED}

# What a pipeline ends as: the first of these that a step has ended in.
WORST_FIRST: Final = (RunState.FAILED, RunState.EXPIRED, RunState.REVOKED, RunState.SKIPPED, RunState.SUCCEEDED)
ENDS: Final = f"SELECT state, position, job, reason FROM runs WHERE {_OF_PIPELINE} ORDER BY position"
END: Final = "UPDATE runs SET state = ?, finished_at = ?, reason = ? WHERE n = ?"
END_EVENTS: Final = {
    RunState.SUCCEEDED: EventType.COMPLETE,
    RunState.FAILED: EventType.FAILED,
    RunState.EXPIRED: EventType.EXPIRED,
    RunState.REVOKED: EventType.REVOKED,
    RunState.SKIPPED: EventType.SKIPPED,
}

BEGIN: Final = "UPDATE runs SET state = 'running', started_at = ? WHERE n = ?"


def edges_of(new: NewRun, n: int) -> list[Row]:
    """The edges of a new pipeline whose run has number `n`, and whose steps have those after it."""
    waited_for = {position for step in new.steps for position in step.after}
    last = [position for position in range(len(new.steps)) if position not in waited_for]
    edges = [(n, n + 1 + parent, index) for index, parent in enumerate(last)]
    for position, step in enumerate(new.steps):
        edges += [(n + 1 + position, n + 1 + parent, index) for index, parent in enumerate(dict.fromkeys(step.after))]
    return edges


def begun(database: Database, pipeline: str, log: Log) -> Run:
    """A step of this pipeline has been claimed: it is running. Returns its run."""
    whole = _run(database, pipeline)
    if whole.state is not RunState.WAITING:
        return whole
    database.run(BEGIN, log.time, whole.n)
    log.run(whole, EventType.EXECUTING, RunState.RUNNING)
    return msgspec.structs.replace(whole, state=RunState.RUNNING, started_at=instant(log.time))


def inputs(database: Database, run: Run) -> tuple[Input, ...]:
    """`Store.inputs`."""
    return tuple(
        Input(position=position, job=job, result=result, result_error=result_error)
        for position, job, result, result_error in database.all(INPUTS, run.n)
    )


def steps(database: Database, pipeline: str) -> list[StepRun]:
    """`Store.steps`."""
    with database.snapshot():
        return _steps(database, pipeline)


def live_steps(database: Database, pipeline: str) -> list[Run]:
    """The steps of a pipeline that have not ended, in their order."""
    return [run_from(row) for row in database.all(f"{LIVE} ORDER BY position", pipeline)]


def go_on(database: Database, step: Run, log: Log) -> list[Run]:
    """This step has ended: let start, or skip, what waited for it. Returns what has ended by it, at last the pipeline's
    own run if nothing of it is left."""
    if step.pipeline is None or step.is_pipeline:
        return []
    if step.state is RunState.SUCCEEDED:
        over = _let_start(database, database.all(STARTING, step.n), log)
    else:
        over = _skip_after(database, step, log)
    return over + _end(database, step.pipeline, log)


def brought_back(database: Database, run: Run) -> list[Run]:
    """What a retry lets go on, in the order of acceptance: an ended step with those before it that ended badly, or all
    of a pipeline that ended badly; what was skipped behind them and has nothing else in its way; and the pipeline's own
    run, if it had ended.

    What stays skipped gets as its reason what is in its way now.
    """
    assert run.pipeline is not None, "it is a step's or a pipeline's"
    steps = _steps(database, run.pipeline)
    back = _asked_back(run, steps)
    for position, (step, after) in enumerate((each.run, each.after) for each in steps):
        if position not in back and step.state is RunState.SKIPPED:
            in_the_way = [steps[each].run for each in after if steps[each].run.state in BAD and each not in back]
            if not in_the_way:
                back.add(position)
                continue
            reason = _why(in_the_way[0])
            database.run("UPDATE runs SET reason = ? WHERE n = ?", reason, step.n)
            steps[position] = StepRun(msgspec.structs.replace(step, reason=reason), after)
    whole = _run(database, run.pipeline)
    return [whole] * (whole.state in TERMINAL) + [steps[position].run for position in sorted(back)]


def begin(database: Database, pipeline: str, log: Log) -> list[Run]:
    """Let start all steps of a pipeline that wait for nothing any more. Returns what has ended by it, as `go_on`."""
    return _let_start(database, database.all(BEGINNING, pipeline), log) + _end(database, pipeline, log)


def told(position: int, job: str, state: RunState, reason: str | None) -> str:
    """How a step ended, as the reason of what follows from it."""
    how = {RunState.FAILED: f"failed: {reason}", RunState.EXPIRED: "expired", RunState.REVOKED: "was revoked"}
    return f"step {position + 1} ({job}) {how.get(state, state.value)}"


def _steps(database: Database, pipeline: str) -> list[StepRun]:
    after: dict[int, list[int]] = {}
    for child, parent in database.all(AFTER, pipeline):
        after.setdefault(child, []).append(parent)
    runs = [run_from(row) for row in database.all(STEPS, pipeline)]
    return [StepRun(run, tuple(after.get(position, ()))) for position, run in enumerate(runs)]


def _asked_back(run: Run, steps: Sequence[StepRun]) -> set[int]:
    """The positions of those that a retry of `run` is meant for."""
    if run.position is None:
        return {at for at, step in enumerate(steps) if step.run.state in BAD - {RunState.SKIPPED}}
    asked, found = set[int](), [run.position]
    while found:
        position = found.pop()
        if position not in asked and steps[position].run.state in BAD:
            asked.add(position)
            found += steps[position].after
    return asked


def _why(step: Run) -> str | None:
    """Why what depends on this step is skipped."""
    assert step.position is not None, "it is a step"
    return step.reason if step.state is RunState.SKIPPED else told(step.position, step.job, step.state, step.reason)


def _let_start(database: Database, rows: Iterable[Row], log: Log) -> list[Run]:
    over: list[Run] = []
    for step in map(run_from, rows):
        lacking = database.one(NOT_HANDED_ON, step.n)
        if lacking is None:
            database.run(START, log.time, step.n)
            log.move(step.queue, step.job, RunState.WAITING, RunState.QUEUED)
            log.run(step, EventType.RELEASED, RunState.QUEUED)
            log.opened = True
        else:
            position, job, _, result_error = lacking
            reason = f"the result of step {position + 1} ({job}) can't be handed on: {result_error}"
            database.run(FAIL, log.time, reason, step.n)
            failed = _ended(step, RunState.FAILED, reason, log)
            over += [failed, *_skip_after(database, failed, log)]
    return over


def _skip_after(database: Database, step: Run, log: Log) -> list[Run]:
    assert step.position is not None, "it is a step"
    reason = told(step.position, step.job, step.state, step.reason)
    skipped = map(run_from, sorted(database.all(SKIP, step.n, log.time, reason)))
    return [_ended(each, RunState.SKIPPED, reason, log) for each in skipped]


def _ended(step: Run, state: RunState, reason: str, log: Log) -> Run:
    """The records of a waiting step's end."""
    over = msgspec.structs.replace(step, state=state, finished_at=instant(log.time), reason=reason)
    log.move(step.queue, step.job, RunState.WAITING, state)
    log.run(over, EventType(state.value), state, {"reason": reason})
    return over


def _end(database: Database, pipeline: str, log: Log) -> list[Run]:
    """End the pipeline's run if all its steps have ended."""
    if database.one(f"{LIVE} LIMIT 1", pipeline):
        return []
    whole = _run(database, pipeline)
    if whole.state in TERMINAL:
        return []  # of several that ended in this transaction, another one was seen as the last
    state, reason = _worst(database.all(ENDS, pipeline))
    database.run(END, state.value, log.time, reason, whole.n)
    over = msgspec.structs.replace(whole, state=state, finished_at=instant(log.time), reason=reason)
    log.run(over, END_EVENTS[state], state, {"reason": reason} if reason else None)
    return [over]


def _worst(ends: Sequence[Row]) -> tuple[RunState, str | None]:
    state, position, job, reason = min(ends, key=lambda end: WORST_FIRST.index(RunState(end[0])))
    state = RunState(state)
    return state, None if state is RunState.SUCCEEDED else told(position, job, state, reason)


def _run(database: Database, pipeline: str) -> Run:
    row = database.one(BY_ID, pipeline)
    assert row is not None, "it is there as long as its steps are"
    return run_from(row)
