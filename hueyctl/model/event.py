"""The event log's vocabulary: Huey's signals and hueyctl's own, and the record that carries one."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from hueyctl.model.run import RunState


class EventType(StrEnum):
    """What happened. The first block are Huey's signals under Huey's names, the second are hueyctl's."""

    ENQUEUED = "enqueued"
    SCHEDULED = "scheduled"
    EXECUTING = "executing"
    COMPLETE = "complete"
    ERROR = "error"
    RETRYING = "retrying"
    REVOKED = "revoked"
    CANCELED = "canceled"
    EXPIRED = "expired"
    LOCKED = "locked"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    RATE_LIMITED = "rate-limited"

    LOST = "lost"
    FAILED = "failed"
    HELD = "held"
    RELEASED = "released"
    SKIPPED = "skipped"
    MISSED = "missed"
    STALE = "stale"
    REVOKE_REQUESTED = "revoke-requested"
    RETRIED = "retried"
    HOOK = "hook"
    PAUSED = "paused"
    RESUMED = "resumed"
    RELOADED = "reloaded"
    BACKUP = "backup"
    WORKER_ONLINE = "worker-online"
    WORKER_OFFLINE = "worker-offline"


REMARKS = ("output_error", "left_running")
"""What an event of an attempt's end may say besides the outcome, a sentence each: that not all of its output could be
kept, and why; what it had started and left running, and was killed."""


class EventDraft(msgspec.Struct, frozen=True):
    """An event of a run before the store gives it its number; `state` is the run's after it."""

    type: EventType
    state: RunState | None
    data: dict[str, Any] = {}


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the event log. `seq` only grows; readers must accept types they don't know."""

    seq: int
    time: datetime
    type: str
    state: str | None
    run: str | None
    job: str | None
    attempt: int | None
    worker: str | None
    schedule: str | None
    slot: datetime | None
    pipeline: str | None
    by: str | None
    data: dict[str, Any]
