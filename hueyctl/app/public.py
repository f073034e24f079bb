"""The public form of runs and events: what `--json` and the Python API show, with secrets masked.

The names and their order are a promise (schema 1); keys are only ever added.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from hueyctl.model import params
from hueyctl.model.definition import Job, PythonBody
from hueyctl.model.event import Event
from hueyctl.model.handover import as_value
from hueyctl.model.mask import Mask
from hueyctl.model.run import TERMINAL, Run, RunState

if TYPE_CHECKING:  # what renders answers needs no store
    from hueyctl.app.session import Session

SCHEMA = 1


class PublicRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as users see it. Times are aware UTC datetimes; what is absent is None.

    `retries_left` is, before the first attempt, what the enqueuer or the definition gives. `result` is the JSON value
    that a Python job returned or a `result = "json"` job printed, otherwise the text of a command's stdout.
    """

    id: str
    job: str
    state: RunState
    priority: int
    queue: str
    attempt: int
    retries_left: int | None
    losses: int
    params: dict[str, Any]
    result: Any
    result_error: str | None
    exit_code: int | None
    error: str | None
    reason: str | None
    trigger: str
    schedule: str | None
    scheduled_at: datetime | None
    pipeline: str | None
    worker: str | None
    enqueued_at: datetime
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_pipeline(self) -> bool:
        """It is a pipeline's own run; its steps have runs of theirs, with this one's id as `pipeline`."""
        return self.pipeline == self.id

    @property
    def ended(self) -> bool:
        """It is in a terminal state: nothing happens to it unless it is retried."""
        return self.state in TERMINAL

    @property
    def succeeded(self) -> bool:
        """It ended, and well."""
        return self.state is RunState.SUCCEEDED


def public(run: Run, job: Job | None, mask: Mask) -> PublicRun:
    """A run in its public form; `job` is its definition, where there is one, and `mask` hides secrets in its texts."""
    message = run.message
    retries_left = run.retries_left
    if retries_left is None:
        retries_left = message.retries if message.retries is not None else (job.retries if job else None)
    return PublicRun(
        **{name: getattr(run, name) for name in _AS_STORED},
        retries_left=retries_left,
        params=params.masked(message.params, message.secrets),
        result=mask.value(result_value(run, job)),
        result_error=mask.optional(run.result_error),
        error=mask.optional(run.error),
        reason=mask.optional(run.reason),
    )


_MADE = ("retries_left", "params", "result", "result_error", "error", "reason")
_AS_STORED = tuple(name for name in PublicRun.__struct_fields__ if name not in _MADE)


def public_of(session: Session, run: Run) -> PublicRun:
    """A run in its public form, by the definitions of this session. The result of a pipeline is that of its last step;
    where several end it, a list in the order of the steps."""
    mask = session.mask(run)
    shown = public(run, session.job(run.job), mask)
    if not run.is_pipeline or run.state is not RunState.SUCCEEDED:
        return shown
    inputs = session.reader().inputs(run)
    lacking = [f"step {each.position + 1} ({each.job}): {each.result_error}" for each in inputs if each.result_error]
    return msgspec.structs.replace(
        shown,
        result=mask.value(as_value(inputs, session.project.jobs)),
        result_error=mask.text(lacking[0]) if lacking else None,
    )


def public_run(run: Run, job: Job | None) -> dict[str, Any]:
    """A run as JSON-ready values: DESIGN's keys in their order, absent ones null, times RFC 3339 with `Z`."""
    found: dict[str, Any] = msgspec.to_builtins(public(run, job, Mask.of(run)))
    return found


def public_event(event: Event) -> dict[str, Any]:
    """An event as JSON-ready values, every key there. Its data is masked already, by who read it."""
    found: dict[str, Any] = {"schema": SCHEMA, **msgspec.to_builtins(event)}
    return found


def result_value(run: Run, job: Job | None) -> Any:
    """The result as a value, unmasked: parsed where the job's results are JSON, otherwise text."""
    if run.result is None:
        return None
    if job and (isinstance(job.body, PythonBody) or job.result == "json"):
        try:
            return msgspec.json.decode(run.result)
        except msgspec.DecodeError:
            pass  # written under an older definition, whose results were text
    return run.result.decode(errors="replace")
