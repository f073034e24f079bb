"""From what somebody asks for to a run that the store can take: checked against the definitions, nothing left open."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from hueyctl.errors import NotFound, UsageError
from hueyctl.model.command import filled
from hueyctl.model.definition import Job, Pipeline, Project, PythonBody, Schedule
from hueyctl.model.params import resolve, unpassable
from hueyctl.model.run import Message, NewRun, NewStep, Trigger
from hueyctl.model.wording import did_you_mean, quoted

if TYPE_CHECKING:
    from hueyctl.model.pipeline import PlacedStep

_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_FORM = b"........-....-....-....-............ "
_PLACES = [place for place, byte in enumerate(_FORM) if byte == ord(".")]
# What becomes of the bytes that say what a UUID is.
_VERSION = bytes(0x40 | byte & 0x0F for byte in range(256))
_VARIANT = bytes(0x80 | byte & 0x3F for byte in range(256))
_MOST_RETRIES = 2**31 - 1
KEY_MAX = 200


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job or pipeline to be enqueued; None means what the definition says, or at once."""

    job: str
    params: Mapping[str, object] = {}
    priority: int | None = None
    queue: str | None = None
    due_at: datetime | None = None
    retries: int | None = None
    timeout: timedelta | None = None
    expires: timedelta | None = None
    id: str | None = None


def defined(project: Project, name: str) -> Job | Pipeline:
    """The job or pipeline of that name; raises NotFound with the nearest name."""
    found = project.jobs.get(name) or project.pipelines.get(name)
    if found is None:
        if name in project.schedules:
            hint = f"`hueyctl schedule trigger {name}` starts what it starts"
            raise NotFound(f"{quoted(name)} is a schedule, and no job", hint=hint)
        message = f"there is no job {quoted(name)}{did_you_mean(name, [*project.jobs, *project.pipelines])}"
        raise NotFound(message, hint="`hueyctl jobs` lists what jobs.toml defines")
    return found


def defined_job(project: Project, name: str) -> Job:
    """The job of that name; raises NotFound with the nearest name."""
    found = defined(project, name)
    if isinstance(found, Pipeline):
        raise NotFound(f"{quoted(name)} is a pipeline, and no job", hint=f"`hueyctl enqueue {name}` runs its steps")
    return found


def new_run(project: Project, order: Order, id: str) -> NewRun:
    """The run that this order means, named `id` unless it names itself; a pipeline's has its steps.

    Raises:
        NotFound: there is no such job or pipeline.
        UsageError: a parameter or an option is wrong; the message names all wrong parameters.
    """
    if order.priority is not None and not -(2**63) <= order.priority < 2**63:
        raise UsageError("priority: expected an integer of 64 bits")
    if order.retries is not None and not 0 <= order.retries <= _MOST_RETRIES:
        raise UsageError(f"retries: expected an integer of 0 or more, got {order.retries}")
    if order.timeout is not None and order.timeout <= timedelta(0):
        raise UsageError("timeout: expected a duration of more than 0")
    if order.queue is not None and not _QUEUE.fullmatch(order.queue):
        raise UsageError(f'queue: expected letters, digits, "-", "_" and ".", got {quoted(order.queue)}')
    found = defined(project, order.job)
    id = id if order.id is None else _canonical(order.id)
    return _of_pipeline(project, found, order, id) if isinstance(found, Pipeline) else _of_job(found, order, id)


def run_of(
    project: Project, schedule: Schedule, slot: datetime | None, trigger: Trigger, due_at: datetime | None
) -> NewRun:
    """The run that a schedule starts for `slot`, or (by hand) for none.

    Raises:
        UsageError: the schedule's parameters don't fit its job or pipeline.
    """
    order = Order(
        job=schedule.target,
        params=schedule.params,
        priority=schedule.priority,
        queue=schedule.queue,
        due_at=due_at,
    )
    run = new_run(project, order, next(new_ids(1)))
    return msgspec.structs.replace(run, trigger=trigger, schedule=schedule.name, slot=slot)


def new_ids(count: int) -> Iterator[str]:
    """`count` random UUIDs of version 4, in ascending order: an index takes in a hundred thousand of them sooner where
    each goes beside the one before it."""
    random = bytearray(os.urandom(16 * count))
    random[6::16] = random[6::16].translate(_VERSION)
    random[8::16] = random[8::16].translate(_VARIANT)
    digits = random.hex().encode()
    # All of them at once, digit by digit: a fifth of what it takes to cut each into its five parts.
    text = bytearray(_FORM * count)
    for at, place in enumerate(_PLACES):
        text[place :: len(_FORM)] = digits[at::32]
    return iter(sorted(text.decode().split()))


def lock_key(job: Job, params: Mapping[str, object]) -> str | None:
    """What at most one run at a time holds, over all jobs: the job's `lock` with these parameters; None: nothing."""
    if job.lock is None:
        return None
    key = filled(job.lock, params)
    # A key is an index's, an event's and a line's of `inspect`; the parameters may be megabytes.
    return key if len(key) <= KEY_MAX else f"{key[:KEY_MAX]}…{_sha256(key.encode()).hex()}"


def unique_key(job: Job, params: Mapping[str, object]) -> bytes | None:
    """What at most one live run has (SHA-256): of the job, with its parameters where they count; None: any number."""
    match job.unique:
        case None:
            return None
        case "job":
            what: object = [job.name]
        case "params":
            what = [job.name, _canonical_value(dict(params))]
    return _sha256(msgspec.json.encode(what, order="deterministic"))


def secrets_of(definition: Job | Pipeline) -> tuple[str, ...]:
    """The names of a job's or pipeline's secret parameters."""
    return tuple([param.name for param in definition.params if param.secret]) if definition.params else ()


def _of_job(job: Job, order: Order, id: str) -> NewRun:
    params = resolve(job.params, order.params, what=job.name)
    if not isinstance(job.body, PythonBody) and (problem := unpassable(params)):
        raise UsageError(f"{job.name}: {problem}")
    expires = job.expires if order.expires is None else order.expires
    return NewRun(
        id=id,
        job=job.name,
        message=Message(
            params=params,
            secrets=secrets_of(job),
            retries=order.retries,
            timeout_s=None if order.timeout is None else order.timeout.total_seconds(),
        ),
        queue=order.queue or job.queue,
        priority=job.priority if order.priority is None else order.priority,
        due_at=order.due_at,
        expires_s=None if expires is None else expires.total_seconds(),
        given_id=order.id is not None,
        lock_key=lock_key(job, params),
        unique_key=unique_key(job, params),
    )


def _of_pipeline(project: Project, pipeline: Pipeline, order: Order, id: str) -> NewRun:
    """Queue and priority are those of every step, where given; when to start is a matter of the first steps."""
    from hueyctl.model.pipeline import laid_out

    for option in ("retries", "timeout"):
        if getattr(order, option) is not None:
            hint = f"set it at the jobs that are the steps of {pipeline.name}"
            raise UsageError(f"{option}: a pipeline has none of its own, each of its steps has", hint=hint)
    order = msgspec.structs.replace(order, params=resolve(pipeline.params, order.params, what=pipeline.name))
    placed = laid_out(pipeline.steps)
    return NewRun(
        id=id,
        job=pipeline.name,
        message=Message(params=dict(order.params), secrets=secrets_of(pipeline)),
        queue=order.queue or "default",
        priority=order.priority or 0,
        due_at=order.due_at,
        expires_s=None if order.expires is None else order.expires.total_seconds(),
        given_id=order.id is not None,
        steps=tuple(
            NewStep(_of_step(project, pipeline, each, order, step_id), each.after)
            for each, step_id in zip(placed, new_ids(len(placed)), strict=True)
        ),
    )


def _of_step(project: Project, pipeline: Pipeline, placed: PlacedStep, order: Order, id: str) -> NewRun:
    """The run of a step, where that of its pipeline is `order`. It has no unique key, for none of a pipeline run's
    steps can be another's."""
    from hueyctl.model.pipeline import step_params, taken

    step, first = placed.step, not placed.after
    own = Order(
        job=step.job,
        params=step_params(step, order.params),
        priority=order.priority,
        queue=order.queue,
        due_at=order.due_at if first else None,
        expires=order.expires if first else None,
    )
    try:
        run = _of_job(project.jobs[step.job], own, id)
    except UsageError as exc:
        raise UsageError(f"{pipeline.name}: step {exc.message}", hint=exc.hint) from exc
    # What is secret in the pipeline is secret in the step that takes it, whatever its job says.
    secret = set(secrets_of(pipeline))
    taking = [name for name, value in step.params.items() if taken(value) & secret]
    secrets = tuple(dict.fromkeys((*run.message.secrets, *taking)))
    return msgspec.structs.replace(run, unique_key=None, message=msgspec.structs.replace(run.message, secrets=secrets))


def _canonical(id: str) -> str:
    plain = id.strip().lower()
    if not _UUID.fullmatch(plain):
        raise UsageError(f"id: expected a UUID like 7c1e2f6a-90d4-4c5b-8f3e-2a1b0c9d8e7f, got {quoted(id)}")
    return plain


def _canonical_value(value: object) -> object:
    """The value with each number in one form: 1 and 1.0 are the same."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _canonical_value(item) for key, item in value.items()}
        case list() | tuple():
            return [_canonical_value(item) for item in value]
        case _:
            return value


def _sha256(data: bytes) -> bytes:
    import hashlib  # loads OpenSSL, for which every other `hueyctl enqueue` would wait

    return hashlib.sha256(data).digest()
