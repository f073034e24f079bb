"""What a long queue and a long history cost: a claim, an enqueue, an overview, the newest events, at two sizes each.

Prints JSON: {what: [at the large size, at the small size, ratio]}, milliseconds of CPU time (of the process that
claims, or of the command), and peak memory in MiB. CPU time, since the cost is meant and not the moment. All stores are
made first, and are on the disk; then each cost is measured by turns, large and small (see `turns`). What fills a store
and what claims are processes of their own: a command started by one that has grown would seem as large.

usage: scale.py HUEYCTL RUNS EVENTS, in an empty folder
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from turns import Compared, by_turns

from hueyctl.model.order import new_ids
from hueyctl.model.outcome import Returned
from hueyctl.model.run import Message, NewRun
from hueyctl.model.transition import Done, Settlement
from hueyctl.storage.place import Place
from hueyctl.storage.sqlite import open_store
from hueyctl.storage.store import JobPolicy, Want, Worker

EXCHANGES = 5  # in each turn: some 400 runs in all, of the thousand
SPAWN = get_context("spawn")

# As the store writes them, but in one statement: two million transactions would take the afternoon.
MORE_EVENTS = """
INSERT INTO events (time, type, state, n, run, job, by)
WITH RECURSIVE number (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < ?)
SELECT ? + i, 'complete', 'succeeded', 1000000000 + i, 'a-run-that-is-long-gone', 'noop', 'bench' FROM number
"""


def main(hueyctl: str, runs: int, events: int) -> None:
    queues = queue(hueyctl, "many", runs), queue(hueyctl, "few", min(1_000, runs))
    histories = history(hueyctl, "long", events), history(hueyctl, "short", min(10_000, events))
    os.sync()  # gigabytes, which would be written back while others are measured
    if hasattr(os, "sched_setaffinity"):  # Linux
        # One processor for all from here on: of two, one may be busy, and who claims stays where it is, turn by turn.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    costs = claiming(*queues)
    enqueue = (partial(command, hueyctl, folder, "enqueue", "noop") for folder in queues)
    inspect = (partial(command, hueyctl, folder, "inspect") for folder in queues)
    newest = (partial(command, hueyctl, folder, "events", "-n", "50") for folder, _ in histories)
    after = (partial(command, hueyctl, folder, "events", "--after", str(last - 50)) for folder, last in histories)
    costs["hueyctl enqueue"], _ = by_turns(*enqueue)
    costs["hueyctl inspect"], costs["memory of inspect"] = by_turns(*inspect)
    costs["hueyctl events -n 50"], costs["memory of events"] = by_turns(*newest)
    costs["hueyctl events --after"], _ = by_turns(*after)
    print(json.dumps(costs))


def queue(hueyctl: str, name: str, count: int) -> Path:
    """A project where `count` runs wait."""
    folder = project(hueyctl, f"queue-{name}")
    alone(fill_with_runs, folder, count)
    return folder


def history(hueyctl: str, name: str, count: int) -> tuple[Path, int]:
    """A project where `count` events are recorded, and the number of the last."""
    folder = project(hueyctl, f"history-{name}")
    return folder, alone(fill_with_events, folder, count)


def alone(function: Callable[..., object], *arguments: object) -> Any:
    """What the function returns, called in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(function, *arguments).result()


def project(hueyctl: str, name: str) -> Path:
    """A folder with a jobs.toml and an empty store."""
    folder = Path(name).absolute()
    folder.mkdir()
    (folder / "jobs.toml").write_text('[jobs.noop]\ncommand = ["true"]\n')
    command(hueyctl, folder, "enqueue", "noop")
    return folder


def command(hueyctl: str, folder: Path, *words: str) -> tuple[float, float]:
    """Milliseconds of CPU time of one command, and its peak memory in MiB."""
    child = subprocess.Popen([hueyctl, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = status
    if status:
        sys.exit(f"hueyctl {' '.join(words)} failed")
    return (used.ru_utime + used.ru_stime) * 1000, used.ru_maxrss / 1024


def fill_with_runs(folder: Path, count: int) -> None:
    """Let `count` runs wait."""
    store = open_store(Place(folder / ".hueyctl" / "queue.db").path)
    now = datetime.now(UTC)
    for start in range(0, count, 10_000):
        size = min(10_000, count - start)
        store.accept([NewRun(id=id, job="noop", message=Message()) for id in new_ids(size)], by="bench", now=now)
    store.close()


def fill_with_events(folder: Path, count: int) -> int:
    """Let there be `count` events; the number of the last."""
    store = open_store(Place(folder / ".hueyctl" / "queue.db").path)
    now = int(time.time() * 1e6)
    for start in range(0, count, 500_000):
        with store.database.write(durable=False):
            store.database.run(MORE_EVENTS, min(500_000, count - start), now + start)
    last = store.last_seq()
    store.close()
    return last


def claiming(many: Path, few: Path) -> dict[str, Compared]:
    """What it costs to claim, and the memory of those who do."""
    large, small = Claimer(many), Claimer(few)
    (cost,) = by_turns(large.turn, small.turn)
    memory, other = large.end(), small.end()
    return {"claim and settle 4": cost, "memory of claiming": Compared(memory, other, memory / other)}


class Claimer:
    """A process that claims from the store of a project, in turns."""

    def __init__(self, folder: Path) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=claim, args=(folder, theirs))
        self._process.start()
        theirs.close()  # or its death would go unnoticed

    def turn(self) -> tuple[float]:
        """What an exchange costs it now, in milliseconds of its CPU time."""
        self._pipe.send(True)
        return (self._pipe.recv(),)

    def end(self) -> float:
        """Let it end; its peak memory in MiB."""
        self._pipe.send(False)
        memory: float = self._pipe.recv()
        self._process.join()
        return memory


def claim(folder: Path, pipe: Connection) -> None:
    """Take four runs and settle the four before, some times whenever True comes, and say what it costs; then the peak
    memory."""
    store = open_store(Place(folder / ".hueyctl" / "queue.db").path)
    now = datetime.now(UTC)
    facts = {"host": "here", "pid": os.getpid(), "version": "0", "file": "", "concurrency": 4, "lease_s": 30.0}
    store.register(Worker(id="bench", jobs=("noop",), queues=None, started_at=now, beat_at=now, **facts), now=now)
    want = Want(worker="bench", limit=4, jobs={"noop": JobPolicy()})
    settlements: list[Settlement] = []
    while pipe.recv():
        began = time.process_time()
        for _ in range(EXCHANGES):
            claims = store.exchange(settlements, want, now=datetime.now(UTC)).claims
            settlements = [
                Settlement(
                    n=each.run.n,
                    token=each.token,
                    verdict=Done(),
                    outcome=Returned(),
                    ended_at=datetime.now(UTC),
                    claimed=each.run,
                )
                for each in claims
            ]
        pipe.send((time.process_time() - began) * 1000 / EXCHANGES)
    store.exchange(settlements, None, now=datetime.now(UTC))
    store.unregister("bench", reason="done", now=datetime.now(UTC))
    store.close()
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
