"""`make torture`: a round at every failpoint with every action, again until the time is up; and what came of it.

Each round is a storm (storm.py) whose history is checked (history.py). A round in which a promise was broken is kept
whole under build/torture, with what was found in it. Exits with 1 if there was one, and where a failpoint never fired
with one of its actions: what was not come to is not shown.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from history import check, extra_executions  # noqa: E402 - found in the folders that the line above adds
from postgres_server import PostgresServer  # noqa: E402
from storm import CLIENT_STEPS, LEASE_S, ROOT, UPKEEP_STEPS, Outage, Plan, Round, play  # noqa: E402

from hueyctl.failpoints import POINTS  # noqa: E402

KEPT = ROOT / "build" / "torture"
ACTIONS = ("kill", "error", "stall")
# Whether a round comes to its failpoint depends on the machine: so often another seed is tried.
MORE_TRIES = 4
Pair = tuple[str, str]


def main(arguments: Sequence[str]) -> int:
    """Play every pair once, and on until the time is up; returns the exit code."""
    parser = argparse.ArgumentParser(description="Kill, fail and stall hueyctl at every step, and check its promises.")
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="go on with other seeds until so much time has passed (default: 5)"
    )
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--seeds", type=int, default=0, help="play so many seeds, however long it takes")
    parser.add_argument("--points", default="", help="only these, with commas: points (claim.after) or steps (claim)")
    parser.add_argument("--actions", default=",".join(ACTIONS), help="only these (default: kill,error,stall)")
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL, with workers as on two machines")
    parser.add_argument(
        "--outages", choices=["server", "disk"], help="no failpoints, but a server that fails, or a disk that is full"
    )
    given = parser.parse_args(arguments)
    wanted = [name for name in given.points.split(",") if name]
    points = [point for point in POINTS if not wanted or point in wanted or point.partition(".")[0] in wanted]
    actions = [action for action in ACTIONS if action in given.actions.split(",")]
    if not points or not actions:
        parser.error(f"no such points or actions; points are {', '.join(POINTS)}")
    if given.outages == "disk":
        return outages(given, on_small_disk)
    if given.outages:
        with contextlib.closing(PostgresServer()) as server:
            return outages(given, functools.partial(on_server, server, failing=True))
    if given.postgres:
        points = [point for point in points if not point.startswith("checkpoint")]  # the server makes its own
    pairs = list(itertools.product(points, actions))
    with contextlib.ExitStack() as stack:
        ground: Place = on_file
        if given.postgres:
            ground = functools.partial(on_server, stack.enter_context(contextlib.closing(PostgresServer())))
        return torture(pairs, given, ground)


class Ground(NamedTuple):
    """What a round is played on: the address of its store ("": a file), and what befalls that."""

    store: str = ""
    outage: Outage | None = None


Place = Callable[[Path], contextlib.AbstractContextManager[Ground]]
"""Makes the ground for a round in that folder."""


@contextlib.contextmanager
def on_file(folder: Path) -> Iterator[Ground]:
    """A file in the folder."""
    yield Ground()


@contextlib.contextmanager
def on_server(server: PostgresServer, folder: Path, *, failing: bool = False) -> Iterator[Ground]:
    """A database of this server."""
    name = server.new_database()
    yield Ground(server.address(name), functools.partial(befall, server, name) if failing else None)
    server.drop_database(name)


@contextlib.contextmanager
def on_small_disk(folder: Path) -> Iterator[Ground]:
    """A file on a disk of its own, which is full now and then. Linux, as root."""
    disk = folder / ".hueyctl"
    disk.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", disk], check=True)
    try:
        yield Ground(outage=functools.partial(fill, disk))
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def torture(pairs: Sequence[Pair], given: argparse.Namespace, place: Place) -> int:
    """Play as `given` says."""
    ends_at = time.monotonic() + given.minutes * 60
    sums = Sums(pairs, place)
    seeds = itertools.count(given.seed)
    for seed in itertools.islice(seeds, given.seeds or None):
        for plan in plans(pairs, seed):
            if not given.seeds and seed > given.seed and time.monotonic() >= ends_at:
                break
            sums.play(plan)
        if not given.seeds and time.monotonic() >= ends_at:
            break
    for seed in itertools.islice(seeds, MORE_TRIES):
        for plan in plans(sums.silent(), seed):
            sums.play(plan)
    print(sums.told())
    return sums.exit_code()


def outages(given: argparse.Namespace, place: Place) -> int:
    """Play rounds in which nothing but the store's ground fails, until the time is up."""
    ends_at = time.monotonic() + given.minutes * 60
    sums = Sums([], place)
    for seed in itertools.count(given.seed):
        sums.play(Plan({}, seed, seconds=10.0))
        if time.monotonic() >= ends_at:
            break
    print(sums.told())
    return sums.exit_code()


def befall(server: PostgresServer, name: str, dice: random.Random) -> None:
    """Stop the server in order or as in a crash, and start it again; or end some of this database's connections."""
    kind = dice.choice(["fast", "immediate", "connections"])
    if kind == "connections":
        server.end_connections(name, share=dice.choice([0.3, 1.0]))
    else:
        server.stop(kind)
        time.sleep(dice.choice([0.0, 0.0, 0.5]))
        server.start()


def fill(disk: Path, dice: random.Random) -> None:
    """Leave no byte on this disk for a moment, or for longer than a lease."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(65536)):
            pass
    time.sleep(dice.choice([0.1, 0.5, 0.5 * LEASE_S, 1.3 * LEASE_S]))
    filler.unlink(missing_ok=True)


def plans(pairs: Sequence[Pair], seed: int) -> Iterator[Plan]:
    """Every point with its action, each time in another order."""
    dice = random.Random(seed)
    shuffled = dice.sample(pairs, len(pairs))
    # Kills first: they are what most can go wrong with, should somebody not wait for the end.
    shuffled.sort(key=lambda pair: pair[1] != "kill")
    for point, action in shuffled:
        # Some stalls are as long as it takes to be taken for dead.
        how = f"stall:{dice.choice([0.3, 1.0, 2.2 * LEASE_S])}" if action == "stall" else action
        # A command, and who rescues, comes to its points once in its life.
        often = point.partition(".")[0] not in {*CLIENT_STEPS, *UPKEEP_STEPS}
        yield Plan({point: f"{how}@{dice.choice([1, 2, 3]) if often else 1}"}, seed)


class Sums:
    """What all rounds together came to; `pairs` are the points and actions that were to be played."""

    def __init__(self, pairs: Sequence[Pair], place: Place = on_file) -> None:
        self.pairs, self.place = pairs, place
        self.rounds = self.kills = self.outages = self.runs = self.slots = self.attempts = self.extra = self.events = (
            self.false
        ) = 0
        self.seeds: set[int] = set()
        self.fired: Counter[Pair] = Counter()
        self.last = ""
        self._began = time.monotonic()

    def play(self, plan: Plan) -> None:
        """Play a round, count it, and say what came of it."""
        with tempfile.TemporaryDirectory(prefix="hueyctl-torture-") as folder, self.place(Path(folder)) as ground:
            plan = dataclasses.replace(plan, store=ground.store)
            false = self.add(play(plan, Path(folder), ground.outage))
            said = f"{len(false)} promises broken" if false else "ok"
            print(f"{self.rounds:4}  {plan}: {self.last}, {said}", flush=True)
            if false:
                keep(plan, false, Path(folder), self.rounds)

    def add(self, played: Round) -> list[str]:
        """Count a round; what is false in it."""
        history = played.history
        false = check(history) + played.wrong
        killing = any(action.startswith("kill") for action in played.plan.points.values())
        kills = played.kills + (played.fired.total() if killing else 0)
        attempts = sum(event["type"] == "executing" for event in history.events)
        extra = extra_executions(history)
        self.rounds += 1
        self.seeds.add(played.plan.seed)
        for point, count in played.fired.items():
            self.fired[point, re.split("[:@%]", played.plan.points[point])[0]] += count
        self.kills += kills
        self.outages += played.outages
        self.runs += len({event["run"] for event in history.events if event["run"]})
        self.slots += len({(event["schedule"], event["slot"]) for event in history.events if event["slot"]})
        self.events += len(history.events)
        self.attempts += attempts
        self.extra += extra
        self.false += len(false)
        self.last = (
            f"fired {played.fired.total()}, kills {kills}, outages {played.outages}, "
            f"accepted {len(history.accepted)}, attempts {attempts}, "
            f"extra executions {extra}"
        )
        return false

    def silent(self) -> list[Pair]:
        """The pairs that never fired."""
        return [pair for pair in self.pairs if not self.fired[pair]]

    def exit_code(self) -> int:
        """0 when every promise was kept and every pair fired."""
        return 1 if self.false or self.silent() else 0

    def told(self) -> str:
        """The figures, as docs/reliability.md shows them."""
        silent = self.silent()
        lines = [
            f"rounds {self.rounds} in {(time.monotonic() - self._began) / 60:.1f} minutes, seeds {len(self.seeds)}",
            f"failpoints and actions that fired: {len(self.pairs) - len(silent)} of {len(self.pairs)}, "
            f"{self.fired.total()} times",
            f"kills {self.kills}, outages {self.outages}, "
            f"runs {self.runs}, slots {self.slots}, attempts {self.attempts}, events {self.events}",
            f"executions more than attempts needed: {self.extra}",
            f"broken promises: {self.false}",
        ]
        return "\n".join(lines + [f"NEVER FIRED: {point}={action}" for point, action in silent])


def keep(plan: Plan, false: Sequence[str], folder: Path, number: int) -> None:
    """Keep what is left of a round, for who looks into it."""
    kept = KEPT / f"{int(time.time())}-{number}"
    shutil.copytree(folder, kept, ignore=lambda path, names: [name for name in names if name == "bell"])
    (kept / "found.txt").write_text("\n".join([str(plan), *false, ""]))
    print("\n".join(f"      {line}" for line in [*false[:10], f"kept in {kept.relative_to(ROOT)}"]), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
