"""One round of torture: real processes, all at it at once, of which some die, fail or stall at one chosen point.

A round has two enqueuers, one who revokes, retries, pauses and resumes, three schedules, two workers (a third comes
later, with a job that only it defines) and a reaper who reloads and kills workers and starts others; where processes
stall, he also stops one for longer than its lease. On a store that has an address, every other worker is in another
folder, with its own locks, as if it were on another machine, and the server may have outages. When the storm is over,
workers without failpoints finish what is left, and what was seen from outside becomes a `history.History`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from history import TERMINAL, History, Limits, marks_from

ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 2.0
CONCURRENCY = 3
CLIENT_STEPS = ("accept", "retry", "revoke")
UPKEEP_STEPS = ("release", "rescue", "prune", "checkpoint")
HARMLESS = "stall:0@1"  # it says that it was there, and goes on
FIRED = re.compile(r"^failpoint (\S+): ", re.MULTILINE)
# A lease that runs out (on a busy machine) is the one other way to lose a run: others found its worker silent, or its
# own guard did, and ended.
SILENT = re.compile(r"silent for longer than its lease")
GUARD_ENDED = re.compile(r"the guard died, and with it")

JOBS = """
[hueyctl]
pythonpath = [".", {root}]
{store}

[worker]
concurrency = {concurrency}
lease = {lease_s}
shutdown_timeout = 5

[retention]
succeeded = {keep}

[defaults]
kill_after = 1

[jobs.quick]
script = 'echo "start $HUEYCTL_RUN_ID $HUEYCTL_ATTEMPT" >> marks; echo "end $HUEYCTL_RUN_ID $HUEYCTL_ATTEMPT" >> marks'
shell = ["sh", "-c"]

[jobs.tiny]
python = "body:tiny"
isolation = "thread"

[jobs.slow]
python = "body:slow"
params = {{ seconds = 0.3 }}

[jobs.flaky]
python = "body:flaky"
params = {{ failures = 1 }}
retries = 2
retry_delay = 0.05
retry_backoff = 2

[jobs.fat]
python = "body:fat"
params = {{ payload = "" }}

[jobs.patient]
python = "body:slow"
params = {{ seconds = 0 }}

[jobs.locked]
python = "body:slow"
params = {{ seconds = 0.05, door = 1 }}
lock = "door-{{door}}"

[jobs.narrow]
python = "body:slow"
params = {{ seconds = 0.05 }}
max_concurrent = {narrow}

[jobs.once]
python = "body:slow"
params = {{ seconds = 0.1 }}
on_worker_lost = "fail"

[jobs.first]
python = "body:slow"
params = {{ seconds = 0.05 }}

[jobs.left]
python = "body:flaky"
params = {{ failures = 1 }}
retries = 2
retry_delay = 0.05

[jobs.right]
python = "body:slow"
params = {{ seconds = 0.1 }}

[jobs.finish]
script = 'echo "start $HUEYCTL_RUN_ID $HUEYCTL_ATTEMPT" >> marks; echo "end $HUEYCTL_RUN_ID $HUEYCTL_ATTEMPT" >> marks'
shell = ["sh", "-c"]

[pipelines.chain]
steps = ["first", ["left", "right"], "finish"]

# Late slots, of which a storm makes many, are all caught up with, recorded as missed, or all but the last are.
[schedules.steady]
job = "quick"
every = "500ms"
overlap = "allow"
grace = 0
catch_up = "all"

[schedules.skipping]
job = "slow"
every = "400ms"
overlap = "skip"
grace = 0
catch_up = "none"

[schedules.lining]
job = "flaky"
every = "900ms"
overlap = "queue"
grace = 0
catch_up = "latest"
"""
PERIODS_MS = {"steady": 500, "skipping": 400, "lining": 900}
# Only the worker that comes later, and the last one, define this: until then its runs are held.
NARROW = 2  # runs of that job at a time
LATER = """
[jobs.later]
python = "body:slow"
params = { seconds = 0.01 }
"""
BODY = """
import os
import time
from hueyctl import current_run

def mark(kind):
    run = current_run()
    line = f"{kind} {run.id} {run.attempt}\\n".encode()
    fd = os.open("marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, line)
    os.close(fd)

def tiny():
    mark("start")
    mark("end")

def slow(seconds, door=0):
    mark("start")
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        mark("tick")
        time.sleep(0.01)
    mark("end")

def flaky(failures):
    mark("start")
    mark("end")
    if current_run().attempt <= failures:
        raise RuntimeError("not yet")

def fat(payload):
    mark("start")
    mark("end")
    return len(payload)
"""
LIMITS = {"flaky": Limits(retries=2), "left": Limits(retries=2), "once": Limits(crash_limit=1)}
STEPS_AFTER = {
    "first": frozenset[str](),
    "left": frozenset({"first"}),
    "right": frozenset({"first"}),
    "finish": frozenset({"left", "right"}),
}


@dataclass(frozen=True)
class Plan:
    """What one round does: `points` are the failpoints armed, each with its action; `seconds` is the storm's length.

    Where one of them has not fired by then, it lasts up to three times as long; where none has, or a harmless one
    hasn't, up to a minute more.
    `store` is the address of the store; without one it is a file.
    """

    points: Mapping[str, str]
    seed: int
    seconds: float = 3.0
    store: str = ""

    def __str__(self) -> str:
        return f"{' '.join(f'{point}={action}' for point, action in self.points.items())} seed {self.seed}"


@dataclass
class Round:
    """What came of it. `fired` counts the failpoints that did; `kills` the processes that the storm killed itself, and
    `outages` those of the server. `wrong`: workers that gave up unasked, and what outlived the round."""

    plan: Plan
    history: History
    fired: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    outages: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    log: Path
    killed: int = 0
    stopped: int = 0

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


Outage = Callable[[random.Random], object]
"""Something that befalls what the store is on, its server or its disk, and is over when it returns."""


def play(plan: Plan, folder: Path, outage: Outage | None = None) -> Round:
    """Play one round in an empty folder, with outages if there is such a thing."""
    storm = _Storm(plan, folder, outage)
    try:
        return storm.play()
    finally:
        storm.end_all()


class _Storm:
    def __init__(self, plan: Plan, folder: Path, outage: Outage | None) -> None:
        self.plan, self.folder, self.outage = plan, folder, outage
        self.dice = random.Random(str(plan))
        self.mark = uuid.uuid4().hex
        names = ("HUEYCTL_", "PYTHON", "COV_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(names)}
        self.env |= {"PYTHONPATH": str(ROOT), "TORTURE_MARK": self.mark, "PYTHONDONTWRITEBYTECODE": "1"}
        self.history = History(limits=LIMITS, concurrency=CONCURRENCY, after=STEPS_AFTER)
        self.fired: Counter[str] = Counter()
        self.kills = self.outages = 0
        self.wrong: list[str] = []
        self.workers: list[_Worker] = []
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.armed = 0
        self.harmless = all(action == HARMLESS for action in plan.points.values())
        self.stalls = not self.harmless and any("stall" in action for action in plan.points.values())
        prunes = any(point.startswith("prune") for point in plan.points)
        if prunes:
            self.history.pruned = frozenset({"succeeded"})
        text = JOBS.format(
            root=json.dumps(str(ROOT)),
            store=f"store = {json.dumps(plan.store)}" if plan.store else "",
            concurrency=CONCURRENCY,
            lease_s=LEASE_S,
            narrow=NARROW,
            keep="1" if prunes else '"7d"',
        )
        self.places = [folder]
        if plan.store:
            self.places.append(folder / "far")
            self.places[1].mkdir()
            (self.places[1] / "marks").symlink_to(folder / "marks")
        for place in self.places:
            (place / "jobs.toml").write_text(text)
            (place / "all.toml").write_text(text + LATER)
            (place / "body.py").write_text(BODY)

    def play(self) -> Round:
        self._define_schedules()
        self._revoke_before_anyone_works()
        self._enqueue_lines([self._line("slow")] * 3 + [self._line("later")] * 2)
        # Before all others: there is to be something to retry from the start.
        self._cli("enqueue", "flaky", "failures=9", "--priority", "9")
        clients = [threading.Thread(target=self._client, args=(seed,)) for seed in range(3)]
        clients += [threading.Thread(target=self._have_outages)] if self.outage else []
        ends_at = time.monotonic() + self.plan.seconds
        running = [self._start_worker() for _ in range(2)]
        for client in clients:
            client.start()
        self._reap(running, ends_at)
        self.over.set()
        for client in clients:
            client.join()
        self._end_workers()
        self._drain()
        self._observe()
        self.wrong += [f"it outlived the round: {line}" for line in self._left()]
        return Round(self.plan, self.history, self.fired, self.kills, self.outages, self.wrong)

    # -- those who ask ----------------------------------------------------------------------------------------------

    def _define_schedules(self) -> None:
        """Let a worker come and go: from then on each slot is to be decided."""
        self._start_worker("--burst", failing=False).process.wait(60)
        self.history.periods_ms, self.history.watched_from = PERIODS_MS, datetime.now(UTC)

    def _revoke_before_anyone_works(self) -> None:
        ids = self._enqueue_lines([self._line("slow"), self._line("quick")])
        done = self._cli("revoke", *ids)
        if done.returncode == 0:
            self.history.never_started += ids

    def _client(self, number: int) -> None:
        dice = random.Random(f"{self.plan} client {number}")
        for turn in itertools.count():
            if self.over.is_set():
                return
            if number < 2:
                self._enqueue(dice)
            else:
                self._change(dice, turn)
                self.over.wait(0.05)

    def _enqueue(self, dice: random.Random) -> None:
        # Who is taken for dead after its lease can't stop its threads: docs/reliability.md says so.
        jobs = ["quick", "slow", "flaky", "once", "later", "chain", "narrow", "locked", "locked"]
        jobs += ["tiny"] * (0 if self.stalls else 2)
        if dice.random() < 0.1 or (self._aims_at("checkpoint") and dice.random() < 0.7):
            self._enqueue_lines([self._line("fat", payload="x" * 100_000)] * 30, dice)
        elif dice.random() < 0.5:
            chosen = dice.choices(jobs, k=dice.randint(2, 8))
            doors = [{"door": dice.choice([1, 2])} if job == "locked" else {} for job in chosen]
            lines = [
                self._line(job, delay=dice.random() < 0.2, **params) for job, params in zip(chosen, doors, strict=True)
            ]
            self._enqueue_lines(lines, dice)
        else:
            job = dice.choice(jobs)
            words = ["--delay", "0.3"] if dice.random() < 0.2 else []
            self._take_in(self._cli("--file", "all.toml", "enqueue", job, *words, dice=dice, step="accept"))

    def _enqueue_lines(self, lines: Sequence[str], dice: random.Random | None = None) -> list[str]:
        words = ("--file", "all.toml", "enqueue", "--batch", "-")
        return self._take_in(self._cli(*words, stdin="\n".join(lines), dice=dice, step="accept"))

    def _line(self, job: str, *, delay: bool = False, **params: object) -> str:
        return json.dumps({"job": job, "params": params} | ({"delay": 0.3} if delay else {}))

    def _take_in(self, done: subprocess.CompletedProcess[str]) -> list[str]:
        # Whole lines alone: what a killed one has printed of an id is none.
        ids = [line for line in done.stdout.split("\n")[:-1] if line]
        with self.lock:
            self.history.accepted += ids
        return ids

    def _change(self, dice: random.Random, turn: int) -> None:
        if turn % 6 == 5:
            self._cli("pause", "--job", "narrow", dice=dice)
            self._cli("resume", "--job", "narrow")
        with self.lock:
            never = set(self.history.never_started)
            known = [id for id in self.history.accepted[-40:] if id not in never]
        some = dice.sample(known, min(4, len(known)))
        if turn % 2 == 0 and not (self._aims_at("retry") and not self._aims_at("revoke") and turn % 8):
            if dice.random() < 0.5:
                self._revoke_in_time(dice)
            else:
                words = ["--kill", "--timeout", "2"] if dice.random() < 0.5 else []
                self._cli("revoke", *some, *words, dice=dice, step="revoke")
        else:
            chosen = ["--state", "failed"] if dice.random() < 0.6 else some
            self._cli("retry", *chosen, dice=dice, step="retry")

    def _revoke_in_time(self, dice: random.Random) -> None:
        """Enqueue for later, and revoke: what was confirmed must never start."""
        ids = self._enqueue_lines([json.dumps({"job": "patient", "delay": 40})])
        if ids and self._cli("revoke", *ids, dice=dice, step="revoke").returncode == 0:
            with self.lock:
                self.history.never_started += ids
        else:
            self._cli("revoke", "--job", "patient")  # nobody is to wait for it at the end

    def _cli(
        self, *words: str, stdin: str = "", dice: random.Random | None = None, step: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Type a command; with `dice` it may be killed, or have the failpoints of its `step`."""
        env, killed_after = self.env, None
        if dice is not None:
            spec = self._spec(step)
            if spec and (self.harmless or dice.random() < 0.7):
                env = {**env, "HUEYCTL_FAILPOINTS": spec}
            elif dice.random() < 0.15:
                killed_after = dice.uniform(0.05, 0.4)
        process = subprocess.Popen(
            [sys.executable, "-m", "hueyctl", *words],
            cwd=self.folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        killer = threading.Timer(killed_after, process.kill) if killed_after is not None else None
        if killer:
            killer.start()
        try:
            out, err = process.communicate(stdin, timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += f"hueyctl {' '.join(words)} hung"
            self.history.runs.append({"id": f"hueyctl {words[0]} hung", "state": "", "attempt": None})
        if killer:
            killer.cancel()
        with self.lock:
            fired = FIRED.findall(err)
            self.fired.update(fired)
            self.kills += process.returncode == -signal.SIGKILL and not fired
        if "Traceback" in err or process.returncode in {2, 70}:
            raise AssertionError(f"hueyctl {' '.join(words)} exited with {process.returncode}:\n{err}")
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def _have_outages(self) -> None:
        assert self.outage
        dice = random.Random(f"{self.plan} outages")
        while not self.over.wait(dice.uniform(0.1, 1.0)):
            self.outage(dice)
            self.outages += 1

    # -- workers ----------------------------------------------------------------------------------------------------

    def _reap(self, running: list[_Worker], ends_at: float) -> None:
        """Keep two workers going, kill one now and then, and let the third come when half of the time has passed."""
        start = time.monotonic()
        third_at = start + self.plan.seconds * 0.5
        kill_at = start + self.plan.seconds * self.dice.uniform(0.3, 0.6)
        kill = self._aims_at("rescue") or self.dice.random() < 0.5
        reload_at = start + self.dice.uniform(0.3, 1.5)
        stop_at = start + self.plan.seconds * self.dice.uniform(0.2, 0.5) if self.stalls else None
        stopped: tuple[_Worker, float] | None = None
        while (now := time.monotonic()) < ends_at or stopped or now < ends_at + self._extra_s():
            for at, worker in enumerate(running):
                if worker.process.poll() is not None:
                    # One whose server isn't there when it comes says so, and ends.
                    if " online: " in worker.said and not worker.killed and not FIRED.search(worker.said):
                        self.wrong.append(f"F: {worker.log.name} ended by itself: {worker.said[-500:]}")
                    running[at] = self._start_worker()
            if third_at and now >= third_at and (not self._aims_at("release") or self._something_is_held()):
                third_at = 0.0
                running.append(self._start_worker(file="all.toml"))
            if now >= reload_at:
                reload_at = now + self.dice.uniform(0.3, 1.5)
                self._reload(self.dice.choice(running))
            if stop_at and now >= stop_at:
                stop_at, stopped = None, (running[1], now + LEASE_S * self.dice.uniform(1.3, 2.0))
                self._enqueue_lines([self._line("slow", seconds=1.0)] * 2 * CONCURRENCY)
                self._stop(running[1])
            if stopped and now >= stopped[1]:
                # Its runs have been given to others: what it has to say of them comes too late.
                stopped[0].process.send_signal(signal.SIGCONT)
                stopped = None
            if kill and now >= kill_at:
                # Once; or, where every point is to be come to, until there was something to rescue.
                kill, kill_at = self.harmless and "rescue.after" in self._silent(), now + 3.0
                # So that it has something under way.
                self._enqueue_lines([self._line("slow", seconds=1.0)] * 2 * CONCURRENCY)
                self._kill(running[0])
            time.sleep(0.02)

    def _start_worker(self, *words: str, file: str = "jobs.toml", failing: bool = True) -> _Worker:
        env = self.env
        spec = self._spec(*{point.partition(".")[0] for point in self.plan.points} - set(CLIENT_STEPS))
        # Not for ever, or nothing would get done; and at least one worker is to see what another one leaves.
        # Any of them may be the one that does the upkeep.
        chance = 0.9 if any(map(self._aims_at, UPKEEP_STEPS)) else 0.6
        few = self.armed < 4 and (self.armed == 0 or self.dice.random() < chance)
        if failing and spec and (few or self.harmless):
            self.armed += 1
            env = {**env, "HUEYCTL_FAILPOINTS": spec}
        log = self.folder / f"worker-{len(self.workers) + 1}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "hueyctl", "--file", file, "worker", "start", *words],
                cwd=self.places[len(self.workers) % len(self.places)],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.workers.append(_Worker(process, log))
        return self.workers[-1]

    def _spec(self, *steps: str) -> str:
        return ";".join(
            f"{point}={action}" for point, action in self.plan.points.items() if point.partition(".")[0] in steps
        )

    def _extra_s(self) -> float:
        """How much longer the storm may last: on a busy machine workers take seconds to come to their first run."""
        silent = self._silent()
        if not silent:
            return 0.0
        return 60.0 if self.harmless or len(silent) == len(self.plan.points) else 2 * self.plan.seconds

    def _silent(self) -> set[str]:
        """The points that have not fired yet."""
        with self.lock:
            fired = set(self.fired)
        return self.plan.points.keys() - fired.union(*(FIRED.findall(worker.said) for worker in self.workers))

    def _something_is_held(self) -> bool:
        return bool(json.loads(self._cli("runs", "--state", "held", "-n", "1", "--json").stdout)["runs"])

    def _aims_at(self, step: str) -> bool:
        return any(point.partition(".")[0] == step for point in self.plan.points)

    def _reload(self, worker: _Worker) -> None:
        if " online: " in worker.said and worker.process.poll() is None:  # before, nothing heeds the signal yet
            worker.process.send_signal(signal.SIGHUP)

    def _stop(self, worker: _Worker) -> None:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGSTOP)
            worker.stopped += 1

    def _kill(self, worker: _Worker) -> None:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.killed += 1
            self.kills += 1
            worker.process.wait()

    def _end_workers(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None and self.dice.random() < 0.5:
                worker.process.terminate()
            else:
                self._kill(worker)
        for worker in self.workers:
            try:
                worker.process.wait(20)
            except subprocess.TimeoutExpired:
                self.history.runs.append({"id": f"{worker.log.name} did not stop", "state": "", "attempt": None})
                self._kill(worker)

    def _drain(self) -> None:
        """Let a worker without failpoints do what is left."""
        self._cli("resume", "--job", "narrow")  # the last one may have come to a server that was away
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.history.watched_until = datetime.now(UTC)
            worker = self._start_worker("--burst", file="all.toml", failing=False)
            try:
                worker.process.wait(max(1.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._kill(worker)
            if all(run["state"] in TERMINAL for run in self._runs()):
                return

    # -- what is seen at the end ------------------------------------------------------------------------------------

    def _runs(self) -> list[dict[str, Any]]:
        return list(json.loads(self._cli("runs", "--json", "-n", "100000").stdout)["runs"])

    def _observe(self) -> None:
        history = self.history
        history.runs += self._runs()
        for run in history.runs:
            if run.get("job") == "locked":
                history.limits_of[run["id"]] = f"door {run['params']['door']}", 1
            elif run.get("job") == "narrow":
                history.limits_of[run["id"]] = "narrow", NARROW
        events = self._cli("events", "--json", "-n", "1000000").stdout
        history.events += [json.loads(line) for line in events.splitlines()]
        marks = self.folder / "marks"
        history.marks += marks_from(marks.read_text().splitlines() if marks.exists() else [])
        by_pid: dict[int, str] = {
            event["data"]["pid"]: event["worker"] for event in history.events if event["type"] == "worker-online"
        }
        for worker in self.workers:
            fired = FIRED.findall(worker.said)
            self.fired.update(fired)
            deaths = worker.killed + worker.stopped + len(SILENT.findall(worker.said))
            deaths += 0 if self.harmless else len(fired)
            # Cut off from a server it lets its guard end what it runs.
            if (self.outages and self.plan.store) or "gave no sign of life" in worker.said:
                deaths += len(GUARD_ENDED.findall(worker.said))
            id = by_pid.get(worker.process.pid)
            if id is not None and deaths:
                history.deaths[id] = deaths

    def _left(self) -> list[str]:
        """The command lines of what still runs of this round a while after its end."""
        deadline = time.monotonic() + 10
        while (left := [line for _, line in self._processes()]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _processes(self) -> Iterator[tuple[int, str]]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if f"TORTURE_MARK={self.mark}".encode() in (entry / "environ").read_bytes():
                        yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()

    def end_all(self) -> None:
        self.over.set()
        for pid, _ in self._processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for worker in self.workers:
            worker.process.wait()
