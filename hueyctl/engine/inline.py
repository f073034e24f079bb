"""`isolation = "thread"`: a Python job called inside the worker, on one of Huey's threads.

For tiny trusted jobs: nothing can stop such a call, what it prints goes where the worker's own output goes, and a
crash of it is a crash of the worker. What it raises is still an outcome, `SystemExit` and `KeyboardInterrupt` too.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import traceback
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from hueyctl.current import CurrentRun, running
from hueyctl.model.definition import PythonBody
from hueyctl.model.handover import as_value
from hueyctl.model.outcome import AnyOutcome, Exited, NotStarted, Raised, Returned
from hueyctl.process.child import takes_input

if TYPE_CHECKING:
    from hueyctl.engine.attempt import Attempt


def call_in_thread(attempt: Attempt) -> AnyOutcome:
    """Call the job's target here and now."""
    body = attempt.job.body
    assert isinstance(body, PythonBody)
    try:
        target = _import(body.target)
    except BaseException as exc:  # a module may raise anything, SystemExit included
        return NotStarted(126, f"cannot import {body.target}: {type(exc).__name__}: {exc}")
    try:
        params = attempt.params
        if attempt.claim.inputs and takes_input(target):
            params = {**params, "input": as_value(attempt.claim.inputs, attempt.definitions.project.jobs)}
        with running(partial(_current, attempt)):
            value = target(**params)
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
        if value is None:
            return Returned(None)
        return Returned(json.dumps(value, allow_nan=False))
    except SystemExit as exc:
        return Exited(exc.code if isinstance(exc.code, int) else int(exc.code is not None))
    except BaseException as exc:  # KeyboardInterrupt too: Huey would take it for a stop of the worker
        _write_traceback(attempt, exc)
        return Raised(f"{type(exc).__name__}: {exc}".replace("\n", " "))


def _current(attempt: Attempt) -> CurrentRun:
    run, asked_for = attempt.run, attempt.asked_for
    return CurrentRun(
        id=run.id,
        job=run.job,
        attempt=run.attempt,
        queue=run.queue,
        file=str(attempt.definitions.project.path),
        trigger=run.trigger,
        schedule=asked_for.schedule,
        scheduled_at=asked_for.scheduled_at,
        progress_path=attempt.place.names(run.id, run.attempt)[2],
    )


@cache
def _import(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{target} is not callable")
    return found


def _write_traceback(attempt: Attempt, exc: BaseException) -> None:
    path = attempt.place.stderr(attempt.run.id, attempt.run.attempt)
    text = attempt.mask("".join(traceback.format_exception(exc)))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(text.encode(errors="replace"))
    except OSError:
        return  # a full disk must not turn a failed attempt into a broken worker; the error itself is in the store
