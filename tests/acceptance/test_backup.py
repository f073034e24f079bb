"""`hueyctl backup` while workers run at full speed, and what comes of the copy in another folder."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing

from harness import Project, eventually

JOBS = """
    [jobs.noop]
    python = "noop:noop"
    isolation = "thread"

    [jobs.slow]
    command = ["sleep", "600"]
    """
RUNS = 4_000


def test_a_backup_made_under_load_is_one_moment_and_a_worker_finishes_what_it_holds(project: Project) -> None:
    project.write(JOBS)
    # So long that eight threads are still at it when the copy is made.
    project.file("noop.py", "import time\ndef noop(): time.sleep(0.005)\n")
    (project.dir / "restored" / ".hueyctl").mkdir(parents=True)
    with project.worker(), project.worker():
        slow = project.enqueue("slow")
        project.reaches(slow, "running")
        project.cli("enqueue", "--batch", "-", stdin='{"job": "noop"}\n' * RUNS)
        eventually(lambda: project.runs("--state", "succeeded", "-n", "100"))
        made = project.cli("backup", "restored/.hueyctl/queue.db", "--json")
        live = project.enqueue("noop")
    copy = project.dir / "restored" / ".hueyctl" / "queue.db"
    assert (made.json["backup"]["runs"], made.json["backup"]["file"]) == (RUNS + 1, str(copy))
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in copy.parent.iterdir()) == ["queue.db"]
    states = check_each_run_against_its_events(copy)
    # Taken in the middle of things, or it would show nothing.
    assert states["running"] >= 1
    assert states["queued"] > 0
    assert states["succeeded"] > 0

    restored = Project(project.dir / "restored", project.command)
    restored.env = project.env
    restored.write(JOBS)
    restored.file("noop.py", "def noop(): pass\n")
    # What was under way is rescued at once: the workers that had it hold no locks here.
    with restored.worker():
        eventually(
            lambda: (slow, "lost") in [(event["run"], event["type"]) for event in restored.events("--type=lost")]
        )
        restored.cli("revoke", "--kill", slow)
        left = ("queued", "running", "scheduled")
        eventually(lambda: not restored.runs("--state", ",".join(left)), timeout=60)
    ended = restored.runs()
    assert len(ended) == RUNS + 1
    assert {run["state"] for run in ended if run["id"] != slow} == {"succeeded"}
    assert live not in {run["id"] for run in ended}
    check_each_run_against_its_events(copy)
    # Nobody who has followed the live store misses an event of the restored one, or takes one for another.
    newest = project.events("-n", "1")[0]["seq"]
    assert {event["seq"] > newest for event in restored.events("--after", str(made.json["backup"]["last_seq"]))} == {
        True
    }


def check_each_run_against_its_events(store: object) -> dict[str, int]:
    """The last event of each run tells its state; the counts of lines are those of its runs. How many are in each."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        told = dict(connection.execute("SELECT run, state FROM events WHERE run IS NOT NULL ORDER BY seq"))
        runs = dict(connection.execute("SELECT id, state FROM runs"))
        counted = dict(connection.execute("SELECT state, sum(count) FROM lines WHERE count > 0 GROUP BY state"))
    assert told == runs
    states: dict[str, int] = defaultdict(int)
    for state in runs.values():
        states[state] += 1
    assert counted == {state: states[state] for state in ("queued", "scheduled") if states[state]}
    return states
