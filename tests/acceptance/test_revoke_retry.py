"""Revoking, stopping, retrying, expiring: who runs, when, and who never does."""

from __future__ import annotations

import itertools
import time

from harness import Project, eventually

MARK = """
    [jobs.mark]
    script = 'echo "$PARAM_NAME" >> marks'
    params = { name = "x" }
    """


def test_a_revoked_queued_run_never_starts(project: Project) -> None:
    project.write(MARK)
    revoked, kept = project.enqueue("mark", "name=revoked"), project.enqueue("mark", "name=kept")
    project.cli("revoke", revoked)
    project.burst()
    assert project.lines("marks") == ["kept"]
    assert project.run(revoked)["state"] == "revoked"
    assert project.run(kept)["state"] == "succeeded"
    assert project.history(revoked) == [(None, "enqueued"), (None, "revoked")]


def test_a_scheduled_run_can_be_revoked_before_its_time(project: Project) -> None:
    project.write(MARK)
    run = project.enqueue("mark", "--delay", "1s")
    assert project.run(run)["state"] == "scheduled"
    project.cli("revoke", run)
    later = project.enqueue("mark", "name=later", "--delay", "1s")
    with project.worker():
        project.reaches(later, "succeeded")
    assert project.lines("marks") == ["later"]


def test_revoking_by_job_and_state_takes_those_runs_and_no_other(project: Project) -> None:
    project.write(MARK + '\n[jobs.other]\ncommand = ["true"]\n')
    ones = [project.enqueue("mark") for _ in range(3)]
    other = project.enqueue("other")
    project.cli("revoke", "--job", "mark", "--state", "queued")
    assert {project.run(run)["state"] for run in ones} == {"revoked"}
    assert project.run(other)["state"] == "queued"


FAMILY = """
    [jobs.family]
    script = '''
    trap "" TERM
    python3 daemon.py
    sleep 300 &
    echo $$ $! >> pids
    wait
    sleep 300
    '''
    kill_after = "0.5s"

    [jobs.polite]
    script = 'trap "echo asked >> marks; exit 0" TERM; echo ready >> marks; sleep 300 & wait'
    kill_after = "20s"
    """

DAEMON = """
    import os, signal
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with open("pids", "a") as pids:
                print(os.getpid(), file=pids)
            signal.pause()
        os._exit(0)
    """


def test_a_running_run_is_stopped_with_all_its_descendants_before_revoke_returns(project: Project) -> None:
    project.write(FAMILY)
    project.file("daemon.py", DAEMON)
    with project.worker():
        run = project.enqueue("family")
        eventually(lambda: len(project.lines("pids")) == 2)
        pids = [int(pid) for line in project.lines("pids") for pid in line.split()]
        assert len(pids) == 3
        assert set(pids) <= set(project.processes())

        refused = project.cli("revoke", run, code=1)
        assert "--kill" in refused.err
        assert project.run(run)["state"] == "running"

        project.cli("revoke", run, "--kill")
        assert not set(pids) & set(project.processes())
        assert project.run(run)["state"] == "revoked"
    assert [kind for _, kind in project.history(run)] == [
        "enqueued",
        "executing",
        "revoke-requested",
        "canceled",
        "revoked",
    ]


def test_a_stopped_program_is_asked_before_it_is_killed(project: Project) -> None:
    project.write(FAMILY)
    with project.worker():
        run = project.enqueue("polite")
        eventually(lambda: project.lines("marks") == ["ready"])
        project.cli("revoke", run, "--kill")
    assert project.lines("marks") == ["ready", "asked"]
    assert project.run(run)["state"] in {"revoked", "succeeded"}


def test_a_revoked_run_is_not_retried(project: Project) -> None:
    project.write(
        """
        [jobs.failing]
        script = "echo started >> marks; until [ -e go ]; do sleep 0.05; done; exit 1"
        retries = 5
        """
    )
    with project.worker():
        run = project.enqueue("failing")
        eventually(lambda: project.lines("marks"))
        project.cli("revoke", run, "--kill")
        assert project.run(run)["state"] == "revoked"
    assert project.lines("marks") == ["started"]


def test_retry_brings_an_ended_run_back_under_its_id(project: Project) -> None:
    project.write(
        """
        [jobs.until]
        script = "[ -e good ]"
        retries = 1
        """
    )
    run = project.enqueue("until")
    project.burst()
    assert project.run(run)["state"] == "failed"
    assert project.run(run)["attempt"] == 2
    (project.dir / "good").touch()
    project.cli("retry", run)
    assert project.run(run)["state"] == "queued"
    project.burst()
    found = project.run(run)
    assert (found["state"], found["attempt"], found["reason"]) == ("succeeded", 3, None)
    assert [kind for _, kind in project.history(run)] == (
        "enqueued executing error retrying executing error failed retried executing complete".split()
    )
    project.cli("retry", run, code=1)
    copy = project.cli("retry", run, "--again").out.strip()
    assert copy != run
    project.burst()
    assert project.run(copy)["state"] == "succeeded"


def test_a_revoked_run_can_be_retried(project: Project) -> None:
    project.write(MARK)
    run = project.enqueue("mark")
    project.cli("revoke", run)
    project.cli("retry", run)
    project.burst()
    assert project.run(run)["state"] == "succeeded"


def test_a_retry_waits_its_delay_and_each_next_one_longer(project: Project) -> None:
    project.write(
        """
        [jobs.flaky]
        script = 'date +%s%N >> marks; [ "$HUEYCTL_ATTEMPT" = 4 ]'
        retries = 3
        retry_delay = "300ms"
        retry_backoff = 2
        """
    )
    with project.worker():
        run = project.enqueue("flaky")
        project.reaches(run, "succeeded")
    times = [int(line) / 1e9 for line in project.lines("marks")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    for gap, least in zip(gaps, (0.3, 0.6, 1.2), strict=True):
        assert least <= gap < least + 1.0, gaps
    retrying = [event for event in project.events("--run", run) if event["type"] == "retrying"]
    assert [event["data"]["delay_s"] for event in retrying] == [0.3, 0.6, 1.2]
    assert {event["state"] for event in retrying} == {"scheduled"}


def test_the_delay_between_attempts_has_an_upper_bound(project: Project) -> None:
    project.write(
        """
        [jobs.flaky]
        command = ["false"]
        retries = 3
        retry_delay = "100ms"
        retry_backoff = 10
        retry_max_delay = "250ms"
        """
    )
    with project.worker():
        run = project.enqueue("flaky")
        project.reaches(run, "failed")
    delays = [event["data"]["delay_s"] for event in project.events("--run", run) if event["type"] == "retrying"]
    assert delays == [0.1, 0.25, 0.25]


def test_only_the_named_exit_codes_are_retried(project: Project) -> None:
    project.write(
        """
        [jobs.coded]
        script = 'exit "$PARAM_CODE"'
        params = { code = 0 }
        retries = 2
        retry_exit_codes = [75]
        success_codes = [0, 3]
        """
    )
    again, once, fine = (project.enqueue("coded", f"code={code}") for code in (75, 1, 3))
    project.burst()
    assert [(run["state"], run["attempt"], run["exit_code"]) for run in map(project.run, (again, once, fine))] == [
        ("failed", 3, 75),
        ("failed", 1, 1),
        ("succeeded", 1, 3),
    ]


def test_enqueue_overrides_how_often_a_run_is_retried_and_how_long_it_may_take(project: Project) -> None:
    project.write(
        """
        [jobs.fails]
        command = ["false"]
        [jobs.sleeps]
        command = ["sleep", "300"]
        """
    )
    fails, sleeps = project.enqueue("fails", "--retries", "2"), project.enqueue("sleeps", "--timeout", "300ms")
    project.burst()
    assert project.run(fails)["attempt"] == 3
    assert project.run(sleeps)["state"] == "failed"
    assert "timed out" in project.run(sleeps)["reason"]


def test_an_expired_run_never_starts(project: Project) -> None:
    project.write(MARK)
    run = project.enqueue("mark", "name=late", "--expires", "1s")
    eventually(lambda: _age(project, run) > 1.1)
    project.burst()
    assert project.run(run)["state"] == "expired"
    assert project.lines("marks") == []
    assert project.history(run) == [(None, "enqueued"), (None, "expired")]


def test_the_time_to_expire_counts_from_when_a_run_is_due(project: Project) -> None:
    project.write(MARK)
    with project.worker():
        run = project.enqueue("mark", "--delay", "1500ms", "--expires", "1s")
        project.reaches(run, "succeeded")


def test_a_waiting_run_expires_while_its_queue_is_paused(project: Project) -> None:
    project.write(MARK)
    project.cli("pause", "--queue", "default")
    run = project.enqueue("mark", "--expires", "500ms")
    with project.worker():
        project.reaches(run, "expired")
    assert project.lines("marks") == []


def test_higher_priorities_go_first_and_equal_ones_in_the_order_of_their_arrival(project: Project) -> None:
    project.write(MARK + "priority = 1\n")
    for name, priority in (("c", "0"), ("a", "10"), ("d", "-5"), ("b", None), ("a2", "10")):
        project.enqueue("mark", f"name={name}", *(["--priority", priority] if priority else []))
    project.burst("-c", "1")
    assert project.lines("marks") == ["a", "a2", "b", "c", "d"]


def test_a_delayed_run_starts_at_its_time_and_not_before(project: Project) -> None:
    project.write('[jobs.mark]\nscript = "date +%s%N >> marks"\n')
    with project.worker():
        began = time.time()
        run = project.enqueue("mark", "--delay", "1s")
        ended = time.time()
        project.reaches(run, "succeeded")
    (mark,) = project.lines("marks")
    assert began + 1.0 <= int(mark) / 1e9 < ended + 2.0


def test_a_worker_of_one_queue_leaves_the_others_alone(project: Project) -> None:
    project.write(
        MARK
        + """
    [jobs.slow]
    script = 'echo slow >> marks'
    queue = "heavy"
    """
    )
    with project.worker("--queue", "default"):
        heavy, light = project.enqueue("slow"), project.enqueue("mark", "name=light")
        moved = project.enqueue("mark", "name=moved", "--queue", "heavy")
        project.reaches(light, "succeeded")
        assert project.run(heavy)["state"] == "queued"
        assert project.run(moved)["state"] == "queued"
        queues = {queue["name"]: queue for queue in project.cli("inspect", "--json").json["queues"]}
        assert (queues["default"]["served"], queues["heavy"]["served"]) == (True, False)
        line = next(line for line in project.cli("inspect").out.splitlines() if "heavy" in line)
        assert "no worker" in line.lower() or "no live worker" in line.lower(), line
        assert "heavy" in project.cli("inspect", heavy).out
        with project.worker("--queue", "heavy"):
            project.reaches(heavy, "succeeded")
            project.reaches(moved, "succeeded")


def _age(project: Project, run: str) -> float:
    from datetime import UTC, datetime

    return (datetime.now(UTC) - datetime.fromisoformat(project.run(run)["enqueued_at"])).total_seconds()
