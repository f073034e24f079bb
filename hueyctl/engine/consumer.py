"""Huey's consumer, with its threads and its health check, under our main loop.

What is replaced, and why: Huey's main loop wakes ten times a second and its signal handlers lose a second, different
signal: here the main thread sleeps on the worker's mailbox. Huey's scheduler reads its storage every second: ours has
nothing for it to read, so it sleeps until the end.
"""

from __future__ import annotations

from typing import Any

from huey.consumer import BaseProcess, Consumer

HEALTH_CHECK_S = 10.0


class SleepingScheduler(BaseProcess):  # type: ignore[misc]  # huey has no types
    """Takes the place of Huey's scheduler, which polls."""

    process_name = "Scheduler"

    def loop(self, now: Any = None) -> None:
        self.stop_flag.wait()


class RunnerConsumer(Consumer):  # type: ignore[misc]  # huey has no types
    """Starts Huey's worker threads, replaces those that die, and waits for them at the end."""

    def __init__(self, huey: Any, *, concurrency: int) -> None:
        super().__init__(
            huey, workers=concurrency, periodic=False, check_worker_health=True, health_check_interval=HEALTH_CHECK_S
        )

    def _create_scheduler(self) -> SleepingScheduler:
        return SleepingScheduler(huey=self.huey, stop_flag=self.stop_flag)

    def _set_signal_handlers(self) -> None:
        """The worker has its own: see `engine.worker`."""

    def finish(self) -> None:
        """Let each thread end after what it is performing."""
        self.stop_flag.set()

    def finished(self) -> bool:
        """Have all threads ended?"""
        return not any(self.environment.is_alive(thread) for _, thread in self.worker_threads)
