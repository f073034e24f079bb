"""What a worker can run: the Huey tasks, and all that an attempt needs of `jobs.toml`, prepared once.

A reload builds a whole new one and swaps it; an attempt under way keeps the one it was claimed under.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from huey.api import PeriodicTask, Task
from huey.registry import Registry

from hueyctl.failpoints import without
from hueyctl.model.address import is_address, to_hand_on
from hueyctl.model.definition import Job, Project, PythonBody, Schedule
from hueyctl.model.hook import NO_HOOKS, Hooks
from hueyctl.model.params import misfit
from hueyctl.model.run import MESSAGE_VERSION, Run
from hueyctl.model.schedule import FireTimes
from hueyctl.storage.store import JobPolicy

if TYPE_CHECKING:
    from hueyctl.engine.attempt import Attempt


class JobTask(Task):  # type: ignore[misc]  # huey has no types
    """The Huey task of a job: a class of its own per job, whose one argument is the attempt to perform."""

    job: Job

    def execute(self) -> Any:
        attempt: Attempt = self.args[0]
        return attempt.perform()


class ScheduleTask(PeriodicTask):  # type: ignore[misc]  # huey has no types
    """The Huey periodic task of a schedule, for Huey's registry to know. It is never enqueued by Huey: its scheduler
    has minutes alone, and would fire once per worker."""

    schedule: Schedule

    def validate_datetime(self, timestamp: datetime) -> bool:
        """Is there a slot in the minute that begins at `timestamp` (naive UTC, as Huey's are)?"""
        begin = timestamp.replace(tzinfo=UTC, second=0, microsecond=0)
        slot = FireTimes(self.schedule).after(begin - timedelta(microseconds=1))
        return slot is not None and slot < begin + timedelta(minutes=1)


class Definitions:
    """One `jobs.toml`, ready to run: Huey's registry with a task class per job, and each job's environment."""

    def __init__(self, project: Project, environ: Mapping[str, str], hooks: Hooks = NO_HOOKS) -> None:
        self.project = project
        self.hooks = hooks
        self.registry = Registry()
        self.tasks: dict[str, type[JobTask]] = {}
        self.policies: dict[str, JobPolicy] = {}
        self.queue_limits = {
            name: queue.concurrency for name, queue in project.queues.items() if queue.concurrency is not None
        }
        self._environ = environ
        self._environments: dict[str, tuple[dict[str, str], str]] = {}
        for job in project.jobs.values():
            task_class = type(job.name, (JobTask,), {"job": job, "__module__": "jobs"})
            self.registry.register(task_class)
            self.tasks[job.name] = task_class
            self.policies[job.name] = JobPolicy(
                retries=job.retries,
                crash_limit=job.crash_limit,
                on_worker_lost=job.on_worker_lost,
                max_concurrent=job.max_concurrent,
                rate_limit=job.rate_limit,
            )
        for schedule in project.schedules.values():
            # A prefix, so that a job may have the same name.
            name = f"schedule:{schedule.name}"
            self.registry.register(type(name, (ScheduleTask,), {"schedule": schedule, "__module__": "schedules"}))

    def admit(self, run: Run) -> str | None:
        """Why this run's message doesn't fit its job's definition here; None: it fits."""
        if run.message.v > MESSAGE_VERSION:
            return f"its message has version {run.message.v}, of a newer hueyctl; this one reads {MESSAGE_VERSION}"
        return misfit(self.project.jobs[run.job], run.message.params)

    def limited(self, run: Run) -> bool:
        """May the end of this run let another one start, of its job or its queue?"""
        policy = self.policies.get(run.job)
        return run.queue in self.queue_limits or (policy is not None and policy.max_concurrent is not None)

    def interpreter(self) -> str:
        """The Python that runs Python jobs."""
        return str(self.project.interpreter or sys.executable)

    def environment(self, job: Job) -> tuple[dict[str, str], str]:
        """A job's environment without what changes from run to run, and a fingerprint of all that a warm child of
        it is made with.

        Raises:
            EnvFileError: its `env_file` can't be read.
        """
        if job.env_file is not None:  # read for each attempt: an edited file counts from the next one on
            return self._make_environment(job)
        if job.name not in self._environments:
            self._environments[job.name] = self._make_environment(job)
        return self._environments[job.name]

    def _make_environment(self, job: Job) -> tuple[dict[str, str], str]:
        env = self._inherited(job)
        if job.env_file is not None:
            env |= read_env_file(job.env_file)
        env |= job.env
        made_with = (job.body, self.interpreter(), [str(p) for p in self.project.pythonpath], str(job.dir), env)
        fingerprint = hashlib.sha256(msgspec.json.encode(made_with, order="deterministic")).hexdigest()
        return env, fingerprint

    def environment_without_file(self, job: Job) -> dict[str, str]:
        """The same, where its `env_file` can't be read: to look at what else is wrong."""
        return self._inherited(job) | job.env

    def _inherited(self, job: Job) -> dict[str, str]:
        env = without(self._environ) if job.inherit_env else {}
        if is_address(store := env.get("HUEYCTL_STORE", "")):
            # Without it, a job that enqueues would do so in another store.
            env["HUEYCTL_STORE"] = to_hand_on(store)
        return env

    def thread_targets(self) -> bool:
        """Does any job run inside the worker itself (`isolation = "thread"`)?"""
        return any(
            isinstance(job.body, PythonBody) and job.body.isolation == "thread" for job in self.project.jobs.values()
        )


class EnvFileError(Exception):
    """An `env_file` that can't be read, with the reason."""


def read_env_file(path: Path) -> dict[str, str]:
    """`NAME=value` lines, as systemd and docker read them: blank lines and `#` comments skipped, one pair of quotes
    around a value taken off, `export ` in front allowed, nothing expanded.

    Raises:
        EnvFileError: it can't be read, or a line has no `=`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "it is not valid UTF-8"
        raise EnvFileError(f"env_file {path}: {reason}") from exc
    env: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name or "\0" in line:
            raise EnvFileError(f"env_file {path}, line {number}: expected NAME=value")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        env[name] = value
    return env
