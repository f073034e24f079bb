"""A worker from its start to its end: bursts, drains, interrupts, reloads, and how it wakes."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from datetime import datetime

from harness import Project, eventually

JOBS = """
    [worker]
    shutdown_timeout = "20s"

    [jobs.gate]
    script = 'echo started >> marks; until [ -e go ]; do sleep 0.05; done; echo ended >> marks'

    [jobs.mark]
    script = 'echo "$PARAM_NAME" >> marks'
    params = { name = "x" }
    """


def test_a_burst_ends_when_nothing_is_left_that_is_due(project: Project) -> None:
    project.write(JOBS + '\n[jobs.again]\ncommand = ["false"]\nretries = 2\n')
    due = [project.enqueue("mark") for _ in range(5)]
    again = project.enqueue("again")
    later = project.enqueue("mark", "--delay", "1h")
    project.burst()
    assert {project.run(run)["state"] for run in due} == {"succeeded"}
    assert project.run(again)["attempt"] == 3
    assert project.run(later)["state"] == "scheduled"


def test_a_burst_with_nothing_to_do_ends_at_once(project: Project) -> None:
    project.write(JOBS)
    began = time.monotonic()
    project.burst()
    assert time.monotonic() - began < 10


def test_a_worker_that_is_asked_to_end_finishes_what_runs_and_takes_nothing_new(project: Project) -> None:
    project.write(JOBS)
    for number in (signal.SIGTERM, signal.SIGINT):
        (project.dir / "go").unlink(missing_ok=True)
        (project.dir / "marks").unlink(missing_ok=True)
        with project.worker() as worker:
            run = project.enqueue("gate")
            eventually(lambda: project.lines("marks") == ["started"])
            worker.signal(number)
            eventually(lambda w=worker: "stop" in w.log.lower() or "drain" in w.log.lower())
            behind = project.enqueue("mark", "name=behind")
            (project.dir / "go").touch()
            assert worker.ended() == 0
        assert project.lines("marks") == ["started", "ended"]
        assert project.run(run)["state"] == "succeeded"
        assert project.run(behind)["state"] == "queued"
        project.cli("revoke", behind)
        assert not project.processes()


def test_who_looks_at_a_worker_that_ends_is_told_that_it_takes_nothing_new(project: Project) -> None:
    """However it was told to."""
    project.write(JOBS)
    for how in ("signal", "command"):
        (project.dir / "go").unlink(missing_ok=True)
        (project.dir / "marks").unlink(missing_ok=True)
        with project.worker() as worker:
            project.enqueue("gate")
            eventually(lambda: project.lines("marks") == ["started"])
            if how == "signal":
                worker.signal(signal.SIGTERM)
            else:
                project.cli("worker", "stop", "--timeout", "0.2s", code=124)
            eventually(lambda: [row["request"] for row in project.workers()] == ["stop"])
            eventually(lambda w=worker: "stopping" in w.log)
            assert [row["request"] for row in project.workers()] == ["stop"]
            stopping = f"worker {project.workers()[0]['id']} is stopping, and no other serves the queue"
            assert stopping in project.cli("enqueue", "mark").err
            assert stopping in project.cli("inspect", "last").out
            assert stopping in project.cli("doctor", code=1).out
            (project.dir / "go").touch()
            assert worker.ended() == 0
        project.burst()


def test_a_second_signal_interrupts_and_what_ran_goes_back_to_the_queue(project: Project) -> None:
    project.write(JOBS)
    for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)):
        (project.dir / "marks").unlink(missing_ok=True)
        with project.worker() as worker:
            run = project.enqueue("gate")
            eventually(lambda: project.lines("marks") == ["started"])
            worker.signal(first)
            eventually(lambda w=worker: "stop" in w.log.lower() or "drain" in w.log.lower())
            began = time.monotonic()
            worker.signal(second)
            worker.ended()
            assert time.monotonic() - began < 15
        found = project.run(run)
        assert (found["state"], found["losses"]) == ("queued", 0)
        assert [kind for _, kind in project.history(run)] == ["enqueued", "executing", "interrupted"]
        assert not project.processes()
        project.cli("revoke", run)


def test_what_is_not_done_when_the_time_to_drain_is_over_goes_back_to_the_queue(project: Project) -> None:
    project.write(JOBS.replace("20s", "500ms"))
    with project.worker() as worker:
        run = project.enqueue("gate")
        eventually(lambda: project.lines("marks") == ["started"])
        worker.signal(signal.SIGTERM)
        worker.ended()
    assert project.run(run)["state"] == "queued"
    (project.dir / "go").touch()
    project.burst()
    found = project.run(run)
    assert (found["state"], found["attempt"], found["losses"]) == ("succeeded", 2, 0)


def test_what_goes_back_when_time_is_up_has_stopped_before(project: Project) -> None:
    """Whoever takes it next would otherwise meet what is left of it. This one starts after it was to be interrupted:
    until then it waits for its env_file."""
    project.write("""
        [jobs.late]
        script = 'echo started >> marks; sleep 60'
        env_file = "late.env"
        [defaults]
        kill_after = "100ms"
        """)
    os.mkfifo(project.dir / "late.env")
    with project.worker() as worker:
        run = project.enqueue("late")
        eventually(lambda: project.run(run)["state"] == "running")
        worker.signal(signal.SIGTERM)
        eventually(lambda: "stopping" in worker.log)
        worker.signal(signal.SIGTERM)
        eventually(lambda: "interrupting" in worker.log)
        (project.dir / "late.env").write_text("A=b\n")
        eventually(lambda: project.lines("marks") == ["started"])
        with contextlib.closing(sqlite3.connect(f"file:{project.store}?mode=ro", uri=True)) as store:
            eventually(lambda: store.execute("SELECT state FROM runs").fetchall() == [("queued",)])
            assert not any("sleep 60" in line for line in project.processes().values())
        assert worker.ended() == 0
    assert project.run(run)["losses"] == 0


def test_a_job_in_a_thread_ends_with_its_worker_whatever_it_has_started(project: Project) -> None:
    """It was given back: it must not go on for as long as its own threads like."""
    project.write('[jobs.pool]\npython = "pool:run"\nisolation = "thread"\n')
    project.file(
        "pool.py",
        """
        import time
        from concurrent.futures import ThreadPoolExecutor

        def run():
            with ThreadPoolExecutor(1) as pool:
                open("marks", "a").write("started\\n")
                pool.submit(time.sleep, 40).result()
        """,
    )
    with project.worker() as worker:
        run = project.enqueue("pool")
        eventually(lambda: project.lines("marks") == ["started"])
        worker.signal(signal.SIGTERM)
        eventually(lambda: "stopping" in worker.log)
        worker.signal(signal.SIGTERM)
        assert worker.ended(20) == 0
    assert project.run(run)["state"] == "queued"


def test_a_reload_takes_the_new_file_for_what_starts_from_then_on(project: Project) -> None:
    project.write(JOBS)
    with project.worker() as worker:
        project.reaches(project.enqueue("mark", "name=old"), "succeeded")
        project.write(
            """
            [worker]
            lease = "1s"
            [jobs.mark]
            script = 'echo "new $PARAM_NAME" >> marks'
            params = { name = "x" }
            [jobs.added]
            script = 'echo added >> marks'
            """
        )
        worker.signal(signal.SIGHUP)
        eventually(lambda: any(event["type"] == "reloaded" for event in project.events()))
        project.reaches(project.enqueue("mark", "name=a"), "succeeded")
        project.reaches(project.enqueue("added"), "succeeded")
        assert worker.process.poll() is None
        # It beats as it did, so it must be judged as before; the others would take it for dead.
        assert [row["lease"] for row in project.workers()] == [30.0]
        assert "the [worker] table has changed: that takes a restart of the worker" in worker.log
    assert project.lines("marks") == ["old", "new a", "added"]


def test_a_reload_of_a_wrong_file_keeps_the_old_one_and_says_why(project: Project) -> None:
    project.write(JOBS)
    with project.worker() as worker:
        project.write(JOBS + "\n[jobs.bad]\nretries = 'three'\n")
        worker.signal(signal.SIGHUP)
        eventually(lambda: "jobs.bad.retries" in worker.log)
        project.write(JOBS)
        project.reaches(project.enqueue("mark", "name=still"), "succeeded")
        project.cli("worker", "reload")
        eventually(lambda: any(event["type"] == "reloaded" for event in project.events()))
    assert project.lines("marks") == ["still"]


def test_a_run_of_a_job_that_is_gone_is_held_until_it_is_back(project: Project) -> None:
    project.write(JOBS)
    run = project.enqueue("mark", "name=back")
    project.write('[jobs.other]\ncommand = ["true"]\n')
    with project.worker() as worker:
        held = project.reaches(run, "held")
        assert held["reason"]
        project.write(JOBS)
        worker.signal(signal.SIGHUP)
        project.reaches(run, "succeeded")
    assert project.lines("marks") == ["back"]


def test_a_run_whose_parameters_no_longer_fit_is_held_and_says_why(project: Project) -> None:
    project.write(JOBS)
    run = project.enqueue("mark", "name=back")
    project.write('[jobs.mark]\nscript = "echo $PARAM_COUNT >> marks"\nparams = { count = 1 }\n')
    with project.worker() as worker:
        held = project.reaches(run, "held")
        assert "name" in held["reason"]
        project.write(JOBS)
        worker.signal(signal.SIGHUP)
        project.reaches(run, "succeeded")
    assert project.lines("marks") == ["back"]


def test_a_detached_worker_works_until_it_is_stopped(project: Project) -> None:
    project.write(JOBS)
    project.cli("worker", "start", "--detach")
    try:
        assert len(project.workers()) == 1
        project.reaches(project.enqueue("mark", "name=detached"), "succeeded")
        log = project.store.parent / "worker.log"
        assert log.exists()
        project.cli("worker", "stop")
        assert project.workers() == []
        eventually(lambda: not project.processes(), timeout=2)
    finally:
        for pid in project.processes():
            os.kill(pid, signal.SIGKILL)
    assert project.lines("marks") == ["detached"]


def test_a_worker_says_at_once_what_its_jobs_name_and_it_cannot_find(project: Project) -> None:
    """Its PATH is seldom that of the shell in which the file was checked. What others serve is not its affair."""
    lacking = """
        [jobs.report]
        command = ["no-such-program"]
        [jobs.sweep]
        script = "true"
        shell = ["no-such-shell"]
        dir = "no-such-folder"
        env_file = "no-such-file"
        [jobs.elsewhere]
        command = ["not-here-either"]
        queue = "other"
        """
    said = (
        f"jobs.sweep.env_file: {project.dir}/no-such-file: No such file or directory",
        'jobs.report.command: there is no program "no-such-program" here',
        'jobs.sweep.shell: there is no shell "no-such-shell" here',
        f"jobs.sweep.dir: there is no folder {project.dir}/no-such-folder here",
    )
    project.write('[jobs.tool]\ncommand = ["tool"]\n')
    (project.dir / "bin").mkdir()
    (project.dir / "bin" / "tool").write_text("#!/bin/sh\n")
    (project.dir / "bin" / "tool").chmod(0o755)
    with project.worker("--queue", "default", env={"PATH": f"{project.dir}/bin:{os.environ['PATH']}"}) as worker:
        project.reaches(project.enqueue("tool"), "succeeded")
        assert "warning" not in worker.log
        project.write(lacking)
        worker.signal(signal.SIGHUP)
        for line in said:
            eventually(lambda line=line: f"warning jobs.toml: {line}\n" in worker.log, what=line)
        assert "not-here-either" not in worker.log
    notes = project.cli("worker", "start", "--detach", "--queue", "default").err
    try:
        for line in said:
            assert f"hueyctl: jobs.toml: {line}\n" in notes
        assert "not-here-either" not in notes
        log = project.store.parent / "worker.log"
        for line in said:
            eventually(lambda line=line: f"warning jobs.toml: {line}\n" in log.read_text(), what=line)
    finally:
        project.cli("worker", "stop")


def test_a_detached_worker_that_cannot_start_says_so(project: Project) -> None:
    project.write("[jobs.bad]\n")
    result = project.cli("worker", "start", "--detach", code=2)
    assert "jobs.bad" in result.err


def test_stop_returns_when_the_worker_has_gone_and_waits_for_what_runs(project: Project) -> None:
    project.write(JOBS)
    with project.worker() as worker:
        run = project.enqueue("gate")
        eventually(lambda: project.lines("marks") == ["started"])
        stopping = project.popen("worker", "stop")
        eventually(lambda: "stop" in worker.log.lower() or "drain" in worker.log.lower())
        assert stopping.poll() is None
        (project.dir / "go").touch()
        assert stopping.wait(20) == 0
        stopping.communicate()
        assert worker.ended(5) == 0
    assert project.run(run)["state"] == "succeeded"


def test_of_several_workers_one_has_to_be_named_to_be_stopped(project: Project) -> None:
    project.write(JOBS)
    with project.worker() as one, project.worker() as two:
        refused = project.cli("worker", "stop", code=2)
        assert "--all" in refused.err
        name = next(row["id"] for row in project.workers() if row["pid"] == one.pid)
        project.cli("worker", "stop", name)
        assert one.ended(5) == 0
        assert two.process.poll() is None
        project.cli("worker", "stop", "--all")
        assert two.ended(5) == 0


def test_status_is_0_only_while_a_worker_lives(project: Project) -> None:
    project.write(JOBS)
    project.cli("worker", "status", code=1)
    with project.worker() as worker:
        project.cli("worker", "status")
        worker.kill()
        project.cli("worker", "status", code=1)


def test_what_a_worker_does_is_shown_as_it_is_now(project: Project) -> None:
    project.write(JOBS)
    with project.worker("-c", "1"):
        running = project.enqueue("gate")
        eventually(lambda: project.lines("marks") == ["started"])
        waiting = project.enqueue("mark")
        (row,) = project.workers()
        assert (row["running"], row["concurrency"]) == (1, 1)
        assert "busy" in project.cli("inspect", waiting).out
        (project.dir / "go").touch()
        project.reaches(running, "succeeded")
        project.reaches(waiting, "succeeded")
        assert project.workers()[0]["running"] == 0


def test_an_idle_worker_starts_a_run_promptly_and_hardly_wakes(project: Project) -> None:
    """A schedule whose next slot is far away wakes it no more than none."""
    project.write(JOBS + "\n[schedules.mark]\nevery = '3650d'\n")
    with project.worker() as worker:
        before = _switches(worker.pid)
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 3)
        a_second = (_switches(worker.pid) - before) / (time.monotonic() - began)
        assert a_second < 15, f"{a_second:.1f} wake-ups a second"
        run = project.enqueue("mark")
        project.reaches(run, "succeeded")
        enqueued, started = (
            datetime.fromisoformat(event["time"])
            for event in project.events("--run", run)
            if event["type"] in {"enqueued", "executing"}
        )
        assert (started - enqueued).total_seconds() < 0.25


def test_ignored_signals_of_a_worker_are_not_handed_to_its_jobs(project: Project) -> None:
    project.write("[jobs.signals]\ncommand = ['sh', '-c', 'grep SigIgn /proc/self/status']\n")
    run = project.enqueue("signals")
    worker = project.start("--burst", prefix=["sh", "-c", 'trap "" HUP QUIT USR1; exec "$@"', "sh"])
    try:
        assert worker.ended() == 0, worker.log
    finally:
        if worker.process.poll() is None:
            worker.kill()
    ignored = int(project.run(run)["result"].split()[1], 16)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
        assert not ignored & 1 << (number - 1), number


def test_the_environment_of_a_job(project: Project) -> None:
    project.write(
        """
        [jobs.env]
        command = ["env", "-0"]
        params = { a-b = 1 }
        """.replace("a-b", "a_b")
        + '[jobs.bare]\ncommand = ["/usr/bin/env", "-0"]\ninherit_env = false\nenv = { ONLY = "this" }\n'
    )
    run, bare = project.enqueue("env"), project.enqueue("bare")
    worker = project.start("--burst", env={"OF_THE_WORKER": "yes"})
    assert worker.ended() == 0, worker.log
    env = dict(pair.split("=", 1) for pair in project.run(run)["result"].split("\0") if pair)
    assert env["OF_THE_WORKER"] == "yes"
    assert env["HUEYCTL_RUN_ID"] == run
    assert env["HUEYCTL_JOB"] == "env"
    assert env["HUEYCTL_ATTEMPT"] == "1"
    assert env["HUEYCTL_QUEUE"] == "default"
    assert env["HUEYCTL_FILE"] == str(project.dir / "jobs.toml")
    assert env["HUEYCTL_TRIGGER"] == "manual"
    assert env["PARAM_A_B"] == "1"
    assert env["HUEYCTL_PROGRESS"]
    env = dict(pair.split("=", 1) for pair in project.run(bare)["result"].split("\0") if pair)
    assert env["ONLY"] == "this"
    assert "OF_THE_WORKER" not in env
    assert env["HUEYCTL_RUN_ID"] == bare


def _switches(pid: int) -> int:
    """How often the threads of a process gave up the processor because they had to wait."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="utf-8") as status:
            total += next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt"))
    return total
