"""Each internal of Huey that the engine overrides or relies on, pinned: a Huey that changes one fails here first."""

from __future__ import annotations

import inspect
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from huey.api import Huey, Task
from huey.consumer import BaseProcess, Consumer, Worker
from huey.exceptions import CancelExecution, RetryTask, TaskTimeout
from huey.registry import Registry
from huey.storage import BaseStorage

from hueyctl.engine.consumer import RunnerConsumer
from hueyctl.engine.queue import NoStorage, RunnerHuey

Trace = list[tuple[str, Any]]


class Recorder(Huey):
    """A Huey over our storage whose overridden steps only note that they were taken."""

    def __init__(self, trace: Trace) -> None:
        super().__init__("test", results=False, utc=True, storage_class=NoStorage)
        self.trace = trace

    def _run_post_execute(self, task: Task, task_value: Any, exception: BaseException | None) -> None:
        self.trace.append(("post", type(exception).__name__))
        super()._run_post_execute(task, task_value, exception)

    def _requeue_task(self, task: Task, timestamp: datetime, retry_eta: datetime | None = None) -> None:
        self.trace.append(("requeue", (task.retries, task.retry_delay, retry_eta)))


def execute(body: Any, **options: Any) -> Trace:
    """What Huey's `execute` does around `body`, as signals and steps in order."""
    trace: Trace = []
    huey = Recorder(trace)
    huey._signal.connect(lambda signal, task, *args: trace.append(("signal", signal)))

    class BodyTask(Task):  # type: ignore[misc]  # huey has no types
        def execute(self) -> Any:
            return body()

    huey._registry.register(BodyTask)
    huey.execute(BodyTask(**options))
    return trace


def raising(exc: BaseException) -> Any:
    def body() -> None:
        raise exc

    return body


def test_a_body_that_returns_is_done_after_its_post_execute_step() -> None:
    assert execute(lambda: 7) == [("signal", "executing"), ("post", "NoneType"), ("signal", "complete")]


def test_a_body_that_raises_without_retries_is_final_and_never_requeued() -> None:
    assert execute(raising(ValueError("x"))) == [("signal", "executing"), ("signal", "error"), ("post", "ValueError")]


def test_a_body_that_raises_with_retries_is_requeued_after_its_post_execute_step() -> None:
    trace = execute(raising(ValueError("x")), retries=2, retry_delay=5)
    assert [step for step, _ in trace] == ["signal", "signal", "post", "signal", "requeue"]
    assert trace[-1] == ("requeue", (2, 5, None))
    assert trace[-2] == ("signal", "retrying")


def test_a_cancel_without_retry_takes_the_retries_away() -> None:
    trace = execute(raising(CancelExecution(retry=False)), retries=2)
    assert ("signal", "canceled") in trace
    assert "requeue" not in [step for step, _ in trace]


def test_a_timeout_is_its_own_signal_and_uses_retries() -> None:
    trace = execute(raising(TaskTimeout("x")), retries=1)
    assert ("signal", "timeout") in trace
    assert trace[-1][0] == "requeue"


def test_a_retry_task_brings_its_own_eta_as_naive_utc() -> None:
    trace = execute(raising(RetryTask(delay=60)), retries=0)
    retries, _, eta = trace[-1][1]
    assert retries == 1
    assert eta.tzinfo is None
    assert abs(eta - datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=60)) < timedelta(seconds=5)


def test_a_keyboard_interrupt_returns_normally_and_gives_no_verdict() -> None:
    assert execute(raising(KeyboardInterrupt())) == [("signal", "executing"), ("signal", "interrupted")]


@pytest.mark.parametrize("exc", [SystemExit(3), GeneratorExit()])
def test_other_base_exceptions_escape_from_execute(exc: BaseException) -> None:
    with pytest.raises(type(exc)):
        execute(raising(exc))


def test_a_swallowed_receiver_error_leaves_no_trace_in_the_verdict() -> None:
    trace: Trace = []
    huey = Recorder(trace)
    huey._signal.connect(lambda *args: 1 / 0)

    class Quiet(Task):  # type: ignore[misc]  # huey has no types
        def execute(self) -> None:
            return None

    huey._registry.register(Quiet)
    huey.execute(Quiet())
    assert trace == [("post", "NoneType")]


def test_our_storage_answers_all_that_execute_asks() -> None:
    """`execute` with results off asks whether the task is revoked, which is answered without a storage, deletes that
    flag, and asks for nothing else."""
    source = inspect.getsource(Huey.execute) + inspect.getsource(Huey._execute)
    assert "self.is_revoked(task, timestamp, False)" in source
    assert "self.delete(task.revoke_id)" in source
    assert "is_revoked" in vars(RunnerHuey)
    assert issubclass(NoStorage, BaseStorage)
    assert NoStorage("x").delete_data("a") is False


def test_the_registry_names_a_task_by_its_module_and_class() -> None:
    registry = Registry()
    task_class = type("schedule:x.y-z", (Task,), {"__module__": "jobs"})
    registry.register(task_class)
    assert registry.string_to_task("jobs.schedule:x.y-z") is task_class


def test_a_worker_thread_dequeues_executes_and_never_sleeps_on_a_blocking_storage() -> None:
    source = inspect.getsource(Worker.loop)
    assert "self.huey.dequeue()" in source
    assert "self.huey.execute(task, now)" in source
    assert "not self.huey.storage.blocking" in source


def test_the_consumer_is_put_together_from_the_parts_that_we_replace() -> None:
    for name in ("_create_scheduler", "_create_worker", "_set_signal_handlers", "check_worker_health", "start"):
        assert callable(getattr(Consumer, name))
    assert "process.initialize()" in inspect.getsource(Consumer._create_process)
    assert "self.stop_flag.is_set()" in inspect.getsource(Consumer._create_process)
    assert issubclass(BaseProcess, object)


def test_the_health_check_replaces_a_thread_that_died() -> None:
    """A thread of Huey's ends on what its loop doesn't catch; the check starts another in its place."""
    asked = threading.Semaphore(0)

    class Deadly(Recorder):
        def dequeue(self) -> None:
            asked.release()
            raise SystemExit  # not an Exception: it ends the thread

    consumer = RunnerConsumer(Deadly([]), concurrency=1)
    consumer.start()
    assert asked.acquire(timeout=10)
    first = consumer.worker_threads[0][1]
    first.join(10)
    assert not first.is_alive()
    consumer.check_worker_health()
    assert consumer.worker_threads[0][1] is not first
    assert asked.acquire(timeout=10)
    consumer.finish()
    consumer.scheduler.join(10)
    assert not consumer.scheduler.is_alive()


def test_the_context_of_a_timeout_is_asked_for_once_around_the_body() -> None:
    """Ours is none: it must be what Huey enters, and nothing more may depend on it."""
    asked: list[Task] = []

    class Asking(Recorder):
        def _timeout_context(self, task: Task) -> Any:
            asked.append(task)
            return RunnerHuey._timeout_context(self, task)

    class BodyTask(Task):  # type: ignore[misc]  # huey has no types
        def execute(self) -> str:
            assert asked == [self]
            return "done"

    huey = Asking([])
    huey._registry.register(BodyTask)
    huey.execute(BodyTask())
    assert len(asked) == 1
