"""Huey, with our way of handing out work in place of its storage.

Of Huey's it keeps `execute` with its verdict, the registry, signals and hooks. What is overridden here, and relied on,
is pinned by `tests/integration/test_huey_internals.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from huey.api import Huey
from huey.storage import BaseStorage

from hueyctl.engine.definitions import Definitions, JobTask
from hueyctl.model.transition import Done, Final, Retry

if TYPE_CHECKING:
    from hueyctl.engine.attempt import Attempt


_NO_TIMEOUT = nullcontext()


class NoStorage(BaseStorage):  # type: ignore[misc]  # huey has no types
    """What Huey's `execute` may still ask of a storage, answered with nothing: the store is ours, and only the claim
    decides what may run."""

    blocking = True  # `dequeue` waits by itself; Huey's worker must not sleep and poll on top of it

    def peek_many(self, keys: Any) -> dict[str, bytes]:
        return {}

    def delete_data(self, key: Any) -> bool:
        return False

    def read_schedule(self, ts: Any) -> list[bytes]:
        return []


class RunnerHuey(Huey):  # type: ignore[misc]  # huey has no types
    """A Huey whose `dequeue` waits for a hand-over, and whose `execute` ends in exactly one settlement."""

    def __init__(
        self, next_attempt: Callable[[], Attempt | None], ended: Callable[[Attempt], None], definitions: Definitions
    ) -> None:
        super().__init__("hueyctl", results=False, utc=True, storage_class=NoStorage)
        self._next_attempt = next_attempt
        self._ended = ended
        self._registry = definitions.registry

    def swap(self, definitions: Definitions) -> None:
        """Go on with the tasks of a reloaded file."""
        self._registry = definitions.registry

    def dequeue(self) -> JobTask | None:
        attempt = self._next_attempt()
        return None if attempt is None else task_of(attempt)

    def execute(self, task: JobTask, timestamp: datetime | None = None) -> Any:
        attempt: Attempt = task.args[0]
        try:
            return super().execute(task, timestamp)
        except BaseException as exc:
            # What the body raises, Huey has judged already: this is a hook's, or a bug of ours. Either way the thread
            # lives on and the attempt has its one settlement.
            attempt.escaped(exc)
            return None
        finally:
            self._ended(attempt)

    def _timeout_context(self, task: JobTask) -> AbstractContextManager[None]:
        return _NO_TIMEOUT  # timeouts are the guard's; Huey makes a new one for each task

    def is_revoked(self, task: JobTask, timestamp: datetime | None = None, peek: bool = True) -> bool:
        return False  # whether it may run, the claim has decided; Huey would make two keys to ask its storage for

    def _run_post_execute(self, task: JobTask, task_value: Any, exception: BaseException | None) -> None:
        task.args[0].verdict = Done() if exception is None else Final()
        super()._run_post_execute(task, task_value, exception)

    def _requeue_task(self, task: JobTask, timestamp: datetime, retry_eta: datetime | None = None) -> None:
        """Huey's verdict "again": noted for the settlement, where Huey would write a message of its own."""
        if retry_eta is None:
            delay = timedelta(seconds=task.retry_delay or 0)
        else:  # naive UTC, from a job that raised RetryTask(delay=…)
            delay = max(timedelta(0), retry_eta.replace(tzinfo=UTC) - datetime.now(UTC))
        task.args[0].verdict = Retry(delay, max(0, task.retries - 1))


def task_of(attempt: Attempt) -> JobTask:
    """The Huey task that performs an attempt: of its job's class, with nothing set by which `execute` could decide
    again whether it may run (no eta, expiry, completion or chord)."""
    task_class = attempt.definitions.tasks[attempt.job.name]
    return task_class(
        args=(attempt,),
        id=attempt.run.id,
        retries=attempt.run.retries_left or 0,
        retry_delay=attempt.retry_delay().total_seconds(),
        retry_backoff=1,
        priority=attempt.run.priority,
    )
