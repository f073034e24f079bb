"""kill -9 of a worker: nothing accepted is lost, nothing overlaps, nothing outlives it."""

from __future__ import annotations

import time

from harness import Project, WorkerProcess, eventually

# The first attempt leaves a child, a grandchild and a daemon in a session of its own; each later attempt writes down
# which of them it still finds, before it does anything else.
LONG = """
    [jobs.long]
    script = '''
    if [ "$HUEYCTL_ATTEMPT" -gt "$PARAM_CRASHES" ]; then
        for pid in $(cat pids); do kill -0 "$pid" 2>/dev/null && echo "overlap: $pid" >> marks; done
        echo "attempt $HUEYCTL_ATTEMPT ended" >> marks
        exit 0
    fi
    python3 daemon.py
    sleep 300 &
    echo $$ $! >> pids
    echo "attempt $HUEYCTL_ATTEMPT started" >> marks
    wait
    '''
    params = { crashes = 1 }
    crash_limit = 3

    [jobs.once]
    script = "echo started >> marks; sleep 300"
    on_worker_lost = "fail"

    [jobs.quick]
    command = ["true"]
    """

DAEMON = """
    import os, signal
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            for fd in range(3):
                os.close(fd)
            with open("pids", "a") as pids:
                print(os.getpid(), file=pids)
            signal.pause()
        os._exit(0)
    """


def prepare(project: Project) -> None:
    project.write(LONG)
    project.file("daemon.py", DAEMON)


def test_a_run_whose_worker_is_killed_runs_again_and_its_first_attempt_was_gone_before(project: Project) -> None:
    prepare(project)
    with project.worker() as first:
        run = project.enqueue("long")
        eventually(lambda: project.lines("marks") == ["attempt 1 started"] and len(project.lines("pids")) == 2)
        first.kill()
    began = time.monotonic()
    with project.worker():
        project.reaches(run, "succeeded")
    assert time.monotonic() - began < 15
    assert project.lines("marks") == ["attempt 1 started", "attempt 2 ended"]
    assert project.history(run) == [
        (None, "enqueued"),
        (1, "executing"),
        (1, "lost"),
        (2, "executing"),
        (2, "complete"),
    ]
    found = project.run(run)
    assert (found["attempt"], found["losses"]) == (2, 1)


def test_a_worker_that_lives_takes_over_at_once_from_one_that_was_killed(project: Project) -> None:
    prepare(project)
    with project.worker() as first:
        run = project.enqueue("long")
        eventually(lambda: project.lines("marks") == ["attempt 1 started"])
        with project.worker():
            first.kill()
            project.reaches(run, "succeeded", timeout=10)
    assert project.lines("marks") == ["attempt 1 started", "attempt 2 ended"]


def test_nothing_outlives_a_worker_that_was_killed(project: Project) -> None:
    prepare(project)
    with project.worker() as worker:
        project.enqueue("long")
        eventually(lambda: len(project.lines("pids")) == 2)
        assert len(project.processes()) >= 4
        worker.kill()
        eventually(lambda: not project.processes(), timeout=10, what="every process is gone")


def test_a_run_that_loses_its_worker_each_time_fails_at_the_crash_limit(project: Project) -> None:
    prepare(project)
    run = project.enqueue("long", "crashes=99")
    for attempt in (1, 2, 3):
        with project.worker() as worker:
            eventually(lambda attempt=attempt: f"attempt {attempt} started" in project.lines("marks"))
            worker.kill()
    with project.worker():
        failed = project.reaches(run, "failed")
        assert project.run(project.enqueue("quick"))["state"] in {"queued", "running", "succeeded"}
    assert failed["losses"] == 3
    assert "crash_limit" in failed["reason"]


def test_what_must_not_run_twice_fails_when_its_worker_is_lost(project: Project) -> None:
    prepare(project)
    with project.worker() as worker:
        run = project.enqueue("once")
        eventually(lambda: project.lines("marks"))
        worker.kill()
    with project.worker():
        failed = project.reaches(run, "failed")
    assert "lost" in failed["reason"]
    assert project.lines("marks") == ["started"]


def test_a_revoke_of_a_run_whose_worker_is_dead_ends_it_without_a_worker(project: Project) -> None:
    prepare(project)
    with project.worker() as worker:
        run = project.enqueue("long")
        eventually(lambda: project.lines("marks"))
        worker.kill()
    project.cli("revoke", run, "--kill")
    assert project.run(run)["state"] == "revoked"


def test_four_workers_do_each_of_2000_runs_once(project: Project) -> None:
    project.file(
        "marks_of.py",
        """
        import os

        def mark(n):
            with open("marks", "a") as marks:
                marks.write(f"{n}\\n")
        """,
    )
    project.write(
        """
        [jobs.python]
        python = "marks_of:mark"
        params = { n = { type = "integer", required = true } }
        [jobs.command]
        command = ["sh", "-c", "echo $PARAM_N >> marks"]
        params = { n = { type = "integer", required = true } }
        """
    )
    batch = "".join(
        f'{{"job": "{"command" if n % 4 == 0 else "python"}", "params": {{"n": {n}}}}}\n' for n in range(2000)
    )
    workers: list[WorkerProcess] = []
    try:
        workers.extend(project.start("-c", "2") for _ in range(4))
        eventually(lambda: len(project.workers()) == 4)
        ids = project.cli("enqueue", "--batch", "-", stdin=batch).out.split()
        assert len(set(ids)) == 2000
        eventually(lambda: len(project.lines("marks")) >= 2000, timeout=90)
        eventually(lambda: all(run["state"] == "succeeded" for run in project.runs()), timeout=30)
    finally:
        for worker in workers:
            worker.kill()
    assert sorted(map(int, project.lines("marks"))) == list(range(2000))
    runs = project.runs()
    assert sorted(run["id"] for run in runs) == sorted(ids)
    assert {(run["state"], run["attempt"]) for run in runs} == {("succeeded", 1)}
    events = project.events()
    for kind in ("enqueued", "executing", "complete"):
        assert sorted(event["run"] for event in events if event["type"] == kind) == sorted(ids)
    assert len({event["worker"] for event in events if event["type"] == "executing"}) == 4
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
