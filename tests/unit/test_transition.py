"""What follows from the end of an attempt: examples for each row of the table, and the laws over all of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hueyctl.model.event import EventType
from hueyctl.model.outcome import (
    AnyOutcome,
    Exited,
    Lost,
    NotStarted,
    Raised,
    Returned,
    Signaled,
    Stopped,
    TimedOut,
    describe,
    exit_code,
)
from hueyctl.model.run import TERMINAL, Message, Run, RunState
from hueyctl.model.transition import Change, Done, Final, Release, Retry, Settlement, Verdict, lose, settle

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
END = START + timedelta(seconds=2)
LATER = END + timedelta(seconds=1)


def running(**given: Any) -> Run:
    facts: dict[str, Any] = {
        "n": 1,
        "id": "id",
        "job": "a",
        "state": RunState.RUNNING,
        "queue": "default",
        "priority": 0,
        "message": Message(),
        "attempt": 1,
        "retries_left": 2,
        "worker": "w1",
        "token": "1-ff",
        "enqueued_at": START,
        "due_at": START,
        "started_at": START,
    }
    return Run(**{**facts, **given})


def end(run: Run, verdict: Verdict, outcome: AnyOutcome) -> Change:
    settlement = Settlement(n=1, token="1-ff", verdict=verdict, outcome=outcome, ended_at=END)
    return settle(run, settlement, LATER)


def types(change: Change) -> list[str]:
    return [event.type.value for event in change.events]


def test_a_success_carries_its_result_and_how_long_it_took() -> None:
    change = end(running(), Done(b"42"), Exited(0))
    assert (change.state, change.result, change.exit_code) == (RunState.SUCCEEDED, b"42", 0)
    assert (change.finished_at, change.retries_left, change.losses) == (END, 2, 0)
    assert change.events[0].data == {"duration_s": 2.0}


def test_a_success_without_a_storable_result_says_why() -> None:
    change = end(running(), Done(None, "too large"), Returned(None, "too large"))
    assert change.result_error == change.events[0].data["result_error"] == "too large"


@pytest.mark.parametrize(
    ("outcome", "type", "code"),
    [
        (Exited(3), "error", 3),
        (Signaled(11), "error", 139),
        (TimedOut(5.0), "timeout", 124),
        (NotStarted(127, "no such program"), "error", 127),
        (Raised("ValueError: x"), "error", None),
        (Stopped("interrupted"), "interrupted", None),
        (Stopped("stale"), "canceled", None),
    ],
)
def test_each_bad_end_has_its_event_and_its_exit_code(outcome: AnyOutcome, type: str, code: int | None) -> None:
    change = end(running(), Final(), outcome)
    assert (change.state, types(change), change.exit_code) == (RunState.FAILED, [type, "failed"], code)
    assert change.reason == describe(outcome)


def test_a_retry_with_a_delay_is_scheduled_from_now_on() -> None:
    change = end(running(), Retry(timedelta(seconds=5), 1), Exited(1))
    assert (change.state, change.due_at, change.retries_left) == (RunState.SCHEDULED, LATER + timedelta(seconds=5), 1)
    assert types(change) == ["error", "retrying"]
    assert change.events[1].data == {"delay_s": 5.0, "retries_left": 1, "due_at": "2026-03-01T12:00:08Z"}


def test_a_retry_without_a_delay_is_queued() -> None:
    assert end(running(), Retry(timedelta(0), 0), Exited(1)).state is RunState.QUEUED


def test_an_unstarted_release_keeps_its_expiry_and_a_started_one_does_not() -> None:
    run = running(expires_at=LATER)
    assert end(run, Release(started=False), Stopped("interrupted")).expires_at == LATER
    assert end(run, Release(started=True), Stopped("interrupted")).expires_at is None


def test_on_worker_lost_fail_is_for_what_has_started() -> None:
    run = running(on_worker_lost="fail")
    assert end(run, Release(started=True), Stopped("interrupted")).state is RunState.FAILED
    assert end(run, Release(started=False), Stopped("interrupted")).state is RunState.QUEUED
    assert lose(run, "killed", LATER).state is RunState.FAILED


def test_losses_count_up_to_the_crash_limit() -> None:
    assert lose(running(losses=1, crash_limit=3), "killed", LATER).state is RunState.QUEUED
    last = lose(running(losses=2, crash_limit=3), "killed", LATER)
    assert (last.state, last.losses) == (RunState.FAILED, 3)
    assert "crash_limit" in (last.reason or "")
    assert types(last) == ["lost", "failed"]


def test_an_attempt_that_its_own_worker_lost_counts_as_a_loss_whatever_the_verdict() -> None:
    for verdict in (Final(), Retry(timedelta(0), 1), Release()):
        change = end(running(), verdict, Lost("the guard died"))
        assert (change.state, change.losses, change.retries_left) == (RunState.QUEUED, 1, 2)


def test_a_clock_that_was_set_back_gives_no_duration() -> None:
    change = end(running(started_at=LATER), Done(), Exited(0))
    assert change.events[0].data["duration_s"] is None


outcomes = st.one_of(
    st.builds(Exited, st.integers(0, 255)),
    st.builds(Signaled, st.integers(1, 64), st.booleans()),
    st.builds(TimedOut, st.floats(0.1, 1e6)),
    st.builds(NotStarted, st.sampled_from([126, 127]), st.text(max_size=9)),
    st.builds(Raised, st.text(max_size=9)),
    st.builds(Stopped, st.sampled_from(["revoked", "interrupted", "stale"])),
    st.builds(Lost, st.text(max_size=9)),
)
verdicts = st.one_of(
    st.builds(Done, st.none() | st.binary(max_size=3)),
    st.builds(Retry, st.timedeltas(timedelta(0), timedelta(days=1)), st.integers(0, 5)),
    st.builds(Final),
    st.builds(Release, st.booleans()),
)
runs = st.builds(
    running,
    retries_left=st.none() | st.integers(0, 5),
    losses=st.integers(0, 5),
    crash_limit=st.integers(1, 5),
    on_worker_lost=st.sampled_from(["retry", "fail"]),
    revoking=st.booleans(),
    expires_at=st.none() | st.just(LATER),
)


@given(runs, verdicts, outcomes)
def test_every_end_has_one_state_that_its_last_event_tells(run: Run, verdict: Verdict, outcome: AnyOutcome) -> None:
    change = end(run, verdict, outcome)
    assert change.state is not RunState.RUNNING
    assert {event.state for event in change.events} == {change.state}
    assert (change.finished_at is not None) == (change.state in TERMINAL)
    assert change.exit_code in {None, 0, exit_code(outcome)}


@given(runs, verdicts, outcomes)
def test_a_revoked_run_never_starts_again_and_a_success_stays_one(
    run: Run, verdict: Verdict, outcome: AnyOutcome
) -> None:
    change = end(run, verdict, outcome)
    if isinstance(verdict, Done) and not isinstance(outcome, Lost):
        assert change.state is RunState.SUCCEEDED
    elif run.revoking:
        assert change.state is RunState.REVOKED
        assert change.events[-1].type is EventType.REVOKED
    else:
        assert change.state is not RunState.REVOKED


@given(runs, verdicts, outcomes)
def test_losses_only_grow_by_a_loss_and_retries_only_change_by_a_retry(
    run: Run, verdict: Verdict, outcome: AnyOutcome
) -> None:
    change = end(run, verdict, outcome)
    assert change.losses == run.losses + isinstance(outcome, Lost)
    if change.retries_left != run.retries_left:
        assert isinstance(verdict, Retry)
        assert change.retries_left == verdict.retries_left


@given(runs, st.text(max_size=9))
def test_a_run_is_lost_at_most_crash_limit_times(run: Run, cause: str) -> None:
    losses = 0
    state = RunState.QUEUED
    while state is RunState.QUEUED:
        change = lose(running(losses=losses, crash_limit=run.crash_limit), cause, LATER)
        losses, state = change.losses, change.state
    assert losses == run.crash_limit
