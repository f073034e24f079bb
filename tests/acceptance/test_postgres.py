"""A store on a PostgreSQL server, used from two folders that share nothing else, as two machines do."""

from __future__ import annotations

import contextlib
import json
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pexpect
import psycopg
import pytest
from harness import Project, WorkerProcess, eventually
from postgres_server import PASSWORD, USER, PostgresServer

LEASE_S = 2.0
SECRETS = (PASSWORD, quote(PASSWORD, safe=""))

HEAD = """
    [worker]
    lease = "{lease}s"
    """

JOBS = """
    [jobs.mark]
    script = 'date +%s.%N >> marks'

    [jobs.gate]
    script = '''
    echo $$ >> pids
    echo "attempt $HUEYCTL_ATTEMPT" >> marks
    until [ -e go ]; do sleep 0.05; done
    echo ended >> marks
    '''
    """


def settle_on(address: str, projects: tuple[Project, ...], jobs: str = JOBS, *, lease: float = LEASE_S) -> None:
    """Give each project the same jobs, and the store at this address."""
    for project in projects:
        project.env["HUEYCTL_STORE"] = address
        project.write(HEAD.format(lease=lease) + jobs)


def statuses(project: Project) -> list[tuple[bool, bool]]:
    """What `worker status` says of each worker: alive, and fresh."""
    found = project.popen("worker", "status", "--json").communicate()[0]
    return [(each["alive"], each["fresh"]) for each in json.loads(found)["workers"]]


def runs_still(pid: str) -> bool:
    return Path("/proc", pid).exists()


def stop_between_writes(worker: WorkerProcess, address: str) -> None:
    """In the middle of one it would keep everybody waiting, until the server drops it after half a minute."""

    def stopped() -> bool:
        worker.signal(signal.SIGSTOP)
        with psycopg.connect(address) as connection:
            busy = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            if connection.execute(f"{busy} AND state <> 'idle'").fetchone() == (0,):
                return True
        worker.signal(signal.SIGCONT)
        return False

    eventually(stopped)


def listeners(address: str) -> int:
    """How many processes listen to what happens in this store."""
    with psycopg.connect(address) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        ).fetchone()
    return 0 if found is None else int(found[0])


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that these tests may stop."""
    with contextlib.closing(PostgresServer()) as server:
        yield server


@pytest.fixture
def mortal(server: PostgresServer) -> Iterator[str]:
    """The address of an empty database on a server that may be stopped."""
    name = server.new_database()
    yield server.address(name)
    server.drop_database(name)


# -- one machine ------------------------------------------------------------------------------------------------------
def test_everything_works_as_on_a_file_and_nothing_has_the_password(
    project: Project, postgres: PostgresServer, request: pytest.FixtureRequest
) -> None:
    name = postgres.new_database()
    project.env["HUEYCTL_STORE"] = postgres.tcp_address(name)
    project.write("""
        [hueyctl]
        store = "elsewhere.db"
        [jobs.hello]
        command = ["echo", "Hello, {name}!"]
        params = { name = "you" }
        [jobs.env]
        command = ["env"]
        [jobs.inner]
        python = "inner:env"
        [jobs.long]
        script = 'echo $$ >> pids; sleep 300'
        [jobs.bad]
        command = ["false"]
        """)
    project.file("inner.py", "import os\n\ndef env():\n    return dict(os.environ)\n")
    said: list[str] = []

    def cli(*words: str, code: int = 0) -> str:
        done = project.cli(*words, code=code)
        said.extend((done.out, done.err))
        return done.out

    assert "5 jobs, ok" in cli("check")
    assert "online" in cli("worker", "start", "--detach")
    request.addfinalizer(lambda: project.cli("worker", "stop", "--all"))
    run = cli("enqueue", "hello", "name=Ada", "--priority", "10", "--wait").strip()
    assert cli("result", "last") == cli("logs", run) == "Hello, Ada!\n"
    assert "priority 10" in cli("inspect", run)
    for job in ("env", "inner"):
        cli("enqueue", job, "--wait")
        assert "PATH" in cli("result", "last")
    failed = cli("enqueue", "bad", "--wait", code=1).strip()
    cli("retry", failed)
    long = project.enqueue("long")
    eventually(lambda: project.lines("pids"))
    cli("revoke", long, "--kill")
    cli("pause", "--job", "hello", "--note", "not now")
    waiting = project.enqueue("hello")
    assert "paused" in cli("inspect", waiting)
    cli("resume", "--job", "hello")
    assert cli("wait", waiting)
    runs = {row["id"]: (row["state"], row["attempt"]) for row in json.loads(cli("runs", "--json"))["runs"]}
    assert runs[failed] == ("failed", 2)
    assert runs[long] == ("revoked", 1)
    assert runs[waiting] == ("succeeded", 1)
    types = {json.loads(line)["type"] for line in cli("events", "--json", "-n", "99").splitlines()}
    assert {"worker-online", "executing", "complete", "failed", "retried", "revoked", "paused", "resumed"} <= types
    for words in ("events", "inspect", "stats", "worker status"):
        cli(*words.split())
    assert f"{USER}@127.0.0.1:{postgres.port}/{name}: version 1" in cli("doctor", "--full", code=1)
    assert "stopped worker" in cli("worker", "stop")
    said += [path.read_text(errors="replace") for path in project.dir.rglob("*") if path.is_file()]
    assert not [text for text in said for secret in SECRETS if secret in text]
    assert any(f"{USER}@127.0.0.1" in text for text in said)
    assert not (project.dir / "elsewhere.db").exists()


def test_a_backup_is_left_to_the_servers_own_tools(project: Project, postgres_database: str) -> None:
    settle_on(postgres_database, (project,))
    refused = project.cli("backup", "copy.db", code=1)
    assert "pg_dump" in refused.err
    assert not (project.dir / "copy.db").exists()


def test_without_its_driver_it_says_how_to_install_it(project: Project) -> None:
    settle_on("postgresql://ann:s3cret@127.0.0.1:1/db", (project,))
    project.file("hidden/psycopg.py", "raise ImportError('no psycopg here')\n")
    project.env["PYTHONPATH"] = str(project.dir / "hidden")
    for words in (("enqueue", "mark"), ("inspect",), ("worker", "start"), ("events", "-f")):
        refused = project.cli(*words, code=4)
        assert "pip install 'hueyctl[postgres]'" in refused.err
        assert "s3cret" not in refused.err
    assert "hueyctl[postgres]" in project.cli("doctor", code=1).out


# -- two machines -----------------------------------------------------------------------------------------------------
def test_what_one_does_the_other_sees_at_once(projects: tuple[Project, Project], postgres_database: str) -> None:
    """Sooner than by looking now and then, which is done every 0.5 to 0.7 s."""
    here, there = projects
    settle_on(postgres_database, projects)
    with there.worker() as worker:
        assert statuses(here) == [(True, True)]
        follower = here.popen("events", "--follow", "--json", "-n", "9", "--type", "complete")
        try:
            accepted, seen = [], []
            for _ in range(5):
                run = here.enqueue("mark")
                accepted.append(time.time())
                assert follower.stdout is not None
                assert json.loads(follower.stdout.readline())["run"] == run
                seen.append(time.time())
        finally:
            follower.kill()
            follower.communicate()
        started = [float(line) for line in there.lines("marks")]
        delays = [then - before for before, then in zip(accepted, started, strict=True)]
        assert statistics.median(delays) < 0.2, delays
        delays = [then - before for before, then in zip(started, seen, strict=True)]
        assert statistics.median(delays) < 0.2, delays
        assert not here.lines("marks")
        here.cli("worker", "stop", "--all")
        assert worker.ended(5) == 0
    assert statuses(here) == []


def test_a_run_whose_machine_died_is_taken_over_after_its_lease(
    projects: tuple[Project, Project], postgres_database: str
) -> None:
    here, there = projects
    settle_on(postgres_database, projects)
    (here.dir / "go").touch()
    with there.worker() as dying:
        run = here.enqueue("gate")
        eventually(lambda: there.lines("marks"))
        [pid] = there.lines("pids")
        dying.kill()
    killed = time.monotonic()
    assert statuses(here) == [(True, True)]  # nobody can know yet
    eventually(lambda: statuses(here) == [(False, False)], timeout=LEASE_S + 2)
    assert time.monotonic() - killed > LEASE_S / 2
    assert here.run(run)["state"] == "running"
    with here.worker():
        found = here.reaches(run, "succeeded")
        assert not runs_still(pid)
        assert (found["attempt"], found["losses"]) == (2, 1)
        assert here.history(run) == [
            (None, "enqueued"),
            (1, "executing"),
            (1, "lost"),
            (2, "executing"),
            (2, "complete"),
        ]
        assert len(statuses(here)) == 1
    assert here.lines("marks") == ["attempt 2", "ended"]


def test_a_worker_that_slept_through_its_lease_changes_nothing_of_what_it_ran_and_goes_on(
    projects: tuple[Project, Project], postgres_database: str
) -> None:
    here, there = projects
    settle_on(postgres_database, projects)
    (here.dir / "go").touch()
    with there.worker() as sleeper:
        run = there.enqueue("gate")
        eventually(lambda: there.lines("marks"))
        with here.worker() as heir:
            stop_between_writes(sleeper, postgres_database)
            try:
                found = here.reaches(run, "succeeded")
            finally:
                sleeper.signal(signal.SIGCONT)
            assert here.lines("marks") == ["attempt 2", "ended"]
            eventually(lambda: len(statuses(here)) == 2, what="it is back")
            heir.kill()
        (there.dir / "go").touch()
        assert there.run(there.enqueue("gate", "--wait"))["attempt"] == 1
        assert there.run(run) == found
        types = [kind for attempt, kind in there.history(run)]
        assert [kind for kind in types if kind != "stale"] == ["enqueued", "executing", "lost", "executing", "complete"]
    assert there.lines("marks") == ["attempt 1", "attempt 1", "ended"]


def test_each_run_is_done_once_and_limits_hold_over_all_machines(
    projects: tuple[Project, Project], postgres_database: str, tmp_path: Path
) -> None:
    here, there = projects
    # A folder that is there already when an attempt starts is that of another one under way.
    alone = f"mkdir {tmp_path}/$HUEYCTL_JOB || echo $HUEYCTL_JOB >> {tmp_path}/overlaps; sleep 0.03; "
    alone += f"rmdir {tmp_path}/$HUEYCTL_JOB"
    jobs = f"""
        [jobs.mark]
        command = ["sh", "-c", "echo $HUEYCTL_RUN_ID >> {tmp_path}/marks"]
        [jobs.locked]
        script = "{alone}"
        lock = "x"
        [jobs.single]
        script = "{alone}"
        max_concurrent = 1
        """
    settle_on(postgres_database, projects, jobs, lease=30)
    batch = '{"job": "mark"}\n' * 400 + '{"job": "locked"}\n{"job": "single"}\n' * 12
    with contextlib.ExitStack() as stack:
        workers = [each.start("-c", "2") for each in (here, there) for _ in range(2)]
        for worker in workers:
            stack.callback(worker.kill)
        eventually(lambda: len(here.workers()) == 4)
        ids = here.cli("enqueue", "--batch", "-", stdin=batch).out.split()
        eventually(lambda: {run["state"] for run in there.runs()} == {"succeeded"}, every=0.2)
    assert sorted((tmp_path / "marks").read_text().split()) == sorted(ids[:400])
    assert not (tmp_path / "overlaps").exists()
    events = there.events()
    for kind in ("enqueued", "executing", "complete"):
        assert Counter(event["run"] for event in events if event["type"] == kind) == Counter(ids)
    assert len({event["worker"] for event in events if event["type"] == "executing"}) == 4
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})


def test_each_slot_fires_once_whichever_machine_is_first(
    projects: tuple[Project, Project], postgres_database: str
) -> None:
    here, there = projects
    jobs = '\n[jobs.tick]\ncommand = ["true"]\n[schedules.tick]\nevery = "1s"\noverlap = "allow"\n'
    settle_on(postgres_database, projects, jobs)
    with here.worker(), there.worker():
        eventually(lambda: len(here.runs()) >= 4, every=0.2)
        runs = here.runs()
    slots = sorted(run["scheduled_at"] for run in runs)
    assert len(slots) == len(set(slots))
    times = [datetime.fromisoformat(slot) for slot in slots]
    assert {(after - before).total_seconds() for before, after in pairwise(times)} == {1.0}


# -- a server that goes away ------------------------------------------------------------------------------------------
def test_a_restart_of_the_server_delays_and_loses_nothing(
    projects: tuple[Project, Project], server: PostgresServer, mortal: str, tmp_path: Path
) -> None:
    here, there = projects
    marks = tmp_path / "marks"
    settle_on(mortal, projects, f'\n[jobs.short]\nscript = "sleep 0.05; echo done >> {marks}"\n', lease=30)
    with here.worker() as one, there.worker() as other:
        ids = here.cli("enqueue", "--batch", "-", stdin='{"job": "short"}\n' * 150).out.split()
        for many in (10, 80):
            eventually(lambda many=many: marks.exists() and len(marks.read_text().split()) >= many)
            server.stop()
            server.start()
        eventually(lambda: {run["state"] for run in there.runs()} == {"succeeded"}, every=0.2)
        runs = there.runs()
        assert sorted(run["id"] for run in runs) == sorted(ids)
        assert {(run["attempt"], run["losses"]) for run in runs} == {(1, 0)}
        assert there.enqueue("short", "--wait")
        for worker in (one, other):
            assert worker.process.poll() is None, worker.log
    assert len(marks.read_text().split()) == 151


def test_a_server_that_goes_just_when_a_worker_has_come_is_waited_for(
    project: Project, server: PostgresServer, mortal: str
) -> None:
    settle_on(mortal, (project,))
    with project.worker() as worker:
        server.stop()
        server.start()
        assert project.enqueue("mark", "--wait")
        assert worker.process.poll() is None, worker.log


def test_what_runs_is_killed_before_its_lease_is_over_where_the_server_is_gone(
    project: Project, server: PostgresServer, mortal: str
) -> None:
    """Another machine may see the server, and take the run over then."""
    settle_on(mortal, (project,))
    with project.worker() as worker:
        run = project.enqueue("gate")
        eventually(lambda: project.lines("pids"))
        [pid] = project.lines("pids")
        server.stop()
        stopped = time.monotonic()
        try:
            eventually(lambda: not runs_still(pid), timeout=2 * LEASE_S, what=f"it is killed:\n{worker.log}")
            took = time.monotonic() - stopped
            (project.dir / "go").touch()
        finally:
            server.start()
        assert took < LEASE_S
        found = project.reaches(run, "succeeded")
        assert (found["attempt"], found["losses"]) == (2, 1)
        assert worker.process.poll() is None


def test_what_was_reloaded_while_the_server_was_away_is_known_when_it_is_back(
    project: Project, server: PostgresServer, mortal: str
) -> None:
    settle_on(mortal, (project,))
    with project.worker() as worker:
        server.stop()
        project.write(HEAD.format(lease=LEASE_S) + JOBS + '[jobs.fresh]\nscript = "true"\n')
        worker.signal(signal.SIGHUP)
        eventually(lambda: "doesn't know of it yet" in worker.log)
        server.start()
        run = project.enqueue("fresh")
        project.reaches(run, "succeeded")


def test_the_runs_of_a_worker_that_broke_off_are_given_back_at_once_on_its_machine(
    project: Project, postgres_database: str
) -> None:
    settle_on(postgres_database, (project,), lease=60)
    broken = project.start()
    run = project.enqueue("gate")
    eventually(lambda: project.lines("pids"))
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute(f"REVOKE UPDATE ON hueyctl.store FROM {USER}".encode())
        assert broken.ended() == 4, broken.log
        connection.execute(f"GRANT UPDATE ON hueyctl.store TO {USER}".encode())
    project.file("go", "")
    with project.worker():
        project.reaches(run, "succeeded")
    assert [event["type"] for event in project.events("--run", run)].count("lost") == 1


def test_a_job_that_enqueues_does_so_in_the_same_store(project: Project, postgres_database: str) -> None:
    settle_on(postgres_database, (project,), JOBS + '[jobs.parent]\nscript = "hueyctl enqueue mark"\n')
    with project.worker():
        project.reaches(project.enqueue("parent"), "succeeded")
        eventually(lambda: project.lines("marks"))
    assert {run["job"] for run in project.runs()} == {"parent", "mark"}


def test_a_stop_does_not_wait_for_a_machine_that_died(
    projects: tuple[Project, Project], postgres_database: str
) -> None:
    here, there = projects
    settle_on(postgres_database, projects)
    worker = there.start()
    eventually(lambda: there.online(worker))
    stop_between_writes(worker, postgres_database)  # as good as dead, and nobody is left to give its runs back
    try:
        assert here.cli("worker", "stop", "--all", "--timeout", "60").out
    finally:
        worker.kill()


def test_who_follows_waits_for_a_server_that_is_away(
    project: Project, server: PostgresServer, mortal: str, tmp_path: Path
) -> None:
    settle_on(mortal, (project,))
    run = project.enqueue("mark")
    follower, logs = project.popen("events", "-f", "--after", "0", "--json"), project.popen("logs", "-f", run)
    top = pexpect.spawn(str(project.command), ["top"], cwd=str(project.dir), env={**project.env, "TERM": "xterm"})
    try:
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline())["seq"] == 1
        top.expect_exact("last minute: 0 runs ended")
        eventually(lambda: listeners(mortal) == 3)
        server.stop()
        time.sleep(6)  # longer than any command waits for a store
        server.start()
        project.enqueue("mark")
        assert json.loads(follower.stdout.readline())["type"] == "enqueued"
        assert logs.poll() is None
        project.cli("revoke", "--job", "mark")
        assert logs.wait(20) == 0
        top.expect_exact("last minute: 2 runs ended")
        top.send("q")
        top.expect(pexpect.EOF)
    finally:
        top.close()
        for process in (follower, logs):
            process.kill()
            process.communicate()
