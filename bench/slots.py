"""How late the command of a schedule starts after its slot, on an idle machine. Prints milliseconds, a slot a line.

usage: slots.py HUEYCTL COUNT, in an empty folder; it takes a second a slot
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

JOBS_TOML = """
[jobs.tick]
command = ["date", "+%s%N"]

[schedules.tick]
every = "1s"
"""


def main(hueyctl: str, count: int) -> None:
    Path("jobs.toml").write_text(JOBS_TOML)

    def cli(*words: str) -> str:
        return subprocess.run([hueyctl, *words], text=True, stdout=subprocess.PIPE, check=True).stdout

    cli("worker", "start", "--detach")
    try:
        time.sleep(count + 3)  # nothing is asked meanwhile: the machine is idle
    finally:
        cli("worker", "stop")
    runs = json.loads(cli("runs", "--schedule", "tick", "--json", "-n", str(2 * count)))["runs"]
    # The oldest last. At the first of them the worker was still starting.
    runs = runs[-1 - count : -1]
    if len(runs) < count or any(run["state"] != "succeeded" for run in runs):
        sys.exit(f"expected {count} slots whose runs succeeded, got {[run['state'] for run in runs]}")
    for run in reversed(runs):
        print(int(run["result"]) / 1e6 - datetime.fromisoformat(run["scheduled_at"]).timestamp() * 1e3)


main(sys.argv[1], int(sys.argv[2]))
