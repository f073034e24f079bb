"""How many syncs runs cost, end to end, on a store that workers are on. Counted, never timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from power_workload import Scene, eventually

ENQUEUE_ALL = """
import sys, hueyctl
with hueyctl.open_queue("jobs.toml") as queue:
    for _ in range(int(sys.argv[1])):
        queue.enqueue("quick")
"""


def counted(folder: Path, library: Path, *, commands: int, calls: int, batch: int) -> dict[str, Counter[str]]:
    """The syncs, by what was synced ("log", "database", "folder") and up to the end of the last run, of `commands`
    times `hueyctl enqueue`, of `calls` of one process, and of a batch of `batch` runs; one worker with its defaults.

    "cleanings" (no syncs) are how often the worker's keeper cut the log, at most once in ten seconds: three syncs each.
    """
    scene = Scene(folder, library, worker="", contents=False)
    try:
        scene.start_worker()
        scene.type("enqueue", "quick", "--wait")
        return {
            "commands": _syncs(scene, lambda: [scene.type("enqueue", "quick") for _ in range(commands)]),
            "calls": _syncs(scene, lambda: scene.said(scene.python("-c", ENQUEUE_ALL, str(calls)))),
            "batch": _syncs(scene, lambda: scene.batch(["quick"] * batch)),
        }
    finally:
        scene.kill()


def _syncs(scene: Scene, what: Callable[[], object]) -> Counter[str]:
    eventually(scene.idle)
    before = len(scene.recorder.records())
    what()
    eventually(scene.idle)
    names = {scene.store.name: "database", f"{scene.store.name}-wal": "log", scene.store.parent.name: "folder"}
    records = scene.recorder.records()[before:]
    found = Counter(names[Path(record.path).name] for record in records if record.kind == "S")
    found["cleanings"] = sum(record.kind == "T" and record.path.endswith("-wal") for record in records)
    return +found
