"""A run: its states, what is fixed when it is accepted, and the record that the store keeps of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

MESSAGE_VERSION = 1


class RunState(StrEnum):
    """Where a run is. A retry is `running → scheduled` (or `queued`); `failed` means all attempts are used up."""

    WAITING = "waiting"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    HELD = "held"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REVOKED = "revoked"
    EXPIRED = "expired"
    SKIPPED = "skipped"


TERMINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.REVOKED, RunState.EXPIRED, RunState.SKIPPED})
LIVE = frozenset(RunState) - TERMINAL

Trigger = Literal["manual", "schedule", "catch_up", "backfill", "hook"]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What travels from the enqueuer to the body, as JSON and never as code.

    `params` has the defaults filled in; `secrets` names those to be masked wherever they are shown; `retries` and
    `timeout_s` (seconds) are the enqueuer's overrides, None where the worker's definition decides.
    """

    v: int = MESSAGE_VERSION
    params: dict[str, Any] = {}
    secrets: tuple[str, ...] = ()
    retries: int | None = None
    timeout_s: float | None = None


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it is handed to the store. `due_at` None: at once. `expires_s` counts from when it is due.

    `unique_key` and `lock_key` are for limits; a run whose `given_id` is true was named by the caller (`--id`), and
    meeting one of the same id, job and parameters means that one. With `steps` it is a pipeline's run: `job` is the
    pipeline's name, and no worker ever claims it.
    """

    id: str
    job: str
    message: Message
    queue: str = "default"
    priority: int = 0
    due_at: datetime | None = None
    expires_s: float | None = None
    given_id: bool = False
    unique_key: bytes | None = None
    lock_key: str | None = None
    trigger: Trigger = "manual"
    schedule: str | None = None
    slot: datetime | None = None
    steps: tuple[NewStep, ...] = ()


class NewStep(msgspec.Struct, frozen=True):
    """A step of a new pipeline run: its own run, and the positions in `NewRun.steps` (all of them earlier) of the steps
    that it waits for and gets the results of, in that order. Without any it starts with the pipeline."""

    run: NewRun
    after: tuple[int, ...] = ()


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the store knows of a run. Times are aware UTC datetimes.

    `n` is the store's own number, in order of acceptance. `retries_left` is None until the first claim resolves it
    against the worker's definition. `revoking`: a revoke was asked of a running run, and takes effect at its end;
    `killing`: and its attempt is to be stopped. `gate`: what a queued run waits for before it can be claimed (the
    runs of its schedule, as `schedule:NAME`, or its lock, as `lock:KEY`). `lock_key`: at most one run of a key runs at
    a time. A step of a pipeline has the id of the pipeline's run and its `position` among the steps, from 0.
    `crash_limit` and `on_worker_lost` are the claiming worker's, kept so that a rescuer needs no definition.
    """

    n: int
    id: str
    job: str
    state: RunState
    queue: str
    priority: int
    message: Message
    attempt: int = 0
    retries_left: int | None = None
    losses: int = 0
    trigger: Trigger = "manual"
    schedule: str | None = None
    scheduled_at: datetime | None = None
    pipeline: str | None = None
    position: int | None = None
    worker: str | None = None
    token: str | None = None
    enqueued_at: datetime
    due_at: datetime
    expires_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    revoking: bool = False
    killing: bool = False
    crash_limit: int = 3
    on_worker_lost: Literal["retry", "fail"] = "retry"
    exit_code: int | None = None
    error: str | None = None
    reason: str | None = None
    result: bytes | None = None
    result_error: str | None = None
    gate: str | None = None
    lock_key: str | None = None

    @property
    def is_pipeline(self) -> bool:
        """Is it a pipeline's own run, which no worker claims?"""
        return self.pipeline == self.id
