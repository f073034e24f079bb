"""`make soak`: a worker under a load that doesn't stop, with a retention of seconds. Does its store stay small?

A batch follows the other as soon as the worker has almost finished it: mostly calls in a thread, some in a warm child,
some commands. Meanwhile the size of the store's file and of its log, and the memory of the worker and its guard, are
looked at from outside. Once they have had time to reach their level (the first third), they must stay there: whatever
leaks a row, a page or a few bytes per run shows after hundreds of thousands.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from hueyctl.storage.sqlite import open_store

JOBS_TOML = """
[worker]
lease = "3s"

[retention]
succeeded = "{retention}"
failed = "{retention}"
events = "{retention}"

[jobs.noop]
python = "noop:noop"
isolation = "thread"

[jobs.warm]
python = "noop:noop"

[jobs.true]
command = ["true"]
"""
LINES = b'{"job": "noop"}\n' * 94 + b'{"job": "warm"}\n' * 5 + b'{"job": "true"}\n'
BATCH = 2_000
# The file is as large as the busiest moment made it, and its levels are those of a busy machine; what grows for ever
# passes any.
FILE_GROWTH = 1.25
# Of the memory, what is always held: above that it comes and goes with the batches. 40 bytes a run, less than the
# smallest object, are as much; and a worker reaches its level slowly.
MEMORY_GROWTH = 1.04
MIB = 2**20


class Look(NamedTuple):
    """What was seen at one moment; sizes in bytes."""

    ended: int
    file: int
    log: int
    memory: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--retention", default="5s")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hueyctl-soak-") as folder:
        looks, seconds = soak(Path(folder), given.runs, given.retention)
    print(report(looks, seconds))
    if problems := judge(looks):
        sys.exit("\n".join(problems))


def soak(folder: Path, runs: int, retention: str) -> tuple[list[Look], float]:
    """Let a worker do so many runs; what was seen meanwhile, twice a second, and how long it took."""
    (folder / "jobs.toml").write_text(JOBS_TOML.format(retention=retention))
    (folder / "noop.py").write_text("def noop(): pass\n")
    worker = subprocess.Popen([*hueyctl(), "worker", "start"], cwd=folder, env=env(), stderr=subprocess.DEVNULL)
    try:
        began, looks, enqueued = time.monotonic(), list[Look](), 0
        lines = LINES * (BATCH // 100)
        while enqueued < runs:
            subprocess.run(
                [*hueyctl(), "enqueue", "--batch", "-"],
                cwd=folder,
                env=env(),
                input=lines,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            enqueued += BATCH
            await_almost_done(folder, worker, enqueued, looks)
        seconds = time.monotonic() - began
        subprocess.run([*hueyctl(), "doctor", "--full"], cwd=folder, env=env(), stdout=subprocess.DEVNULL, check=True)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    return looks, seconds


def await_almost_done(folder: Path, worker: subprocess.Popen[bytes], enqueued: int, looks: list[Look]) -> None:
    """Return when less than a quarter of a batch is left."""
    store = folder / ".hueyctl" / "queue.db"
    deadline = time.monotonic() + 300
    with closing(open_store(store, read_only=True)) as reader:
        while (left := sum(line.count for line in reader.lines())) > BATCH / 4:
            if worker.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the worker has ended, or {left} runs are left: it doesn't work any more")
            time.sleep(0.02)
    looks.append(Look(enqueued - left, size(store), size(Path(f"{store}-wal")), memory(worker.pid)))


def judge(looks: list[Look]) -> list[str]:
    """What has grown in the last third over what it was in the second."""
    third = len(looks) // 3
    second, last = looks[third : 2 * third], looks[2 * third :]
    return [
        *_grown("the file", *(max(look.file for look in each) for each in (second, last)), FILE_GROWTH),
        *_grown("the memory", *(min(look.memory for look in each) for each in (second, last)), MEMORY_GROWTH),
    ]


def _grown(what: str, before: int, after: int, most: float) -> list[str]:
    if after <= before * most:
        return []
    return [f"{what} grew from {before / MIB:.1f} to {after / MIB:.1f} MiB, and may go on"]


def report(looks: list[Look], seconds: float) -> str:
    """Ten rows of what was seen."""
    rows = ["   runs  file MiB  log MiB  memory MiB"]
    for index in range(1, 11):
        look = looks[len(looks) * index // 10 - 1]
        rows.append(f"{look.ended:7,}  {look.file / MIB:8.1f}  {look.log / MIB:7.1f}  {look.memory / MIB:10.1f}")
    return "\n".join([*rows, f"{looks[-1].ended / seconds:,.0f} runs a second for {seconds:.0f} s"])


def memory(pid: int) -> int:
    """The resident memory of a process and of its children (its guard)."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    pids = [pid, *map(int, children.read_text().split())]
    return sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in pids) * os.sysconf("SC_PAGE_SIZE")


def size(path: Path) -> int:
    try:
        return path.stat().st_size  # never opened: that would drop SQLite's locks in this process
    except FileNotFoundError:
        return 0


def hueyctl() -> list[str]:
    return [sys.executable, "-P", "-m", "hueyctl"]


def env() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("HUEYCTL_")}


if __name__ == "__main__":
    main()
