"""A day in the life of a store: real commands and real workers on it, recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from recording import Record, Recorder

ROOT = Path(__file__).resolve().parents[2]

# The keeper looks after the log three times a lease.
WORKER = """
[worker]
lease = "3s"
"""

JOBS = """
[jobs.quick]
python = "bodies:quick"
isolation = "thread"

[jobs.command]
command = ["true"]

[jobs.flaky]
python = "bodies:flaky"
retries = 2

[jobs.bad]
command = ["false"]
"""

BODIES = """
import os
from hueyctl import current_run

def quick():
    return None

def flaky():
    run = current_run()
    os.write(1, f"started {run.id} {run.attempt}\\n".encode())   # the recorder puts it in order with the rest
    if run.attempt < 3:
        raise SystemExit("not yet")
"""


class Recording(NamedTuple):
    """`records`, and who made them: `roles` says of pids what they were (`enqueue`, `wait`, `worker` …; where no worker
    is alive `enqueue alone`). `live` are the store's files at the end."""

    store: Path
    records: list[Record]
    roles: dict[int, str]
    live: dict[str, bytes]


class Scene:
    """A folder with a `jobs.toml`, recorded commands in it, and at most a few workers."""

    def __init__(self, folder: Path, library: Path, *, worker: str = WORKER, contents: bool = True) -> None:
        self.dir = folder
        (folder / "jobs.toml").write_text(worker + JOBS)
        (folder / "bodies.py").write_text(BODIES)
        self.store = folder / ".hueyctl" / "queue.db"
        self.recorder = Recorder(library, self.store, folder / "power.log", contents=contents)
        self.roles: dict[int, str] = {}
        self._workers: list[subprocess.Popen[bytes]] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HUEYCTL_")}
        self._environ = {**kept, "PYTHONPATH": str(ROOT)}

    def spawn(self, *words: str, role: str = "") -> subprocess.Popen[bytes]:
        """Type a command and leave it running."""
        process = self.python("-P", "-m", "hueyctl", *words)
        self.roles[process.pid] = role or words[0]
        return process

    def python(self, *words: str) -> subprocess.Popen[bytes]:
        """Leave a Python running, recorded."""
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=self.dir,
            env=self._environ | self.recorder.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def type(self, *words: str, role: str = "", code: int = 0) -> list[str]:
        """Type a command, see it end with `code`, and return the lines that it printed."""
        return self.said(self.spawn(*words, role=role), code=code)

    def said(self, process: subprocess.Popen[bytes], *, code: int = 0) -> list[str]:
        """The lines that a command printed that ends with `code`."""
        out, err = process.communicate(timeout=60)
        if process.returncode != code:
            raise AssertionError(f"exit code {process.returncode}, expected {code}: {err.decode()}")
        return out.decode().splitlines()

    def batch(self, jobs: Sequence[str], *, role: str = "enqueue") -> list[str]:
        """Enqueue a run of each of these jobs, all at once."""
        path = self.dir / "batch.jsonl"
        path.write_text("".join(json.dumps({"job": job}) + "\n" for job in jobs))
        return self.type("enqueue", "--batch", str(path), role=role)

    def start_worker(self) -> subprocess.Popen[bytes]:
        """A worker that is online. `end` ends it."""
        path = self.dir / f"worker-{len(self._workers)}.log"
        with path.open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-P", "-m", "hueyctl", "worker", "start", "-c", "4"],
                cwd=self.dir,
                env=self._environ | self.recorder.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.roles[worker.pid] = "worker"
        self._workers.append(worker)
        eventually(lambda: worker.poll() is not None or worker.pid in self._online())
        if worker.poll() is not None:
            raise AssertionError(f"the worker did not come online:\n{path.read_text()}")
        return worker

    def stop_workers(self) -> None:
        """Drain all workers, and see them gone."""
        for worker in self._workers:
            if worker.poll() is None:
                worker.terminate()
        for worker in self._workers:
            worker.wait(60)

    def idle(self) -> bool:
        """Is nothing queued or running?"""
        queues = json.loads("".join(self.type("inspect", "--json")))["queues"]
        return not any(queue[state] for queue in queues for state in ("queued", "running"))

    def end(self) -> Recording:
        """The recording; nobody uses the store any more."""
        self.stop_workers()
        self.recorder.close()
        files = [path for path in self.store.parent.glob("queue.db*") if not path.name.endswith("-shm")]
        live = {path.name: path.read_bytes() for path in files}
        return Recording(self.store, self.recorder.records(), self.roles, live)

    def kill(self) -> None:
        """Leave nothing running."""
        for worker in self._workers:
            worker.kill()
            worker.wait()

    def _online(self) -> list[int]:
        status = self.spawn("worker", "status", "--json")
        out, _ = status.communicate(timeout=60)
        return [worker["pid"] for worker in json.loads(out)["workers"]] if status.returncode == 0 else []


def record(folder: Path, library: Path, *, batch: int, singles: int) -> Recording:
    """A store from its making on: accepted with nobody there, two workers, batches under way while single runs come,
    waits, a revoke, retries by hand and by themselves, a worker killed, and all of it stopped."""
    scene = Scene(folder, library)
    try:
        _live(scene, batch=batch, singles=singles)
        return scene.end()
    finally:
        scene.kill()


def _live(scene: Scene, *, batch: int, singles: int) -> None:
    mark = scene.recorder.mark
    for job in ("quick", "command", "flaky"):
        scene.type("enqueue", job, role="enqueue alone")
    first, _ = scene.start_worker(), scene.start_worker()

    [later] = scene.type("enqueue", "quick", "--delay", "1h")
    together = [scene.spawn("enqueue", job) for job in ("quick", "flaky", "command")]
    scene.batch(["quick"] * batch)
    for process in together:
        scene.said(process)
    for number in range(singles):
        job = ("quick", "command", "flaky")[number % 3]
        if number % 2:
            [run] = scene.type("enqueue", job, "--wait")
        else:
            [run] = scene.type("enqueue", job)
            scene.type("wait", run)
        mark("ended", run, "succeeded")
    scene.type("revoke", later)
    mark("ended", later, "revoked")

    [bad] = scene.type("enqueue", "bad", "--wait", code=1)
    mark("ended", bad, "failed")
    mark("retrying", bad)
    scene.type("retry", bad)
    mark("retried", bad, 1)

    runs = scene.batch(["quick", "command"] * (batch // 20))
    first.kill()
    scene.type("wait", *runs)
    for run in runs:
        mark("ended", run, "succeeded")
    scene.start_worker()
    eventually(scene.idle)
    scene.stop_workers()
    scene.batch(["quick", "command"], role="enqueue alone")


def eventually(probe: Callable[[], object], *, timeout: float = 60.0) -> None:
    """Call `probe` until it gives something true."""
    deadline = time.monotonic() + timeout
    while not probe():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {probe}")
        time.sleep(0.05)
