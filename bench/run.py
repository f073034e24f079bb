"""`make bench`: how fast hueyctl is, as ratios against something known, measured side by side in one run.

Absolute figures say more about a machine than about a program, so each line has a yardstick that was measured in the
same minute: Huey's own SQLite consumer, bare subprocesses, a one-command Typer program, SQLite alone. It takes some
minutes and asserts nothing; `--quick` takes a tenth of everything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from turns import by_turns

BIN = Path(sys.executable).parent
HERE = Path(__file__).resolve().parent
THREADS = 4
BURSTS = 8  # pairs: with all runs each takes some twenty seconds
BATCHES = 6  # the same: some ten seconds

JOBS_TOML = """
[jobs.thread]
python = "noop:noop"
isolation = "thread"

[jobs.child]
python = "noop:noop"

[jobs.true]
command = ["/bin/true"]

[jobs.clock]
command = ["date", "+%s%N"]
"""


class Line(NamedTuple):
    """One row of the table."""

    what: str
    ours: str
    yardstick: str
    ratio: str
    goal: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    share = 10 if parser.parse_args().quick else 1
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="hueyctl-bench-") as folder:
        for measure in (python_runs, commands, latency, slots, enqueue_command, peers, batch, scale):
            lines += measure(Bench(Path(folder), share))
            print(f"{lines[-1].what}: {lines[-1].ratio}", file=sys.stderr)
    print(table(lines))


class Bench:
    """A project in a folder of its own for each measurement."""

    def __init__(self, folder: Path, share: int) -> None:
        self.dir = Path(tempfile.mkdtemp(dir=folder))
        self.share = share
        (self.dir / "jobs.toml").write_text(JOBS_TOML)
        (self.dir / "noop.py").write_text("def noop(): pass\n")
        # Programs are measured as they are installed: with their bytecode compiled.
        left_out = ("HUEYCTL_", "PYTHONDONTWRITEBYTECODE")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}

    def count(self, full: int) -> int:
        return max(1, full // self.share)

    def cli(self, *words: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [BIN / "hueyctl", *words],
            cwd=self.dir,
            env=self.env,
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"hueyctl {' '.join(words)}: {done.stderr}")
        return done.stdout

    def runs_a_second(self, job: str, count: int) -> float:
        """From the first claim to the last end, by the event log, of a burst over `count` waiting runs."""
        self.cli("enqueue", "--batch", "-", stdin=f'{{"job": "{job}"}}\n' * count)
        self.cli("worker", "start", "--burst", "--concurrency", str(THREADS))
        events = [json.loads(line) for line in self.cli("events", "--json", "-n", str(10 * count)).splitlines()]
        events = [event for event in events if event["job"] == job]
        started = min(event["time"] for event in events if event["type"] == "executing")
        ended = [event["time"] for event in events if event["type"] == "complete"]
        if len(ended) != count:
            sys.exit(f"{len(ended)} of {count} runs of {job} succeeded")
        return count / (datetime.fromisoformat(max(ended)) - datetime.fromisoformat(started)).total_seconds()


@contextmanager
def new_project(bench: Bench) -> Iterator[Bench]:
    """A project and a store of its own for one turn."""
    with tempfile.TemporaryDirectory(dir=bench.dir) as folder:
        project = Bench(Path(folder), bench.share)
        os.sync()  # what was written in the turn before isn't to be waited for in this one
        yield project


def python_runs(bench: Bench) -> list[Line]:
    """No-op Python jobs against Huey's own consumer on its SQLite storage, by turns; each time on a new store."""
    count = bench.count(6_000)
    huey_consumer = [sys.executable, HERE / "huey_consumer.py"]

    def ours() -> tuple[float, float]:
        with new_project(bench) as project:
            return project.runs_a_second("thread", count), project.runs_a_second("child", count // 2)

    def huey() -> tuple[float, float]:
        with new_project(bench) as project:
            words = [str(project.dir / "huey.db"), str(count), str(THREADS)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            rate = float(subprocess.run([*huey_consumer, *words], text=True, check=True, **pipes).stdout)
            return rate, rate

    return [
        Line(
            f"no-op Python runs, in {where}",
            f"{rate.ours:,.0f}/s",
            f"{rate.yardstick:,.0f}/s SqliteHuey, {THREADS} threads",
            f"{rate.ratio:.2f} x",
            goal,
        )
        for where, goal, rate in zip(
            ("threads", "warm children"), (">= 3 x", ">= 1 x"), by_turns(ours, huey, pairs=BURSTS), strict=True
        )
    ]


def commands(bench: Bench) -> list[Line]:
    """/bin/true with its output captured, against a bare loop of subprocesses with pipes, by turns; and the least that
    could run it the way hueyctl does."""
    count = bench.count(1_500)

    def ours() -> tuple[float, float]:
        with new_project(bench) as project:
            words = [sys.executable, HERE / "least.py", str(project.dir / "least.db"), str(count), str(THREADS)]
            least = float(subprocess.run(words, text=True, check=True, stdout=subprocess.PIPE).stdout)
            return project.runs_a_second("true", count), least

    def bare() -> tuple[float, float]:
        began = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda _: subprocess.run(["/bin/true"], capture_output=True, check=True), range(count)))
        rate = count / (time.perf_counter() - began)
        return rate, rate

    return [
        Line(
            what,
            f"{rate.ours:,.0f}/s",
            f"{rate.yardstick:,.0f}/s subprocess.run",
            f"{rate.ratio:.2f} x",
            goal,
        )
        for (what, goal), rate in zip(
            (("/bin/true as a command", ">= 0.8 x"), ("the least that could run it", "")),
            by_turns(ours, bare, pairs=BURSTS),
            strict=True,
        )
    ]


def latency(bench: Bench) -> list[Line]:
    """From the return of an enqueue to the first moments of the command, the worker being idle before."""
    bench.cli("worker", "start", "--detach")
    try:
        done = subprocess.run(
            [sys.executable, HERE / "latency.py", str(bench.count(100))],
            cwd=bench.dir,
            env=bench.env,
            text=True,
            stdout=subprocess.PIPE,
            check=True,
        )
    finally:
        bench.cli("worker", "stop")
    waits = sorted(float(line) for line in done.stdout.split())
    bare = statistics.median(_date() for _ in range(20))
    p50, p99 = waits[len(waits) // 2], waits[min(len(waits) - 1, len(waits) * 99 // 100)]
    return [
        Line(
            "enqueue to start, idle: median",
            f"{p50:.1f} ms",
            f"{bare:.1f} ms bare start",
            f"{p50 / bare:.2f} x",
            "<= 5 ms",
        ),
        Line("enqueue to start, idle: 99 of 100", f"{p99:.1f} ms", "", "", "<= 20 ms"),
    ]


def slots(bench: Bench) -> list[Line]:
    """From the slot of a schedule to the first moments of its command, second after second, and whether that grows."""
    count = max(9, bench.count(30))
    script = [sys.executable, HERE / "slots.py", str(BIN / "hueyctl"), str(count)]
    done = subprocess.run(script, cwd=bench.dir, env=bench.env, text=True, stdout=subprocess.PIPE, check=True)
    late = [float(line) for line in done.stdout.split()]
    drift = statistics.median(late[-len(late) // 3 :]) - statistics.median(late[: len(late) // 3])
    ordered, bare = sorted(late), statistics.median(_date() for _ in range(20))
    p50, p90, latest = statistics.median(late), ordered[len(late) * 9 // 10], ordered[-1]
    start = f"{bare:.1f} ms bare start"
    return [
        Line("slot to start, idle: median", f"{p50:.1f} ms", start, f"{p50 / bare:.2f} x", ""),
        Line("slot to start, idle: 9 of 10", f"{p90:.1f} ms", "", f"{p90 / bare:.2f} x", ""),
        Line("slot to start, idle: drift", f"{drift:+.1f} ms in {count} s", "", "", "none"),
        Line("slot to start, idle: the latest", f"{latest:.1f} ms", "", f"{latest / bare:.2f} x", "<= 50 ms"),
    ]


def enqueue_command(bench: Bench) -> list[Line]:
    """`hueyctl enqueue` as a command against the smallest Typer program, turn by turn."""
    (bench.dir / "one.py").write_text(
        "import typer\napp = typer.Typer()\n@app.command()\ndef main(name: str): print(name)\napp()\n"
    )
    bench.cli("enqueue", "true")

    def ours() -> None:
        subprocess.run(
            [BIN / "hueyctl", "enqueue", "true"], cwd=bench.dir, env=bench.env, capture_output=True, check=True
        )

    def typer() -> None:
        subprocess.run([sys.executable, "one.py", "x"], cwd=bench.dir, env=bench.env, capture_output=True, check=True)

    times = [(_ms(ours), _ms(typer)) for _ in range(bench.count(40))]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    return [
        Line("hueyctl enqueue", f"{mine:.0f} ms", f"{other:.0f} ms Typer program", f"{mine / other:.2f} x", "<= 1.5 x")
    ]


def peers(bench: Bench) -> list[Line]:
    """`hueyctl enqueue` against how long the commands of others take to say how they are used: they need a server, and
    an enqueue of theirs takes longer than that."""
    folder = BIN.parent / "peers" / "bin"  # made by `make bench`
    bench.cli("enqueue", "true")
    lines = []
    for words in (["rq", "enqueue"], ["celery", "call"], ["procrastinate", "defer"]):
        times = []
        for _ in range(max(3, bench.count(20))):
            ours = _ms(lambda: bench.cli("enqueue", "true"))
            began = time.perf_counter()
            subprocess.run(
                [folder / words[0], *words[1:], "--help"],
                cwd=bench.dir,
                env=bench.env,
                stdout=subprocess.DEVNULL,
                check=True,
            )
            times.append((ours, (time.perf_counter() - began) * 1000))
        mine, other = (statistics.median(column) for column in zip(*times, strict=True))
        yardstick = f"{other:.0f} ms {' '.join(words)} --help"
        lines.append(Line("hueyctl enqueue", f"{mine:.0f} ms", yardstick, f"{mine / other:.2f} x", "<= 0.5 x"))
    return lines


def scale(bench: Bench) -> list[Line]:
    """What a long queue and a long history cost, against a short one, by turns (CPU time)."""
    runs, events = bench.count(1_000_000), bench.count(10_000_000)
    script = [sys.executable, HERE / "scale.py", str(BIN / "hueyctl"), str(runs), str(events)]
    done = subprocess.run(script, cwd=bench.dir, env=bench.env, text=True, stdout=subprocess.PIPE, check=True)
    lines = []
    for what, (large, small, ratio) in json.loads(done.stdout).items():
        size = f"{events:,} events" if "events" in what else f"{runs:,} queued"
        unit = "MiB" if what.startswith("memory") else "ms"
        few = "10,000" if "events" in what else "1,000"
        yardstick = f"{small:.2f} {unit} at {few}"
        lines.append(Line(f"{size}: {what}", f"{large:.2f} {unit}", yardstick, f"{ratio:.2f} x", "<= 1.3 x"))
    return lines


def batch(bench: Bench) -> list[Line]:
    """Many runs in one transaction, the command's own start included, against SQLite alone with the rows of the same
    runs, by turns; each time into a new store."""
    count = bench.count(100_000)
    lines = '{"job": "true"}\n' * count
    bench.cli("enqueue", "--batch", "-", stdin=lines)
    rows = bench.dir / ".hueyctl" / "queue.db"

    def ours() -> tuple[float]:
        with new_project(bench) as project:
            return (count / _ms(lambda: project.cli("enqueue", "--batch", "-", stdin=lines)) * 1000,)

    def alone() -> tuple[float]:
        with tempfile.TemporaryDirectory(dir=bench.dir) as folder:
            script = [sys.executable, HERE / "sqlite_alone.py", rows, Path(folder) / "new.db"]
            os.sync()
            return (float(subprocess.run(script, text=True, stdout=subprocess.PIPE, check=True).stdout),)

    (rate,) = by_turns(ours, alone, pairs=BATCHES)
    return [
        Line(
            f"enqueue --batch, {count:,} lines",
            f"{rate.ours:,.0f}/s",
            f"{rate.yardstick:,.0f}/s SQLite alone",
            f"{rate.ratio:.2f} x",
            ">= 50,000/s",
        )
    ]


def _ms(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def _date() -> float:
    before = time.time_ns()
    return (int(subprocess.run(["date", "+%s%N"], capture_output=True, check=True).stdout) - before) / 1e6


def table(lines: list[Line]) -> str:
    rows = [Line("what", "hueyctl", "yardstick", "ratio", "goal"), *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:]])


if __name__ == "__main__":
    main()
