"""The least that could run commands the way hueyctl does: what of the figure is the design's, and not the product's.

Huey's `execute` on four threads; one single-threaded process that starts the programs, with pipes, and reads what they
print; and at the end of each a transaction in the store's own tables that records it with an event, and claims the next
with another. Nothing else: no environment, folder, parameters, files, limits, timeouts, tokens, log, or wake-ups, and
nothing that anybody could rely on. Prints runs a second.

usage: least.py DATABASE COUNT THREADS
"""

from __future__ import annotations

import json
import os
import select
import socket
import sqlite3
import sys
import threading
import time
from importlib.resources import files

from huey.api import Huey, Task
from huey.storage import BaseStorage

database, count, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

INSERT = """
INSERT INTO runs (n, id, state, job, queue, priority, enqueued_at, due_at, message)
VALUES (?, ?, 'queued', 'true', 'default', 0, 0, 0, '{}')
"""
END = "UPDATE runs SET state = 'succeeded', finished_at = ?, exit_code = ?, token = NULL WHERE n = ? AND token = ?"
NEXT = """
SELECT n, id FROM runs WHERE state = 'queued' AND gate IS NULL AND queue = 'default' AND job = 'true'
ORDER BY priority DESC, n LIMIT ?
"""
CLAIM = "UPDATE runs SET state = 'running', attempt = attempt + 1, worker = 'w', started_at = ?, token = ? WHERE n = ?"
EVENT = "INSERT INTO events (time, type, state, n, run, job, attempt, worker) VALUES (?, ?, ?, ?, ?, 'true', 1, 'w')"


def guard(channels: list[socket.socket]) -> None:
    """Start /bin/true for each request, and answer when it has ended."""
    asking = {channel.fileno(): channel for channel in channels}
    running: dict[int, tuple[socket.socket, int, int]] = {}  # by the end of its stdout
    ready = select.poll()
    for fd in asking:
        ready.register(fd, select.POLLIN)
    null = os.open(os.devnull, os.O_RDWR)
    while True:
        for fd, _ in ready.poll():
            if fd in asking:
                request = json.loads(asking[fd].recv(65536))
                out, to_out = os.pipe()
                err, to_err = os.pipe()
                actions = [(os.POSIX_SPAWN_DUP2, each, to) for to, each in enumerate((null, to_out, to_err))]
                env = {**os.environ, "RUN": request["run"]}
                pid = os.posix_spawn("/bin/true", ["/bin/true"], env, file_actions=actions, setpgroup=0)
                os.close(to_out)
                os.close(to_err)
                running[out] = asking[fd], pid, err
                ready.register(out, select.POLLIN)
            elif not os.read(fd, 65536):
                channel, pid, err = running.pop(fd)
                ready.unregister(fd)
                _, status = os.waitpid(pid, 0)
                os.read(err, 65536)
                os.close(fd)
                os.close(err)
                channel.send(json.dumps({"status": status}).encode())


class NoStorage(BaseStorage):
    """What `execute` may ask."""

    def peek_many(self, keys: object) -> dict[str, bytes]:
        return {}

    def delete_data(self, key: object) -> bool:
        return False


class Runs:
    """The store: one thread at a time settles and claims for all."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        schema = files("hueyctl.storage").joinpath("schema.sql").read_text(encoding="utf-8")
        self.connection.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {schema}")
        self.connection.execute("BEGIN")
        self.connection.executemany(INSERT, [(n, f"run {n}") for n in range(1, count + 1)])
        self.connection.execute("COMMIT")
        self._role, self._lock = threading.Lock(), threading.Lock()
        self._ended: list[tuple[int, str, int]] = []
        self._claimed: list[tuple[int, str]] = []
        self._wanted = 0

    def next(self, ended: tuple[int, str, int] | None) -> tuple[int, str] | None:
        """Settle what this thread has ended, and claim for it."""
        with self._lock:
            self._ended += [ended] if ended else []
            self._wanted += 1
        with self._role:
            with self._lock:
                endings, self._ended = self._ended, []
                wanted, self._wanted = self._wanted, 0
            if endings or wanted:
                claimed = self._exchange(endings, wanted)
                with self._lock:
                    self._claimed = claimed[::-1] + self._claimed
            with self._lock:
                return self._claimed.pop() if self._claimed else None

    def _exchange(self, endings: list[tuple[int, str, int]], wanted: int) -> list[tuple[int, str]]:
        execute, now = self.connection.execute, time.time_ns() // 1000
        execute("BEGIN IMMEDIATE")
        for n, run, status in endings:
            execute(END, (now, status, n, run))
            execute(EVENT, (now, "complete", "succeeded", n, run))
        claims = execute(NEXT, (wanted,)).fetchall()
        for n, run in claims:
            execute(CLAIM, (now, run, n))
            execute(EVENT, (now, "executing", "running", n, run))
        execute("COMMIT")
        return claims


class Command(Task):
    """One run, by the channel of its thread."""

    def execute(self) -> int:
        channel, run = self.args
        channel.send(json.dumps({"run": run}).encode())
        return int(json.loads(channel.recv(65536))["status"])


def work(huey: Huey, runs: Runs, channel: socket.socket) -> None:
    ended = None
    while (claim := runs.next(ended)) is not None:
        n, run = claim
        ended = n, run, huey.execute(Command(args=(channel, run), id=run)) or 0


pairs = [socket.socketpair() for _ in range(threads)]
if (child := os.fork()) == 0:
    guard([theirs for _, theirs in pairs])
runs = Runs()
huey = Huey("least", results=False, utc=True, storage_class=NoStorage)
huey._registry.register(Command)
workers = [threading.Thread(target=work, args=(huey, runs, ours)) for ours, _ in pairs]
began = time.perf_counter()
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
took_s = time.perf_counter() - began
os.kill(child, 9)
(left,) = runs.connection.execute("SELECT count(*) FROM runs WHERE state <> 'succeeded'").fetchone()
if left:
    sys.exit(f"{left} of {count} runs did not end")
print(count / took_s)
