"""The frozen definitions that `jobs.toml` becomes: every value has its final type, every default is filled in."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from hueyctl.model.duration import format_duration

ParamType = Literal["string", "integer", "number", "boolean", "array"]


class Param(msgspec.Struct, frozen=True, kw_only=True):
    """A declared parameter of a job or pipeline. `default` is meaningful only where `required` is false; None is
    "no default": an optional parameter that is absent."""

    name: str
    type: ParamType
    required: bool = False
    default: Any = None
    choices: tuple[Any, ...] | None = None
    secret: bool = False
    description: str = ""


class CommandBody(msgspec.Struct, frozen=True, kw_only=True, tag="command"):
    """An argument vector, started without a shell; its elements may hold `{param}`."""

    argv: tuple[str, ...]


class ScriptBody(msgspec.Struct, frozen=True, kw_only=True, tag="script"):
    """Text handed to `shell` as its last argument, never rewritten."""

    text: str
    shell: tuple[str, ...]


class PythonBody(msgspec.Struct, frozen=True, kw_only=True, tag="python"):
    """`module.path:function`, called with the parameters as keyword arguments."""

    target: str
    isolation: Literal["process", "thread"] = "process"


Body = CommandBody | ScriptBody | PythonBody


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """At most `count` claims in any window of length `per`."""

    count: int
    per: timedelta

    def __str__(self) -> str:
        return f"{self.count}/{format_duration(self.per)}"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, and under which policy. `dir` is absolute; paths are resolved against the file's folder."""

    name: str
    body: Body
    dir: Path
    description: str = ""
    params: tuple[Param, ...] = ()
    env: dict[str, str] = {}
    env_file: Path | None = None
    inherit_env: bool = True
    queue: str = "default"
    priority: int = 0
    retries: int = 0
    retry_delay: timedelta = timedelta(0)
    retry_backoff: float = 1.0
    retry_max_delay: timedelta = timedelta(hours=1)
    retry_exit_codes: frozenset[int] | None = None
    success_codes: frozenset[int] = frozenset({0})
    timeout: timedelta | None = None
    kill_after: timedelta = timedelta(seconds=10)
    expires: timedelta | None = None
    max_concurrent: int | None = None
    lock: str | None = None
    rate_limit: RateLimit | None = None
    unique: Literal["params", "job"] | None = None
    on_worker_lost: Literal["retry", "fail"] = "retry"
    crash_limit: int = 3
    on_failure: str | None = None
    on_success: str | None = None
    result: Literal["text", "json"] = "text"

    def param(self, name: str) -> Param | None:
        """The declared parameter of that name, or None."""
        return next((param for param in self.params if param.name == name), None)

    @property
    def kind(self) -> Literal["command", "script", "python"]:
        """Which of the three kinds of job it is."""
        match self.body:
            case CommandBody():
                return "command"
            case ScriptBody():
                return "script"
            case PythonBody():
                return "python"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a pipeline, with the parameters that it gets besides its input."""

    job: str
    params: dict[str, Any] = {}


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """Steps in a line; a tuple among them runs side by side (each element a step or a line of steps)."""

    name: str
    steps: tuple[Any, ...]
    params: tuple[Param, ...] = ()
    description: str = ""

    def param(self, name: str) -> Param | None:
        """The declared parameter of that name, or None."""
        return next((param for param in self.params if param.name == name), None)


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A recurring rule for a job or pipeline; exactly one of `cron`, `every` and `at` is set."""

    name: str
    target: str
    target_kind: Literal["job", "pipeline"]
    timezone: str
    params: dict[str, Any] = {}
    priority: int | None = None
    queue: str | None = None
    cron: str | None = None
    every: timedelta | None = None
    offset: timedelta = timedelta(0)
    at: datetime | None = None
    start: datetime | None = None
    end: datetime | None = None
    enabled: bool = True
    jitter: timedelta = timedelta(0)
    overlap: Literal["skip", "queue", "allow", "replace"] = "skip"
    catch_up: Literal["none", "latest", "all"] = "latest"
    catch_up_window: timedelta = timedelta(hours=1)
    catch_up_max: int = 100
    grace: timedelta = timedelta(seconds=60)


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The `[worker]` table. `output_max` and `result_max` are bytes per attempt."""

    concurrency: int = 4
    queues: tuple[str, ...] | None = None
    lease: timedelta = timedelta(seconds=30)
    shutdown_timeout: timedelta = timedelta(seconds=30)
    output_max: int = 10 * 1024 * 1024
    result_max: int = 1024 * 1024
    max_runs_per_child: int = 1000


class QueueSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A `[queues.NAME]` table."""

    concurrency: int | None = None


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long what has ended is kept."""

    succeeded: timedelta = timedelta(days=7)
    failed: timedelta = timedelta(days=30)
    events: timedelta = timedelta(days=30)


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """All of one `jobs.toml`. `path` is absolute; `store` is an absolute path or a `postgresql://` address.

    `on_failure` is that of [defaults], which every job without one of its own has, and what is no longer defined.
    """

    path: Path
    store: str
    interpreter: Path | None = None
    pythonpath: tuple[Path, ...] = ()
    timezone: str = "UTC"
    worker: WorkerSettings = WorkerSettings()
    queues: dict[str, QueueSettings] = {}
    retention: Retention = Retention()
    jobs: dict[str, Job] = {}
    pipelines: dict[str, Pipeline] = {}
    schedules: dict[str, Schedule] = {}
    on_failure: str | None = None

    @property
    def dir(self) -> Path:
        """The file's folder, against which its paths are resolved."""
        return self.path.parent
