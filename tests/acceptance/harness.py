"""The harness of the acceptance tests: a project folder, the installed command, and workers in it.

Every process that a test starts, and every process of a job, carries the test's mark in its environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import pytest

T = TypeVar("T")


def eventually(probe: Callable[[], T], *, timeout: float = 20.0, every: float = 0.02, what: str = "") -> T:
    """Call `probe` until it gives something true, and return that; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:g} s: {what or probe}; last seen: {found!r}")
        time.sleep(every)


class Result:
    """What a command printed, and how it ended."""

    def __init__(self, argv: Sequence[str], code: int, out: bytes, err: bytes) -> None:
        self.argv = argv
        self.code = code
        self.raw = out
        self.out = out.decode("utf-8", "replace")
        self.err = err.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        """The one document that `--json` printed."""
        return json.loads(self.raw)

    @property
    def json_lines(self) -> list[Any]:
        """The documents of a stream, one a line."""
        return [json.loads(line) for line in self.raw.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The error document that `--json` printed on stderr."""
        document = json.loads(self.err)
        assert document["schema"] == 1
        return dict(document["error"])

    def __repr__(self) -> str:
        return f"`{' '.join(self.argv)}` exited with {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class WorkerProcess:
    """A worker in the foreground, started by a test."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._log = log

    @property
    def log(self) -> str:
        """All that it printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: to this one process, as `kill` does."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and see it dead."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def ended(self, timeout: float = 30.0) -> int:
        """Wait for its end by itself, and return its exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the worker did not end within {timeout:g} s:\n{self.log}")


class Project:
    """A folder outside the repository with a `jobs.toml`, and the installed command to type in it."""

    def __init__(self, folder: Path, command: Path) -> None:
        self.dir = folder
        self.command = command
        self.mark = uuid.uuid4().hex
        self._logs = 0
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HUEYCTL_", "PYTHON", "COV_", "NO_COLOR", "FORCE_COLOR"))
        }
        self.env |= {"ACCEPTANCE_MARK": self.mark, "TZ": "UTC", "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}

    # -- files ------------------------------------------------------------------------------------------------------
    def write(self, jobs_toml: str) -> None:
        self.file("jobs.toml", jobs_toml)

    def file(self, name: str, text: str) -> Path:
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def lines(self, name: str) -> list[str]:
        """The whole lines that jobs have written to a file so far."""
        path = self.dir / name
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    @property
    def store(self) -> Path:
        return self.dir / ".hueyctl" / "queue.db"

    # -- commands ---------------------------------------------------------------------------------------------------
    def cli(
        self,
        *words: str | bytes,
        code: int = 0,
        stdin: str | bytes = b"",
        timeout: float = 60.0,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Result:
        """Type a command and see it end with `code`."""
        done = subprocess.run(
            [self.command, *words],
            cwd=cwd or self.dir,
            env={**self.env, **(env or {})},
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        shown = ["hueyctl", *(os.fsdecode(word) for word in words)]
        result = Result(shown, done.returncode, done.stdout, done.stderr)
        assert done.returncode == code, f"expected exit code {code}: {result!r}"
        assert "Traceback" not in result.err, repr(result)
        return result

    def popen(
        self, *words: str, stdout: int | IO[bytes] = subprocess.PIPE, start_new_session: bool = False
    ) -> subprocess.Popen[bytes]:
        """Type a command and leave it running, its output in pipes (if not elsewhere)."""
        return subprocess.Popen(
            [self.command, *words],
            cwd=self.dir,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=start_new_session,
        )

    def enqueue(self, *words: str) -> str:
        """Enqueue, and return the id: the one thing that is printed."""
        out = self.cli("enqueue", *words).out
        assert str(uuid.UUID(out.strip())) == out.removesuffix("\n"), out
        return out.strip()

    def run(self, run: str) -> dict[str, Any]:
        return dict(self.cli("inspect", run, "--json").json["run"])

    def runs(self, *words: str) -> list[dict[str, Any]]:
        return list(self.cli("runs", "--json", "-n", "100000", *words).json["runs"])

    def events(self, *words: str) -> list[dict[str, Any]]:
        return self.cli("events", "--json", "-n", "100000", *words).json_lines

    def history(self, run: str) -> list[tuple[int, str]]:
        """A run's events as (attempt, type)."""
        return [(event["attempt"], event["type"]) for event in self.events("--run", run)]

    def reaches(self, run: str, state: str, *, timeout: float = 20.0) -> dict[str, Any]:
        """Wait until a run is in this state, and return it."""

        def there() -> dict[str, Any] | None:
            seen.append(self.run(run))
            return seen[-1] if seen[-1]["state"] == state else None

        seen: list[dict[str, Any]] = []
        deadline = time.monotonic() + timeout
        while self._peek("SELECT 1 FROM runs WHERE id = ? AND state <> ?", run, state) or not (found := there()):
            if time.monotonic() > deadline:
                pytest.fail(f"not {state} within {timeout:g} s: {seen[-1:] or self.run(run)}")
            time.sleep(0.02)
        return found

    def _peek(self, sql: str, *values: object) -> bool:
        """Does a store in a file say so? A look costs a thousandth of a command: what is waited for is only asked of
        the command when it may be there."""
        if not self.store.with_name(f"{self.store.name}-wal").exists():
            return False  # nobody has it open: looking into it would leave a log there
        try:
            with contextlib.closing(sqlite3.connect(f"{self.store.as_uri()}?mode=ro", uri=True)) as connection:
                return bool(connection.execute(sql, values).fetchall())
        except sqlite3.Error:
            return False

    # -- workers ----------------------------------------------------------------------------------------------------
    def start(self, *words: str, env: dict[str, str] | None = None, prefix: Sequence[str] = ()) -> WorkerProcess:
        """Start a worker without waiting for it. Whoever calls this ends it."""
        self._logs += 1
        log = self.dir / f"worker-{self._logs}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*prefix, self.command, "worker", "start", *words],
                cwd=self.dir,
                env={**self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return WorkerProcess(process, log)

    @contextlib.contextmanager
    def worker(self, *words: str, env: dict[str, str] | None = None) -> Iterator[WorkerProcess]:
        """A worker that is online, killed at the end (if it hasn't ended by itself)."""
        worker = self.start(*words, env=env)
        try:
            eventually(lambda: self.online(worker), what=f"the worker is online; its log:\n{worker.log}")
            yield worker
        finally:
            if worker.process.poll() is None:
                worker.kill()

    def online(self, worker: WorkerProcess) -> bool:
        if worker.process.poll() is not None:
            pytest.fail(f"the worker exited with {worker.process.returncode}:\n{worker.log}")
        if self._peek("SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM workers WHERE pid = ?)", worker.pid):
            return False
        return any(row["pid"] == worker.pid for row in self.workers())

    def workers(self) -> list[dict[str, Any]]:
        """Those that `worker status` finds alive and fresh."""
        done = subprocess.run(
            [self.command, "worker", "status", "--json"], cwd=self.dir, env=self.env, capture_output=True, check=False
        )
        if done.returncode != 0:
            return []
        return list(json.loads(done.stdout)["workers"])

    def burst(self, *words: str, timeout: float = 60.0) -> str:
        """Run a worker until nothing is left that is due, and return what it printed."""
        worker = self.start("--burst", *words)
        try:
            assert worker.ended(timeout) == 0, worker.log
        finally:
            if worker.process.poll() is None:
                worker.kill()
        return worker.log

    # -- processes --------------------------------------------------------------------------------------------------
    def processes(self) -> dict[int, str]:
        """Every live process that carries this test's mark: pid and command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if f"ACCEPTANCE_MARK={self.mark}".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        return found
