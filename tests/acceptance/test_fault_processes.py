"""Workers that are stopped, guards that are killed, runs that kill: each run has one outcome, and nothing overlaps."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from harness import Project, WorkerProcess, eventually

LEASE_S = 2.0
# Each attempt notes what it finds still running of those before it, and then itself.
LONG = """
    [worker]
    lease = "2s"

    [jobs.long]
    script = '''
    for pid in $(cat pids 2>/dev/null); do readlink "/proc/$pid/exe" >/dev/null && echo "overlap: $pid" >> marks; done
    if [ "$HUEYCTL_ATTEMPT" -gt "$PARAM_LOST" ]; then echo "attempt $HUEYCTL_ATTEMPT ended" >> marks; exit 0; fi
    setsid sleep 300 &
    echo $$ $! >> pids
    echo "attempt $HUEYCTL_ATTEMPT started" >> marks
    wait
    '''
    params = { lost = 1 }

    [jobs.held]
    script = '''
    for pid in $(cat pids 2>/dev/null); do readlink "/proc/$pid/exe" >/dev/null && echo "overlap: $pid" >> marks; done
    echo $$ >> pids
    echo "attempt $HUEYCTL_ATTEMPT started" >> marks
    until [ -e go ]; do sleep 0.05; done
    '''

    [jobs.quick]
    script = 'echo "$PARAM_NAME" >> quick'
    params = { name = "x" }
    """


def guard_of(worker: WorkerProcess, project: Project) -> int:
    """The pid of a worker's guard."""
    return next(pid for pid, line in project.processes().items() if "guard_main" in line and _parent(pid) == worker.pid)


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


def ends(project: Project, run: str) -> list[tuple[int | None, str]]:
    """A run's events but those that refused a late settlement."""
    return [entry for entry in project.history(run) if entry[1] != "stale"]


def test_a_worker_stopped_past_its_lease_finds_its_runs_given_away(project: Project) -> None:
    """What it had is dead before another starts it again; its late settlement is refused, and that is recorded."""
    project.write(LONG)
    with project.worker() as stopped:
        run = project.enqueue("long")
        eventually(lambda: project.lines("marks") == ["attempt 1 started"])
        stopped.signal(signal.SIGSTOP)
        with project.worker():
            found = project.reaches(run, "succeeded")
            assert (found["attempt"], found["losses"]) == (2, 1)
            stopped.signal(signal.SIGCONT)
            (stale,) = eventually(lambda: project.events("--run", run, "--type", "stale"))
            assert (stale["data"]["attempt"], stale["state"]) == (1, "succeeded")
            assert project.run(run) == found
            # It goes on as a worker among others.
            eventually(lambda: len(project.workers()) == 2)
    assert project.lines("marks") == ["attempt 1 started", "attempt 2 ended"]
    assert ends(project, run) == [(None, "enqueued"), (1, "executing"), (1, "lost"), (2, "executing"), (2, "complete")]
    assert "no heartbeat for 2 s" in project.events("--run", run, "--type", "lost")[0]["data"]["cause"]


def test_what_a_stopped_worker_had_claimed_and_not_begun_is_begun_by_nobody_else_too(project: Project) -> None:
    """Stopped between its claim and the start, it finds a dead guard when it goes on, starts another, and must not hand
    it what somebody else has run meanwhile."""
    project.write(LONG)
    with project.worker(env={"HUEYCTL_FAILPOINTS": "claim.after=stall:1@1"}) as stopped:
        run = project.enqueue("long")
        eventually(lambda: "failpoint claim.after: stall" in stopped.log)
        stopped.signal(signal.SIGSTOP)
        with project.worker():
            found = project.reaches(run, "succeeded")
            stopped.signal(signal.SIGCONT)
            (stale,) = eventually(lambda: project.events("--run", run, "--type", "stale"))
        assert stale["data"]["attempt"] == 1
        assert project.run(run) == found
        project.reaches(project.enqueue("quick"), "succeeded")
    assert project.lines("marks") == ["attempt 2 ended"]
    assert ends(project, run) == [(None, "enqueued"), (1, "executing"), (1, "lost"), (2, "executing"), (2, "complete")]


def test_a_worker_that_is_frozen_with_its_guard_is_waited_for(project: Project) -> None:
    """As in a container that is paused: what it runs may go on, and is run by nobody else meanwhile."""
    project.write(LONG)
    with project.worker() as frozen:
        run = project.enqueue("held")
        eventually(lambda: project.lines("marks") == ["attempt 1 started"])
        both = frozen.pid, guard_of(frozen, project)
        for pid in both:
            os.kill(pid, signal.SIGSTOP)
        with project.worker() as other:
            since = time.monotonic()
            eventually(lambda: time.monotonic() > since + 2 * LEASE_S)
            project.reaches(project.enqueue("quick"), "succeeded")
            assert project.history(run) == [(None, "enqueued"), (1, "executing")], other.log
            for pid in both:
                os.kill(pid, signal.SIGCONT)
            (project.dir / "go").touch()
            project.reaches(run, "succeeded")
    assert not any("overlap" in line for line in project.lines("marks"))


def test_a_guard_killed_alone_takes_its_children_with_it_and_the_worker_goes_on(project: Project) -> None:
    project.write(LONG)
    with project.worker() as worker:
        run = project.enqueue("long")
        eventually(lambda: project.lines("marks") == ["attempt 1 started"])
        guard = guard_of(worker, project)
        os.kill(guard, signal.SIGKILL)
        found = project.reaches(run, "succeeded")
        assert (found["attempt"], found["losses"]) == (2, 1)
        assert guard_of(worker, project) != guard
        project.reaches(project.enqueue("quick"), "succeeded")
        assert worker.process.poll() is None
    assert project.lines("marks") == ["attempt 1 started", "attempt 2 ended"]
    (lost,) = project.events("--run", run, "--type", "lost")
    assert "guard" in lost["data"]["cause"]


def test_worker_and_guard_killed_at_one_instant_leave_nothing_that_overlaps(project: Project) -> None:
    project.write(LONG)
    with project.worker() as worker:
        run = project.enqueue("long")
        eventually(lambda: project.lines("marks") == ["attempt 1 started"])
        guard = guard_of(worker, project)
        # Neither gets to clear up after the other.
        worker.signal(signal.SIGSTOP)
        os.kill(guard, signal.SIGSTOP)
        os.kill(guard, signal.SIGKILL)
        worker.kill()
        started = [int(pid) for pid in project.lines("pids")[0].split()]
        eventually(lambda: guard not in project.processes())
        assert set(started) <= set(project.processes())
    with project.worker():
        found = project.reaches(run, "succeeded")
        assert not set(started) & set(project.processes())
    assert (found["attempt"], found["losses"]) == (2, 1)
    assert project.lines("marks") == ["attempt 1 started", "attempt 2 ended"]


def test_a_worker_that_comes_back_after_it_was_given_up_keeps_its_guard(project: Project) -> None:
    """The beat that finds it given up doesn't reach the guard, which ends after two: with all that was begun anew."""
    project.write("""
        [worker]
        lease = "3s"
        [jobs.long]
        command = ["sleep", "4"]
        """)
    with project.worker() as worker:
        (guard,) = [pid for pid, line in project.processes().items() if "guard_main" in line]
        with closing(sqlite3.connect(project.store, timeout=20, isolation_level=None)) as store:
            for _ in range(4):  # one beat after the other
                eventually(lambda: store.execute("DELETE FROM workers").rowcount)
        run = project.reaches(project.enqueue("long"), "succeeded")
        assert (run["attempt"], run["losses"]) == (1, 0)
        assert "its runs were given to others" in worker.log
        assert guard in project.processes()


def test_a_run_that_kills_its_worker_each_time_fails_and_harms_no_other(project: Project) -> None:
    project.file("deadly.py", "import os\n\ndef kill():\n    os.kill(os.getpid(), 9)\n")
    project.write(
        LONG + '\n[jobs.deadly]\npython = "deadly:kill"\nisolation = "thread"\ncrash_limit = 3\npriority = 9\n'
    )
    deadly = project.enqueue("deadly")
    others = [project.enqueue("quick", f"name={n}") for n in range(4)]
    codes = []
    while project.run(deadly)["state"] != "failed":
        worker = project.start("--burst", "-c", "1")
        codes.append(worker.ended())
        eventually(lambda: not project.processes(), what="its guard is gone, and the run can be given back")
        assert len(codes) <= 4, project.history(deadly)
    project.burst()
    failed = project.run(deadly)
    assert (failed["losses"], failed["attempt"]) == (3, 3)
    assert "crash_limit" in failed["reason"]
    assert project.history(deadly)[-1] == (3, "failed")
    assert codes[:3] == [-signal.SIGKILL] * 3
    assert {project.run(run)["state"] for run in others} == {"succeeded"}
    assert sorted(project.lines("quick")) == list("0123")
    # The locks of the dead are cleared away: every command looks at each.
    assert list((project.store.parent / "workers").iterdir()) == []


def test_ten_workers_do_each_of_10000_runs_once(project: Project) -> None:
    project.file(
        "noop.py",
        """
        import os

        def mark(n):
            fd = os.open("marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(fd, b"%d\\n" % n)
            os.close(fd)
        """,
    )
    project.write(
        """
        [jobs.mark]
        python = "noop:mark"
        isolation = "thread"
        params = { n = { type = "integer", required = true } }
        """
    )
    batch = "".join(f'{{"job": "mark", "params": {{"n": {n}}}}}\n' for n in range(10_000))
    workers: list[WorkerProcess] = []
    try:
        workers.extend(project.start("-c", "2") for _ in range(10))
        eventually(lambda: len(project.workers()) == 10, timeout=40)
        ids = project.cli("enqueue", "--batch", "-", stdin=batch).out.split()
        eventually(lambda: len(project.lines("marks")) >= 10_000, timeout=60)
        eventually(lambda: not project.runs("--state", "running", "--state", "queued"))
    finally:
        for worker in workers:
            worker.kill()
    assert sorted(map(int, project.lines("marks"))) == list(range(10_000))
    runs = project.runs()
    assert {run["id"] for run in runs} == set(ids)
    assert {(run["state"], run["attempt"], run["losses"]) for run in runs} == {("succeeded", 1, 0)}
    assert len({run["worker"] for run in runs}) == 10


@pytest.fixture
def newer(installed: Path, tmp_path: Path) -> dict[str, str]:
    """The environment in which `hueyctl` is a copy of itself whose stores have the next version."""
    (package,) = installed.parent.glob("lib/python3*/site-packages/hueyctl")
    copy = tmp_path / "newer" / "hueyctl"
    shutil.copytree(package, copy)
    for name, old, new in (
        ("database.py", r"^SCHEMA_VERSION = (\d+)$", lambda found: f"SCHEMA_VERSION = {int(found[1]) + 1}"),
        (
            "sqlite_opening.py",
            r"^(MIGRATIONS: .*) = {.*}$",
            r'\1 = {1: "CREATE TABLE of_the_newer (n INTEGER) STRICT"}',
        ),
    ):
        source = copy / "storage" / name
        text, changed = re.subn(old, new, source.read_text(), flags=re.MULTILINE)
        assert changed == 1, name
        source.write_text(text)
    return {"PYTHONPATH": str(copy.parent)}


def test_an_older_and_a_newer_version_do_not_write_one_store(project: Project, newer: dict[str, str]) -> None:
    """The newer one migrates only when no older worker lives; from then on the older one is told to upgrade."""
    project.write(LONG)
    waiting = project.enqueue("quick", "name=first", "--delay", "1h")
    with project.worker() as worker:
        refused = project.cli("worker", "start", "--burst", code=4, env=newer)
        assert re.search(r"can't be migrated while worker \w+ runs", refused.err)
        refused = project.cli("enqueue", "quick", code=4, env=newer)
        assert "older hueyctl" in refused.err
        assert "worker start" in refused.err
        project.reaches(project.enqueue("quick", "name=old"), "succeeded")
        assert worker.process.poll() is None
    old = project.start()
    try:
        eventually(lambda: project.online(old))
        old.signal(signal.SIGTERM)
        assert old.ended() == 0
    finally:
        if old.process.poll() is None:
            old.kill()
    migrating = project.start("--burst", env=newer)
    assert migrating.ended() == 0, migrating.log
    for words in (["enqueue", "quick"], ["runs"], ["worker", "start", "--burst"], ["revoke", waiting]):
        refused = project.cli(*words, code=4)
        assert "newer hueyctl" in refused.err
        assert "upgrade" in refused.err
    assert project.cli("inspect", waiting, "--json", env=newer).json["run"]["state"] == "scheduled"
    assert project.lines("quick") == ["old"]
