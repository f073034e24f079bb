"""What the store's rows mean: rows to records and back.

Here is the border for text: what isn't valid UTF-8 (a lone surrogate, which sqlite3 refuses) is replaced by `?`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from hueyctl.model.event import Event
from hueyctl.model.run import Message, Run, RunState
from hueyctl.storage.store import Pause, Worker

Row = tuple[Any, ...]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
# A message that can't be decoded: no definition fits it, so that its run is held and not lost.
UNREADABLE: Final = Message(v=0)

RUN_COLUMNS: Final = (
    "n, id, job, state, queue, priority, message, attempt, retries_left, losses, trigger, schedule, slot, pipeline, "
    "worker, token, enqueued_at, due_at, expires_at, started_at, finished_at, revoking, killing, crash_limit, "
    "on_worker_lost, exit_code, error, reason, result, result_error, gate, lock_key, position"
)
# What an event needs of its run; see `log.Log.row`.
SUBJECT: Final = "n, id, queue, job, attempt, schedule, slot, pipeline"
EVENT_COLUMNS: Final = "seq, time, type, state, run, job, attempt, worker, schedule, slot, pipeline, by, data"
WORKER_COLUMNS: Final = (
    "id, host, pid, version, file, concurrency, jobs, queues, lease_s, started_at, beat, beat_at, running, request"
)

_STATES: Final = {state.value: state for state in RunState}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_message = msgspec.json.Decoder(Message).decode


def micros(at: datetime) -> int:
    """An aware time as microseconds since the epoch."""
    return (at - EPOCH) // MICROSECOND


def instant(at: int) -> datetime:
    """Microseconds since the epoch as an aware time in UTC."""
    return EPOCH + MICROSECOND * at


def maybe_micros(at: datetime | None) -> int | None:
    """`micros`, or None for none."""
    return None if at is None else (at - EPOCH) // MICROSECOND


def maybe_instant(at: int | None) -> datetime | None:
    """`instant`, or None for none."""
    return None if at is None else EPOCH + MICROSECOND * at


def utf8(text: str) -> str:
    """The text with what UTF-8 can't hold (lone surrogates) replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def to_json(value: Any) -> str:
    """The value as JSON, its text made valid."""
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        return _encode(_cleaned(msgspec.to_builtins(value))).decode()


def from_json(text: str) -> Any:
    """A JSON value."""
    return _decode(text)


def message_from(text: str) -> Message:
    """A stored message; `UNREADABLE` for one that isn't a message."""
    try:
        return _decode_message(text)
    except msgspec.DecodeError:
        return UNREADABLE


def run_from(row: Row) -> Run:
    """The run of a row of `RUN_COLUMNS`. Twice in each run's life: its conversions are written out."""
    (n, id, job, state, queue, priority, message, attempt, retries_left, losses, trigger, schedule, slot) = row[:13]
    (pipeline, worker, token, enqueued_at, due_at, expires_at, started_at, finished_at, revoking, killing) = row[13:23]
    (crash_limit, on_worker_lost, exit_code, error, reason, result, result_error, gate, lock_key, position) = row[23:]
    return Run(
        n=n,
        id=id,
        job=job,
        state=_STATES[state],
        queue=queue,
        priority=priority,
        message=message_from(message),
        attempt=attempt,
        retries_left=retries_left,
        losses=losses,
        trigger=trigger,
        schedule=schedule,
        scheduled_at=None if slot is None else EPOCH + MICROSECOND * slot,
        pipeline=pipeline,
        position=position,
        worker=worker,
        token=token,
        enqueued_at=EPOCH + MICROSECOND * enqueued_at,
        due_at=EPOCH + MICROSECOND * due_at,
        expires_at=None if expires_at is None else EPOCH + MICROSECOND * expires_at,
        started_at=None if started_at is None else EPOCH + MICROSECOND * started_at,
        finished_at=None if finished_at is None else EPOCH + MICROSECOND * finished_at,
        revoking=revoking == 1,
        killing=killing == 1,
        crash_limit=crash_limit,
        on_worker_lost=on_worker_lost,
        exit_code=exit_code,
        error=error,
        reason=reason,
        result=result,
        result_error=result_error,
        gate=gate,
        lock_key=lock_key,
    )


def event_from(row: Row) -> Event:
    """The event of a row of `EVENT_COLUMNS`."""
    return Event(
        seq=row[0],
        time=instant(row[1]),
        type=row[2],
        state=row[3],
        run=row[4],
        job=row[5],
        attempt=row[6],
        worker=row[7],
        schedule=row[8],
        slot=maybe_instant(row[9]),
        pipeline=row[10],
        by=row[11],
        data={} if row[12] is None else _decode(row[12]),
    )


def worker_from(row: Row) -> Worker:
    """The worker of a row of `WORKER_COLUMNS`."""
    return Worker(
        id=row[0],
        host=row[1],
        pid=row[2],
        version=row[3],
        file=row[4],
        concurrency=row[5],
        jobs=tuple(_decode(row[6])),
        queues=None if row[7] is None else tuple(_decode(row[7])),
        lease_s=row[8],
        started_at=instant(row[9]),
        beat=row[10],
        beat_at=instant(row[11]),
        running=row[12],
        request=row[13],
    )


def worker_row(worker: Worker) -> Row:
    """A row of `WORKER_COLUMNS`."""
    return (
        worker.id,
        worker.host,
        worker.pid,
        worker.version,
        worker.file,
        worker.concurrency,
        to_json(worker.jobs),
        None if worker.queues is None else to_json(worker.queues),
        worker.lease_s,
        micros(worker.started_at),
        worker.beat,
        micros(worker.beat_at),
        worker.running,
        worker.request,
    )


def pause_from(row: Row) -> Pause:
    """The pause of a row (kind, name, note, by, at)."""
    return Pause(kind=row[0], name=row[1], note=row[2], by=row[3], at=instant(row[4]))


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return utf8(value)
        case dict():
            return {_cleaned(key): _cleaned(item) for key, item in value.items()}
        case list() | tuple():
            return [_cleaned(item) for item in value]
        case _:
            return value
