"""A guard of one's own, attempts to give it, and what tests ask about processes."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hueyctl.engine.guard_main import guard_argv
from hueyctl.process import kin
from hueyctl.process.client import Guard
from hueyctl.process.spec import AttemptSpec, Ended, ProcessSpec, PythonSpec

HOUR = 3600.0


class Guarded:
    """A guard, and the folder in which its attempts print and its Python jobs lie."""

    def __init__(self, dir: Path, *, lease_s: float = HOUR, prefix: tuple[str, ...] = ()) -> None:
        self.dir = dir
        dir.mkdir(exist_ok=True)
        self.lock = dir / "guard.lock"
        (dir / "bell").mkdir(exist_ok=True)
        (dir / "output").mkdir(exist_ok=True)
        argv = guard_argv(lock=self.lock, lease_s=lease_s, bell_dir=dir / "bell")
        self.guard = Guard.start(argv=[*prefix, *argv])
        self._numbers = itertools.count(1)

    def spec(self, body: ProcessSpec | PythonSpec, **given: Any) -> AttemptSpec:
        """An attempt of `body`; everything else has a default."""
        number = next(self._numbers)
        folder = self.dir / "output" / f"run{number}"
        fields: dict[str, Any] = {
            "token": f"token{number}",
            "run": f"run{number}",
            "body": body,
            "dir": str(self.dir),
            "env": dict(os.environ),
            "run_env": {"HUEYCTL_RUN_ID": f"run{number}"},
            "stdout": str(folder / "1.out"),
            "stderr": str(folder / "1.err"),
            "progress": str(self.dir / "progress" / f"run{number}.1"),
        }
        return AttemptSpec(**(fields | given))

    def command(self, *argv: str, **given: Any) -> AttemptSpec:
        """An attempt of a program."""
        return self.spec(ProcessSpec(argv=argv), **given)

    def script(self, text: str, **given: Any) -> AttemptSpec:
        """An attempt of a shell script."""
        return self.command("/bin/bash", "-c", text, **given)

    def program(self, text: str, **given: Any) -> AttemptSpec:
        """An attempt of a Python program (not of a Python job)."""
        return self.command(sys.executable, "-c", text, **given)

    def module(self, text: str, name: str = "jobs") -> None:
        """Write the module that Python jobs are in."""
        (self.dir / f"{name}.py").write_text(text)

    def job(
        self,
        function: str,
        params: dict[str, object] | None = None,
        *,
        definition: str = "",
        max_runs: int = 1000,
        result_max: int = 1024 * 1024,
        interpreter: str = sys.executable,
        input: Path | None = None,
        **given: Any,
    ) -> AttemptSpec:
        """An attempt of a Python job: `function` of the module `jobs`, or `module:function`."""
        target = function if ":" in function else f"jobs:{function}"
        body = PythonSpec(
            target=target,
            interpreter=interpreter,
            pythonpath=(str(self.dir),),
            params=params or {},
            input=None if input is None else str(input),
            definition=definition or target,
            max_runs=max_runs,
            result_max=result_max,
        )
        return self.spec(body, **given)

    def run(self, spec: AttemptSpec) -> Ended:
        """Have it made."""
        return self.guard.run(spec)

    def begin(self, spec: AttemptSpec) -> Under:
        """Have it made by a thread."""
        return Under(self.guard, spec)


class Under:
    """An attempt under way."""

    def __init__(self, guard: Guard, spec: AttemptSpec) -> None:
        self.spec = spec
        self._ended: list[Ended] = []
        self._thread = threading.Thread(target=lambda: self._ended.append(guard.run(spec)), daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Has it ended?"""
        return bool(self._ended)

    def ends_within(self, seconds: float) -> bool:
        """Does it end so soon?"""
        self._thread.join(seconds)
        return self.over

    def end(self) -> Ended:
        """Wait for its end."""
        self._thread.join(30)
        assert self._ended, "the attempt did not end within 30 s"
        return self._ended[0]

    def printed(self) -> bytes:
        """Its stdout as it is now."""
        return out(self.spec)


def out(spec: AttemptSpec) -> bytes:
    """What is in its stdout's file; nothing where there is none."""
    path = Path(spec.stdout)
    return path.read_bytes() if path.exists() else b""


def err(spec: AttemptSpec) -> str:
    """What is in its stderr's file."""
    path = Path(spec.stderr)
    return path.read_text() if path.exists() else ""


def eventually(probe: Callable[[], Any], *, within_s: float = 15.0) -> Any:
    """The first true answer of `probe`."""
    end = time.monotonic() + within_s
    while not (answer := probe()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)
    return answer


def lives(pid: int) -> bool:
    """Does that process run?"""
    process = kin.look(pid)
    return process is not None and process.state != "Z"


def pid_in(path: Path) -> int:
    """The pid that a process wrote into `path`, as soon as it has."""
    return int(eventually(lambda: path.exists() and path.read_text().endswith("\n") and path.read_text()))


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
