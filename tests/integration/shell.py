"""A project folder in which tests type `hueyctl`: in this process where it is enough, as a process where it matters."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hueyctl.cli.main import run as run_command
from hueyctl.model.outcome import AnyOutcome, Exited
from hueyctl.model.run import Run
from hueyctl.model.transition import Done, Final, Settlement
from hueyctl.storage.bell import ring
from hueyctl.storage.place import Place
from hueyctl.storage.sqlite import SqliteStore, open_store
from hueyctl.storage.store import Claim, JobPolicy, Want, Worker

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code, self.raw = code, out
        self.out, self.err = out.decode(errors="replace"), err.decode(errors="replace")

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        document = json.loads(self.err)
        assert document["schema"] == 1
        return dict(document["error"])

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Shell:
    """A folder with a `jobs.toml`."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder
        self.place = Place(folder / ".hueyctl" / "queue.db")
        self._spawned: list[subprocess.Popen[bytes]] = []

    def write(self, text: str, name: str = "jobs.toml") -> Path:
        path = self.dir / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def type(self, *words: str, code: int = 0, stdin: bytes = b"") -> Said:
        """Type a command in this process, and see it end with `code`."""
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        before = sys.stdin
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
        try:
            with contextlib.chdir(self.dir), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                ended = run_command(words)
        finally:
            sys.stdin = before
        out.flush()
        err.flush()
        said = Said(ended, out.buffer.getvalue(), err.buffer.getvalue())
        assert said.code == code, f"`hueyctl {' '.join(words)}`: expected exit code {code}, {said!r}"
        assert "Traceback" not in said.err, said
        return said

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "hueyctl", *words]

    def env(self, **more: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), **more}

    def spawn(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Type a command as a process of its own, and leave it running."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        process = subprocess.Popen(self.argv(*words), **{"cwd": self.dir, "env": self.env(), **pipes, **options})
        self._spawned.append(process)
        return process

    def end(self) -> None:
        """End what was spawned and is still there."""
        for process in self._spawned:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()

    def enqueue(self, *words: str) -> str:
        return self.type("enqueue", *words).out.strip()

    def run(self, run: str) -> dict[str, Any]:
        return dict(self.type("inspect", run, "--json").json["run"])

    # -- the store, driven as a worker would ------------------------------------------------------------------------
    @contextlib.contextmanager
    def store(self) -> Iterator[SqliteStore]:
        store = open_store(self.place.path, create=True)
        try:
            yield store
        finally:
            store.close()

    def register(self, id: str = "w1", *, jobs: Sequence[str] = (), **more: Any) -> None:
        """Enter a worker that nobody is: dead, unless the test holds its lock."""
        now = datetime.now(UTC)
        worker = Worker(
            id=id,
            host="host",
            pid=4242,
            file=str(self.dir / "jobs.toml"),
            concurrency=2,
            jobs=tuple(jobs),
            lease_s=30,
            started_at=now,
            **{"version": "0", "queues": None, "beat_at": now, **more},
        )
        with self.store() as store:
            store.register(worker, now=now)

    def beat(self, id: str, *, ago_s: float) -> None:
        """Let a worker's last heartbeat be so long ago."""
        with self.store() as store:
            assert store.beat(id, running=0, now=datetime.now(UTC) - timedelta(seconds=ago_s))

    def claim(self, *jobs: str, worker: str = "w1", limit: int = 1) -> list[Claim]:
        """Take runs as the worker `w1` would; nobody holds its lock, so that it looks dead."""
        want = Want(worker=worker, limit=limit, jobs={job: JobPolicy() for job in jobs})
        with self.store() as store:
            known = worker in [each.id for each in store.workers()]
        if not known:
            self.register(worker, jobs=jobs)
        with self.store() as store:
            return list(store.exchange([], want, now=datetime.now(UTC)).claims)

    def settle(
        self, claim: Claim, *, result: bytes | None = None, code: int = 0, outcome: AnyOutcome | None = None
    ) -> None:
        verdict = Done(result) if code == 0 and outcome is None else Final()
        settlement = Settlement(
            n=claim.run.n,
            token=claim.token,
            verdict=verdict,
            outcome=outcome or Exited(code),
            ended_at=datetime.now(UTC),
        )
        with self.store() as store:
            store.exchange([settlement], None, now=datetime.now(UTC))
        ring(self.place.bell, b"event")

    def finish(self, *jobs: str, result: bytes | None = None, code: int = 0) -> Run:
        """Let the next run of these jobs end."""
        (claim,) = self.claim(*jobs)
        self.settle(claim, result=result, code=code)
        return claim.run

    def claim_all(self, *jobs: str) -> int:
        """Let all runs of these jobs that are due succeed; how many there were."""
        claims = self.claim(*jobs, limit=1000)
        for claim in claims:
            self.settle(claim)
        return len(claims)

    def print_output(self, run: str, attempt: int, *, stdout: bytes = b"", stderr: bytes = b"") -> None:
        """What an attempt would have printed."""
        for path, data in ((self.place.stdout(run, attempt), stdout), (self.place.stderr(run, attempt), stderr)):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(data)


def eventually(probe: Callable[[], T], *, timeout: float = 20.0) -> T:
    """Call `probe` until it gives something true, and return that."""
    deadline = time.monotonic() + timeout
    while not (found := probe()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:g} s; last seen: {found!r}")
        time.sleep(0.01)
    return found
