"""What a long queue and a long history cost: a claim, an enqueue, an overview, the newest events, at two sizes each.

Prints JSON: {what: [at the small size, at the large size]}, milliseconds of CPU time (of this process for what is done
through the store, of the command for what is a command), and peak memory in MiB. CPU time, since the cost is meant and
not the moment: files of gigabytes are being written back meanwhile. What fills a store and what claims are processes of
their own: a command started by one that has grown would seem as large.

usage: scale.py HUEYCTL RUNS EVENTS, in an empty folder
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hueyctl.model.order import new_ids
from hueyctl.model.outcome import Returned
from hueyctl.model.run import Message, NewRun
from hueyctl.model.transition import Done, Settlement
from hueyctl.storage.place import Place
from hueyctl.storage.sqlite import open_store
from hueyctl.storage.store import JobPolicy, Want, Worker

TIMES = 15
EXCHANGES = 5  # for each time: 300 runs in all, of the thousand

# As the store writes them, but in one statement: two million transactions would take the afternoon.
MORE_EVENTS = """
INSERT INTO events (time, type, state, n, run, job, by)
WITH RECURSIVE number (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < ?)
SELECT ? + i, 'complete', 'succeeded', 1000000000 + i, 'a-run-that-is-long-gone', 'noop', 'bench' FROM number
"""


def main(hueyctl: str, runs: int, events: int) -> None:
    small, large = min(1_000, runs), min(10_000, events)
    few = with_queue(hueyctl, small) | with_events(hueyctl, large)
    many = with_queue(hueyctl, runs) | with_events(hueyctl, events)
    print(json.dumps({what: [cost, many[what]] for what, cost in few.items()}))


def alone(function: Callable[..., object], *arguments: object) -> Any:
    """What the function returns, called in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
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


def typical(measure: Callable[[], float]) -> float:
    """The median of some."""
    return statistics.median(measure() for _ in range(TIMES))


def fill_with_runs(folder: Path, count: int) -> None:
    """Let `count` runs wait."""
    store = open_store(Place(folder / ".hueyctl" / "queue.db").store)
    now = datetime.now(UTC)
    for start in range(0, count, 10_000):
        size = min(10_000, count - start)
        store.accept([NewRun(id=id, job="noop", message=Message()) for id in new_ids(size)], by="bench", now=now)
    store.close()


def claim(folder: Path) -> dict[str, float]:
    """What it costs to take four runs and to settle the four before."""
    store = open_store(Place(folder / ".hueyctl" / "queue.db").store)
    now = datetime.now(UTC)
    facts = {"host": "here", "pid": os.getpid(), "version": "0", "file": "", "concurrency": 4, "lease_s": 30.0}
    store.register(Worker(id="bench", jobs=("noop",), queues=None, started_at=now, beat_at=now, **facts), now=now)
    want = Want(worker="bench", limit=4, jobs={"noop": JobPolicy()})
    settlements: list[Settlement] = []

    def exchange() -> float:
        began = time.process_time()
        for _ in range(EXCHANGES):
            claims = store.exchange(settlements, want, now=datetime.now(UTC)).claims
            settlements[:] = [
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
        return (time.process_time() - began) * 1000 / EXCHANGES

    exchange()
    cost = typical(exchange)
    store.exchange(settlements, None, now=datetime.now(UTC))
    store.unregister("bench", reason="done", now=datetime.now(UTC))
    store.close()
    return {"claim and settle 4": cost, "memory of claiming": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def with_queue(hueyctl: str, count: int) -> dict[str, float]:
    """Costs where `count` runs wait."""
    folder = project(hueyctl, f"queue-{count}")
    alone(fill_with_runs, folder, count)
    costs: dict[str, float] = alone(claim, folder)
    costs["hueyctl enqueue"] = typical(lambda: command(hueyctl, folder, "enqueue", "noop")[0])
    costs["hueyctl inspect"] = typical(lambda: command(hueyctl, folder, "inspect")[0])
    return costs | {"memory of inspect": command(hueyctl, folder, "inspect")[1]}


def fill_with_events(folder: Path, count: int) -> int:
    """Let there be `count` events; the number of the last."""
    store = open_store(Place(folder / ".hueyctl" / "queue.db").store)
    now = int(time.time() * 1e6)
    for start in range(0, count, 500_000):
        with store.database.write(durable=False):
            store.database.run(MORE_EVENTS, min(500_000, count - start), now + start)
    last = store.last_seq()
    store.close()
    return last


def with_events(hueyctl: str, count: int) -> dict[str, float]:
    """Costs where `count` events are recorded."""
    folder = project(hueyctl, f"events-{count}")
    since = str(alone(fill_with_events, folder, count) - 50)
    return {
        "hueyctl events -n 50": typical(lambda: command(hueyctl, folder, "events", "-n", "50")[0]),
        "hueyctl events --after": typical(lambda: command(hueyctl, folder, "events", "--after", since)[0]),
        "memory of events": command(hueyctl, folder, "events", "-n", "50")[1],
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
