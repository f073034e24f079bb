"""Locks and limits under load, watched from inside the jobs: each counts those of its kind that run beside it.

Long form: LIMITS_RUNS=40000 pytest tests/acceptance/test_limits.py
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from datetime import datetime, timedelta

import pytest
from harness import Project, eventually

RUNS = int(os.environ.get("LIMITS_RUNS", "2000"))
WORKERS = 8
RATE, WINDOW = 30, timedelta(seconds=1)

JOBS = """
    [queues.narrow]
    concurrency = 2

    [defaults]
    params = { key = "k" }
    isolation = "thread"

    [jobs.locked]
    python = "watched:locked"
    lock = "the-{key}"

    [jobs.locked_too]
    python = "watched:locked"
    lock = "the-{key}"
    queue = "narrow"

    [jobs.few]
    python = "watched:few"
    max_concurrent = 3

    [jobs.narrow]
    python = "watched:narrow"
    queue = "narrow"

    [jobs.rare]
    python = "watched:free"
    rate_limit = "30/1s"
    """

# How many are in there is counted in a file under flock, and exact: who is over the limit says so.
WATCHED = """
    import contextlib, fcntl, os, time

    os.makedirs("inside", exist_ok=True)

    def change(name, by):
        fd = os.open(f"inside/{name}", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            count = int(os.pread(fd, 20, 0) or 0) + by
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(count).encode(), 0)
            return count
        finally:
            os.close(fd)

    def say(file, line):
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, (line + "\\n").encode())
        os.close(fd)

    @contextlib.contextmanager
    def at_most(name, most):
        count = change(name, 1)
        say("peaks", f"{name} {count}")
        if count > most:
            say("overlaps", f"{count} of {name}")
        time.sleep(0.001)
        yield
        change(name, -1)

    def queue():
        import hueyctl
        if hueyctl.current_run().queue == "narrow":
            return at_most("queue", 2)
        return contextlib.nullcontext()

    def locked(key):
        with queue(), at_most("lock-" + key, 1):
            pass

    def few(key):
        with at_most("few", 3):
            pass

    def narrow(key):
        with queue():
            pass

    def free(key):
        pass
    """


@pytest.mark.timeout(120 if RUNS <= 5_000 else 3_600)
def test_eight_workers_never_break_a_lock_or_a_limit(project: Project) -> None:
    """And use what they allow: each limit was reached, and every run has succeeded in the end."""
    project.write(JOBS)
    project.file("watched.py", WATCHED)
    draw = random.Random(1)
    rare = min(RUNS // 10, 150)
    kinds = ["rare"] * rare + draw.choices(["locked", "locked_too", "few", "narrow"], [3, 1, 3, 2], k=RUNS - rare)
    draw.shuffle(kinds)
    lines = [{"job": job, "params": {"key": draw.choice("abcd")}, "priority": draw.randint(0, 1)} for job in kinds]
    project.cli("enqueue", "--batch", "-", stdin="\n".join(map(json.dumps, lines)))
    with contextlib.ExitStack() as stack:
        for _ in range(WORKERS):
            worker = project.start("-c", "2")
            stack.callback(worker.process.wait)
            stack.callback(worker.process.kill)

        def over() -> bool:
            # Once in a while: on a small machine the looking would be the load.
            found = project.cli("inspect", "--json").json
            return all(queue["waiting"] + queue["queued"] + queue["running"] == 0 for queue in found["queues"])

        eventually(over, timeout=100 if RUNS <= 5_000 else 3_500, every=0.5)
    assert project.lines("overlaps") == []
    peaks: dict[str, int] = {}
    for line in project.lines("peaks"):
        name, count = line.split()
        peaks[name] = max(peaks.get(name, 0), int(count))
    assert peaks == {"few": 3, "queue": 2, **{f"lock-{key}": 1 for key in "abcd"}}
    runs = project.runs()
    assert [run["state"] for run in runs] == ["succeeded"] * RUNS
    starts = sorted(
        datetime.fromisoformat(event["time"]) for event in project.events("--job", "rare", "--type", "executing")
    )
    assert len(starts) == rare
    assert all(late - early >= WINDOW for early, late in zip(starts, starts[RATE:], strict=False))


def test_a_holder_that_is_killed_frees_its_lock_with_its_rescue(project: Project) -> None:
    """Not before: its attempt's processes are gone when the next one starts."""
    project.write("""
        [worker]
        lease = "3s"

        [jobs.sync]
        lock = "crm"
        script = '''
        exec 9> held
        flock --nonblock 9 || echo overlap >> marks
        echo "$HUEYCTL_RUN_ID $HUEYCTL_ATTEMPT" >> marks
        [ -e go ] || sleep 300
        '''
        """)
    with project.worker("-c", "2") as first:
        holder, waiter = project.enqueue("sync"), project.enqueue("sync")
        eventually(lambda: project.lines("marks") == [f"{holder} 1"])
        assert any(
            "waiting for lock crm, held by run" in why for why in project.cli("inspect", waiter, "--json").json["why"]
        )
        project.file("go", "")
        with project.worker("-c", "2"):
            first.kill()
            project.reaches(waiter, "succeeded")
    assert project.lines("marks") == [f"{holder} 1", f"{holder} 2", f"{waiter} 1"]
    assert project.history(waiter)[:2] == [(None, "enqueued"), (None, "locked")]


def test_a_burst_worker_waits_for_a_rate_limit_and_leaves_nothing(project: Project) -> None:
    project.write("""
        [jobs.rare]
        script = "true"
        rate_limit = "2/1s"
        """)
    ids = [project.enqueue("rare") for _ in range(5)]
    project.burst()
    assert [project.run(id)["state"] for id in ids] == ["succeeded"] * 5
