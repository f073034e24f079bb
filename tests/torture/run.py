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
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from history import check, extra_executions  # noqa: E402 - found in the folders that the line above adds
from postgres_server import PostgresServer  # noqa: E402
from storm import CLIENT_STEPS, LEASE_S, ROOT, UPKEEP_STEPS, Plan, Round, play  # noqa: E402

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
    parser.add_argument("--outages", action="store_true", help="on a server that crashes and restarts all the time")
    given = parser.parse_args(arguments)
    wanted = [name for name in given.points.split(",") if name]
    points = [point for point in POINTS if not wanted or point in wanted or point.partition(".")[0] in wanted]
    actions = [action for action in ACTIONS if action in given.actions.split(",")]
    if not points or not actions:
        parser.error(f"no such points or actions; points are {', '.join(POINTS)}")
    if given.outages:
        with contextlib.closing(PostgresServer()) as server:
            return outages(given, server)
    if given.postgres:
        points = [point for point in points if not point.startswith("checkpoint")]  # the server makes its own
    pairs = list(itertools.product(points, actions))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.closing(PostgresServer())) if given.postgres else None
        return torture(pairs, given, server)


def torture(pairs: Sequence[Pair], given: argparse.Namespace, server: PostgresServer | None) -> int:
    """Play as `given` says, on a database of this server for each round, where there is one."""
    ends_at = time.monotonic() + given.minutes * 60
    sums = Sums(pairs, server)
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


def outages(given: argparse.Namespace, server: PostgresServer) -> int:
    """Play rounds in which nothing but the server fails, until the time is up."""
    ends_at = time.monotonic() + given.minutes * 60
    sums = Sums([], server, with_outages=True)
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

    def __init__(
        self, pairs: Sequence[Pair], server: PostgresServer | None = None, *, with_outages: bool = False
    ) -> None:
        self.pairs, self.server, self.with_outages = pairs, server, with_outages
        self.rounds = self.kills = self.outages = self.runs = self.slots = self.attempts = self.extra = self.events = (
            self.false
        ) = 0
        self.seeds: set[int] = set()
        self.fired: Counter[Pair] = Counter()
        self.last = ""
        self._began = time.monotonic()

    def play(self, plan: Plan) -> None:
        """Play a round, count it, and say what came of it."""
        with tempfile.TemporaryDirectory(prefix="hueyctl-torture-") as folder, self._database() as name:
            outage = None
            if self.server:
                plan = dataclasses.replace(plan, store=self.server.address(name))
                outage = functools.partial(befall, self.server, name) if self.with_outages else None
            false = self.add(play(plan, Path(folder), outage))
            said = f"{len(false)} promises broken" if false else "ok"
            print(f"{self.rounds:4}  {plan}: {self.last}, {said}", flush=True)
            if false:
                keep(plan, false, Path(folder), self.rounds)

    @contextlib.contextmanager
    def _database(self) -> Iterator[str]:
        name = self.server.new_database() if self.server else ""
        yield name
        if self.server:
            self.server.drop_database(name)

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
