"""The state machine of a run: what follows from the end of an attempt. Pure; the store applies it in a transaction.

Promises: an attempt that succeeds stays succeeded even if a revoke was asked for, and every other end of it is then
`revoked`; errors and timeouts use up retries, losses count up to `crash_limit`, and a release touches neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from hueyctl.model.event import EventDraft, EventType
from hueyctl.model.outcome import AnyOutcome, Lost, Raised, Stopped, TimedOut, describe, exit_code
from hueyctl.model.run import Run, RunState


class Done(msgspec.Struct, frozen=True):
    """The attempt succeeded. `result` are bytes (None: no result, or none that could be kept: `result_error`)."""

    result: bytes | None = None
    result_error: str | None = None


class Retry(msgspec.Struct, frozen=True):
    """The attempt failed and runs again after `delay`, with `retries_left` more behind it."""

    delay: timedelta
    retries_left: int


class Final(msgspec.Struct, frozen=True):
    """The attempt failed, and no other follows."""


class Release(msgspec.Struct, frozen=True):
    """The attempt is given back unfinished: its worker shuts down, or no thread took it (`started` false)."""

    started: bool = True


Verdict = Done | Retry | Final | Release


class Printed(msgspec.Struct, frozen=True):
    """The ends of what an attempt has printed, for those who look from another machine than the one it ran on."""

    stdout: bytes
    stderr: bytes


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """How the attempt claimed under `token` ended; given exactly once per claim.

    `claimed` is the run as the claim gave it: a store that finds its token in force, and no revoke, needn't read it.
    `printed` is for a store that several machines use. `remarks`: what is to be said of the attempt besides its
    outcome, sentences by the names in `hueyctl.model.event.REMARKS`.
    """

    n: int
    token: str
    verdict: Verdict
    outcome: AnyOutcome
    ended_at: datetime
    claimed: Run | None = None
    printed: Printed | None = None
    remarks: Mapping[str, str] = {}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a transition makes of a run, with the events that record it, in order.

    `expires_at` bounds the first start alone, and is kept only by a run that was given back unstarted.
    """

    state: RunState
    retries_left: int | None
    losses: int
    due_at: datetime
    expires_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    error: str | None = None
    reason: str | None = None
    result: bytes | None = None
    result_error: str | None = None
    events: tuple[EventDraft, ...]


def settle(run: Run, settlement: Settlement, now: datetime) -> Change:
    """The end of an attempt, by the verdict and the run's own flags."""
    outcome = settlement.outcome
    if isinstance(outcome, Lost):  # its worker outlived what ran it, and says so itself
        return lose(run, outcome.cause, settlement.ended_at)
    match settlement.verdict:
        case Done() as done:
            return _succeeded(run, settlement, done)
        case Release(started):
            return _released(run, outcome, started, now)
        case Retry(delay, retries_left):
            first = (_type_of(outcome), _facts(run, settlement))
            if run.revoking:
                return _ended_badly(run, RunState.REVOKED, outcome, settlement.ended_at, first)
            due_at = now + delay
            state = RunState.SCHEDULED if delay > timedelta(0) else RunState.QUEUED
            more = {"delay_s": delay.total_seconds(), "retries_left": retries_left, "due_at": _iso(due_at)}
            return Change(
                state=state,
                retries_left=retries_left,
                losses=run.losses,
                due_at=due_at,
                exit_code=exit_code(outcome),
                error=_error(outcome),
                reason=describe(outcome),
                events=(EventDraft(first[0], state, first[1]), EventDraft(EventType.RETRYING, state, more)),
            )
        case Final():
            first = (_type_of(outcome), _facts(run, settlement))
            state = RunState.REVOKED if run.revoking else RunState.FAILED
            return _ended_badly(run, state, outcome, settlement.ended_at, first)


def _succeeded(run: Run, settlement: Settlement, done: Done) -> Change:
    data: dict[str, Any] = {"duration_s": _duration(run, settlement.ended_at)}
    if done.result_error:
        data["result_error"] = done.result_error
    data.update(settlement.remarks)
    return Change(
        state=RunState.SUCCEEDED,
        retries_left=run.retries_left,
        losses=run.losses,
        due_at=run.due_at,
        finished_at=settlement.ended_at,
        exit_code=exit_code(settlement.outcome),
        result=done.result,
        result_error=done.result_error,
        events=(EventDraft(EventType.COMPLETE, RunState.SUCCEEDED, data),),
    )


def lose(run: Run, cause: str, now: datetime) -> Change:
    """The end of an attempt that nobody saw: its worker died. `cause` says how that is known."""
    losses = run.losses + 1
    lost = Lost(cause)
    data: dict[str, Any] = {"cause": cause, "losses": losses, "worker": run.worker}
    if run.revoking:
        return _ended_badly(run, RunState.REVOKED, lost, now, (EventType.LOST, data), losses=losses)
    if run.on_worker_lost == "fail":
        return _ended_badly(run, RunState.FAILED, lost, now, (EventType.LOST, data), losses=losses)
    if losses >= run.crash_limit:
        reason = f"lost its worker {losses} times (crash_limit): {cause}"
        return _ended_badly(run, RunState.FAILED, lost, now, (EventType.LOST, data), losses=losses, reason=reason)
    return Change(
        state=RunState.QUEUED,
        retries_left=run.retries_left,
        losses=losses,
        due_at=run.due_at,
        reason=describe(lost),
        events=(EventDraft(EventType.LOST, RunState.QUEUED, data),),
    )


def _released(run: Run, outcome: AnyOutcome, started: bool, now: datetime) -> Change:
    event = EventType.INTERRUPTED if started else EventType.RELEASED
    data: dict[str, Any] = {"reason": describe(outcome)}
    if run.revoking:
        return _ended_badly(run, RunState.REVOKED, outcome, now, (event, data))
    if started and run.on_worker_lost == "fail":
        return _ended_badly(run, RunState.FAILED, outcome, now, (event, data))
    return Change(
        state=RunState.QUEUED,
        retries_left=run.retries_left,
        losses=run.losses,
        due_at=run.due_at,
        expires_at=None if started else run.expires_at,
        reason=describe(outcome),
        events=(EventDraft(event, RunState.QUEUED, data),),
    )


def _ended(
    run: Run,
    state: RunState,
    at: datetime,
    events: list[tuple[EventType, dict[str, Any]]],
    *,
    losses: int | None = None,
    **facts: Any,
) -> Change:
    return Change(
        state=state,
        retries_left=run.retries_left,
        losses=run.losses if losses is None else losses,
        due_at=run.due_at,
        finished_at=at,
        events=tuple(EventDraft(kind, state, data) for kind, data in events),
        **facts,
    )


def _ended_badly(
    run: Run,
    state: RunState,
    outcome: AnyOutcome,
    at: datetime,
    first: tuple[EventType, dict[str, Any]],
    *,
    losses: int | None = None,
    reason: str | None = None,
) -> Change:
    reason = reason or describe(outcome)
    last = EventType.REVOKED if state is RunState.REVOKED else EventType.FAILED
    return _ended(
        run,
        state,
        at,
        [first, (last, {"reason": reason})],
        losses=losses,
        exit_code=exit_code(outcome),
        error=_error(outcome),
        reason=reason,
    )


def _type_of(outcome: AnyOutcome) -> EventType:
    match outcome:
        case TimedOut():
            return EventType.TIMEOUT
        case Stopped("interrupted"):
            return EventType.INTERRUPTED
        case Stopped():
            return EventType.CANCELED
        case Lost():
            return EventType.LOST
        case _:
            return EventType.ERROR


def _facts(run: Run, settlement: Settlement) -> dict[str, Any]:
    outcome = settlement.outcome
    facts: dict[str, Any] = {"reason": describe(outcome), "duration_s": _duration(run, settlement.ended_at)}
    code = exit_code(outcome)
    if code is not None:
        facts["exit_code"] = code
    return {**facts, **settlement.remarks}


def _error(outcome: AnyOutcome) -> str | None:
    return outcome.error if isinstance(outcome, Raised) else None


def _duration(run: Run, ended_at: datetime) -> float | None:
    # Wall clocks jump: a negative duration would be a lie, none is the truth.
    if run.started_at is None or ended_at < run.started_at:
        return None
    return round((ended_at - run.started_at).total_seconds(), 6)


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
