"""What the worker asks of its guard, and what it gets back."""

from __future__ import annotations

from typing import Literal

import msgspec

from hueyctl.model.outcome import AnyOutcome


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True, tag="process"):
    """A program to start: a command, or a script behind its shell."""

    argv: tuple[str, ...]


class PythonSpec(msgspec.Struct, frozen=True, kw_only=True, tag="python"):
    """A Python callable to call in a warm child.

    `definition` is a fingerprint of everything a child is made with (target, interpreter, pythonpath, env, dir): a
    warm child serves attempts of one definition alone. `input` is a file with JSON for a function that has a parameter
    of this name (None: nothing is handed to it).
    """

    target: str
    interpreter: str
    pythonpath: tuple[str, ...]
    params: dict[str, object]
    input: str | None = None
    definition: str
    max_runs: int
    result_max: int


class AttemptSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, ready to start: nothing in it needs a definition any more.

    `env` is the whole environment of the process (for a warm child: what it is started with); `run_env` are the
    variables that change from attempt to attempt (HUEYCTL_*, PARAM_*), on top of it. Times are seconds, sizes bytes.
    `stdin` is a file to read it from (None: /dev/null). `stdout`, `stderr` and `progress` are absolute paths; the
    folder of the first two is made at the first byte written. `progress` is the job's to write, and deleted at its end:
    its folder is shared by all, since making one for each would cost as much as starting a program.
    From `start_by` on (of the monotonic clock, which is one for all processes of a machine) the run may be another
    worker's, and isn't started any more. What an exit code means is the engine's to say.
    """

    token: str
    run: str
    body: ProcessSpec | PythonSpec
    dir: str
    env: dict[str, str]
    run_env: dict[str, str] = {}
    stdin: str | None = None
    stdout: str
    stderr: str
    progress: str
    timeout: float | None = None
    kill_after: float = 10.0
    output_max: int = 10 * 1024 * 1024
    start_by: float | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The guard's answer: how it ended, and how much it printed (all of it, what was cut included); `begun`: it didn't
    come too late to be started. `remarks` are sentences by their names (`hueyctl.model.event.REMARKS`)."""

    token: str
    outcome: AnyOutcome
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    begun: bool = True
    remarks: dict[str, str] = {}


StopReason = Literal["revoked", "interrupted", "stale"]
