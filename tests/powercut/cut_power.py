"""`make powercut`: hundreds of power cuts, the controls that must fail, and what a run costs in syncs.

usage: cut_power.py [--cuts N] [--seed N]   (exit code 1: a promise was broken, or a control was not seen to fail)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import power_judge
import power_workload
import recording
import syncs
from recording import Record

CUTS_PER_RECORDING = 250


def main() -> int:
    """Run it all, and print a line for each part."""
    parser = argparse.ArgumentParser(prog="make powercut")
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="powercut-") as name:
        folder = Path(name)
        library = recording.built(folder) if sys.platform == "linux" else None
        if library is None:
            print("skipped: the recorder needs Linux and a C compiler (cc)")
            return 0
        broken = _cut(folder, library, options.cuts, options.seed)
        return 1 if _count(folder, library) or broken else 0


def _cut(folder: Path, library: Path, cuts: int, seed: int) -> bool:
    broken = False
    for number in range(-(-cuts // CUTS_PER_RECORDING)):
        home = folder / f"recording-{number}"
        home.mkdir()
        recorded = power_workload.record(home, library, batch=600 + 300 * (number % 3), singles=6)
        print(f"recording {number + 1}: {len(recorded.records):,} records, seed {seed + number}", flush=True)

        def without(role: str, roles: dict[int, str] = recorded.roles) -> Callable[[Record], bool]:
            return lambda record: roles.get(record.pid) != role

        store = str(recorded.store.parent)
        parts: dict[str, Callable[[Record], bool]] = {
            "as it is": lambda record: True,
            "control: synchronous=OFF": lambda record, store=store: record.path == store,
            "control: enqueue doesn't sync": without("enqueue"),
            "control: wait doesn't sync": without("wait"),
            "control: workers don't sync": without("worker"),
        }
        for part, counts in parts.items():
            count = min(CUTS_PER_RECORDING, cuts - number * CUTS_PER_RECORDING)
            cut = power_judge.cuts(recorded, home, count=count, seed=seed + number, counts=counts)
            verdicts = list(cut)
            damaged, lost, undone = (
                sum(bool(getattr(verdict, what)) for verdict in verdicts) for what in ("damage", "lost", "undone")
            )
            found = f"{damaged} damaged the store, {lost} lost accepted runs, {undone} undid what was said"
            print(f"  {part}: of {count} cuts {found}", flush=True)
            bad = [verdict for verdict in verdicts if verdict.damage or verdict.lost or verdict.undone]
            if counts is parts["as it is"]:
                for verdict in bad[:10]:
                    print(f"    {verdict}")
                broken = broken or bool(bad)
            elif not bad:
                print("    nothing was found: so this proves nothing")
                broken = True
    return broken


def _count(folder: Path, library: Path) -> bool:
    home = folder / "syncs"
    home.mkdir()
    commands, calls, batch = 20, 200, 10_000
    counted = syncs.counted(home, library, commands=commands, calls=calls, batch=batch)
    print(f"syncs of {commands} `hueyctl enqueue`, to the end of their runs: {dict(counted['commands'])}")
    print(f"syncs of {calls} runs enqueued by one process: {dict(counted['calls'])}")
    print(f"syncs of a batch of {batch:,}: {dict(counted['batch'])}")
    return counted["commands"]["log"] > commands


if __name__ == "__main__":
    sys.exit(main())
