"""`make torture`: round after round, at every failpoint in turn, until the time is up; and what came of it.

Each round is a storm (storm.py) whose history is checked (history.py). A round in which a promise was broken is kept
whole under build/torture, with what was found in it. Exits with 1 if there was one.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from history import check, extra_executions
from storm import CLIENT_STEPS, LEASE_S, ROOT, UPKEEP_STEPS, Plan, Round, play

from hueyctl.failpoints import POINTS

KEPT = ROOT / "build" / "torture"
ACTIONS = ("kill", "error", "stall")


def main(arguments: Sequence[str]) -> int:
    """Play until the time is up; returns the exit code."""
    parser = argparse.ArgumentParser(description="Kill, fail and stall hueyctl at every step, and check its promises.")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--seeds", type=int, default=0, help="end after so many seeds, however long it takes")
    parser.add_argument("--points", default="", help="only these, with commas: points (claim.after) or steps (claim)")
    parser.add_argument("--actions", default=",".join(ACTIONS), help="only these (default: kill,error,stall)")
    given = parser.parse_args(arguments)
    wanted = [name for name in given.points.split(",") if name]
    points = [point for point in POINTS if not wanted or point in wanted or point.partition(".")[0] in wanted]
    actions = [action for action in ACTIONS if action in given.actions.split(",")]
    if not points or not actions:
        parser.error(f"no such points or actions; points are {', '.join(POINTS)}")
    seeds = range(given.seed, given.seed + given.seeds) if given.seeds else itertools.count(given.seed)
    ends_at = None if given.seeds else time.monotonic() + given.minutes * 60
    sums = Sums()
    for plan in plans(points, actions, seeds):
        if ends_at is not None and time.monotonic() >= ends_at:
            break
        with tempfile.TemporaryDirectory(prefix="hueyctl-torture-") as folder:
            false = sums.add(play(plan, Path(folder)))
            said = f"{len(false)} promises broken" if false else "ok"
            print(f"{sums.rounds:4}  {plan}: {sums.last}, {said}", flush=True)
            if false:
                keep(plan, false, Path(folder), sums.rounds)
    print(sums.told(points))
    return 1 if sums.false else 0


def plans(points: Sequence[str], actions: Sequence[str], seeds: Iterator[int] | range) -> Iterator[Plan]:
    """For each seed every point with every action, each time in another order."""
    for seed in seeds:
        dice = random.Random(seed)
        pairs = list(itertools.product(points, actions))
        dice.shuffle(pairs)
        # Kills first: they are what most can go wrong with, should the time not be enough for all.
        pairs.sort(key=lambda pair: pair[1] != "kill")
        for point, action in pairs:
            # Some stalls are as long as it takes to be taken for dead.
            how = f"stall:{dice.choice([0.3, 1.0, 2.2 * LEASE_S])}" if action == "stall" else action
            # A command, and who rescues, comes to its points once in its life.
            often = point.partition(".")[0] not in {*CLIENT_STEPS, *UPKEEP_STEPS}
            yield Plan({point: f"{how}@{dice.choice([1, 2, 3]) if often else 1}"}, seed)


class Sums:
    """What all rounds together came to."""

    def __init__(self) -> None:
        self.rounds = self.kills = self.runs = self.attempts = self.extra = self.events = self.false = 0
        self.seeds: set[int] = set()
        self.fired: Counter[str] = Counter()
        self.last = ""
        self._began = time.monotonic()

    def add(self, played: Round) -> list[str]:
        """Count a round; what is false in it."""
        history = played.history
        false = check(history) + [f"it outlived the round: {line}" for line in played.left]
        killing = any(action.startswith("kill") for action in played.plan.points.values())
        kills = played.kills + (played.fired.total() if killing else 0)
        attempts = sum(event["type"] == "executing" for event in history.events)
        extra = extra_executions(history)
        self.rounds += 1
        self.seeds.add(played.plan.seed)
        self.fired += played.fired
        self.kills += kills
        self.runs += len({event["run"] for event in history.events if event["run"]})
        self.events += len(history.events)
        self.attempts += attempts
        self.extra += extra
        self.false += len(false)
        self.last = (
            f"fired {played.fired.total()}, kills {kills}, accepted {len(history.accepted)}, attempts {attempts}, "
            f"extra executions {extra}"
        )
        return false

    def told(self, points: Sequence[str]) -> str:
        """The figures, as docs/reliability.md shows them."""
        silent = [point for point in points if not self.fired[point]]
        lines = [
            f"rounds {self.rounds} in {(time.monotonic() - self._began) / 60:.1f} minutes, seeds {len(self.seeds)}",
            f"failpoints that fired: {len(points) - len(silent)} of {len(points)}, {self.fired.total()} times",
            f"kills {self.kills}, runs {self.runs}, attempts {self.attempts}, events {self.events}",
            f"executions more than attempts needed: {self.extra}",
            f"broken promises: {self.false}",
        ]
        return "\n".join(lines + [f"not reached: {', '.join(silent)}" for _ in silent[:1]])


def keep(plan: Plan, false: Sequence[str], folder: Path, number: int) -> None:
    """Keep what is left of a round, for who looks into it."""
    kept = KEPT / f"{int(time.time())}-{number}"
    shutil.copytree(folder, kept, ignore=lambda path, names: [name for name in names if name == "bell"])
    (kept / "found.txt").write_text("\n".join([str(plan), *false, ""]))
    print("\n".join(f"      {line}" for line in [*false[:10], f"kept in {kept.relative_to(ROOT)}"]), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
