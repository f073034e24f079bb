"""Hooks with real workers: what failed, expired, was held or missed says so, once, whatever is killed around it."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness import Project, eventually

ALERT = """
    [jobs.alert]
    script = '''
    told="$PARAM_JOB|$PARAM_STATE|$PARAM_EXIT_CODE|$PARAM_ERROR|$HUEYCTL_TRIGGER"
    echo "$told" >> alerts
    printf '%s' "$PARAM_OUTPUT" >> outputs
    '''
    params = { run = "", job = "", state = "", exit_code = "none", error = "", output = "" }
    """


def alerts(project: Project) -> list[list[str]]:
    """What each run of `alert` was given: job, state, exit code, error and trigger."""
    return [line.split("|") for line in project.lines("alerts")]


def alerted(project: Project, count: int = 1) -> list[list[str]]:
    eventually(lambda: len(alerts(project)) >= count, what=f"{count} alerts")
    return alerts(project)


def followed(project: Project, run: str) -> list[dict[str, Any]]:
    return list(project.cli("inspect", run, "--json").json["hooks"])


def test_the_hook_follows_the_last_attempt_and_is_told_of_it_without_secrets(project: Project) -> None:
    project.write(
        ALERT
        + """
        [jobs.flaky]
        script = "echo attempt $HUEYCTL_ATTEMPT with $PARAM_TOKEN; echo no $PARAM_TOKEN >&2; exit 7"
        params = { token = { required = true, secret = true } }
        retries = 2
        on_failure = "alert"
        on_success = "none"
        [jobs.none]
        command = ["false"]
        """
    )
    run = project.enqueue("flaky", "token=hunter22")
    project.burst()
    assert alerts(project) == [["flaky", "failed", "7", "exited with 7", "hook"]]
    assert (project.dir / "outputs").read_text() == "attempt 3 with ***\nno ***\n"
    [alert] = project.runs("--job", "alert")
    assert b"hunter22" not in json.dumps(alert).encode()
    assert followed(project, run) == [
        {"on": "on_failure", "job": "alert", "run": alert["id"], "existing": False, "reason": None}
    ]
    assert project.cli("inspect", alert["id"], "--json").json["by"] == f"run {run}"
    assert f"alert {alert['id'][:8]}" in project.cli("inspect", "last").out  # the newest that somebody asked for
    assert project.runs("--job", "none") == []


def test_a_success_has_its_hook_in_the_same_burst_and_that_has_none(project: Project) -> None:
    project.write(
        """
        [defaults]
        on_success = "cheer"
        on_failure = "cheer"
        [jobs.fine]
        python = "fine:fine"
        isolation = "thread"
        [jobs.cheer]
        script = 'echo "$PARAM_RUN $PARAM_STATE $PARAM_OUTPUT" >> cheers; exit 1'
        params = { run = "", state = "", output = { type = "string", required = true } }
        """
    )
    project.file("fine.py", "def fine():\n    return 5\n")
    run = project.enqueue("fine")
    project.burst()
    assert project.lines("cheers") == [f"{run} succeeded "]
    [cheer] = project.runs("--job", "cheer")
    assert (cheer["state"], followed(project, cheer["id"])) == ("failed", [])


@pytest.mark.parametrize("point", ["settle.before", "settle.after"])
def test_a_worker_that_is_killed_around_the_settlement_leaves_one_run_of_the_hook(project: Project, point: str) -> None:
    """Before it: the attempt was lost and runs again. After it: both are there."""
    project.write(
        ALERT
        + """
        [jobs.bad]
        script = "echo ran >> marks; exit 3"
        on_failure = "alert"
        """
    )
    run = project.enqueue("bad")
    killed = project.start("--burst", env={"HUEYCTL_FAILPOINTS": f"{point}=kill@1"})
    assert killed.ended() == -signal.SIGKILL
    project.burst()
    assert project.run(run)["state"] == "failed"
    assert len(project.lines("marks")) == (2 if point == "settle.before" else 1)
    assert alerts(project) == [["bad", "failed", "3", "exited with 3", "hook"]]
    assert len(project.runs("--job", "alert")) == 1


def test_what_expires_is_held_or_loses_its_worker_for_the_last_time_has_its_hook(project: Project) -> None:
    text = (
        ALERT
        + """
        [defaults]
        on_failure = "alert"
        [jobs.late]
        command = ["true"]
        [jobs.gone]
        command = ["true"]
        [jobs.narrow]
        command = ["true"]
        params = { n = 1 }
        [jobs.once]
        script = "echo half; echo started >> marks; sleep 300"
        on_worker_lost = "fail"
        """
    )
    project.write(text)
    with project.worker() as worker:
        project.enqueue("once")
        eventually(lambda: project.lines("marks"))
        project.enqueue("late", "--expires", "1ms", "--delay", "1ms", "--queue", "elsewhere")
        alerted(project)
        project.cli("pause")
        project.enqueue("gone")
        project.enqueue("narrow", "n=5")
        worker.kill()
    project.write(text.replace("[jobs.gone]", "[jobs.new]").replace("n = 1", 'n = "a"'))
    project.cli("resume")
    with project.worker():
        alerted(project, 4)
    found = {job: (state, error) for job, state, _, error, _ in alerts(project)}
    assert found["late"] == ("expired", "expired: it was not started in time")
    assert found["once"][0] == "failed"
    assert "lost" in found["once"][1]
    assert found["gone"] == ("held", "no worker that serves its queue defines this job")
    assert found["narrow"][0] == "held"
    assert len(alerts(project)) == 4
    assert "half" in (project.dir / "outputs").read_text()


def test_slots_that_were_missed_are_told_of_once_with_their_number(project: Project) -> None:
    project.write(
        ALERT
        + """
        [jobs.beat]
        command = ["true"]
        on_failure = "alert"
        [schedules.beat]
        every = "1s"
        grace = 0
        catch_up = "none"
        """
    )
    with project.worker():
        [first, *_] = eventually(lambda: project.runs("--schedule", "beat"))
    last = datetime.fromisoformat(first["scheduled_at"])
    eventually(lambda: datetime.now(UTC) > last + timedelta(seconds=4), what="some slots are over")
    with project.worker():
        [job, state, code, error, trigger] = alerted(project)[0]
    assert (job, state, code, trigger) == ("beat", "missed", "none", "hook")
    assert error.startswith("schedule beat: ")
    assert "slots were missed, the last 2" in error


def test_a_hook_that_cannot_be_enqueued_is_in_the_log_and_the_history_and_the_run_has_ended(project: Project) -> None:
    project.write(
        """
        [jobs.bad]
        command = ["false"]
        on_failure = "alert"
        [jobs.alert]
        command = ["true"]
        params = { state = { choices = ["expired", "held"] } }
        """
    )
    run = project.enqueue("bad")
    log = project.burst()
    assert project.run(run)["state"] == "failed"
    [hook] = followed(project, run)
    assert (hook["on"], hook["run"]) == ("on_failure", None)
    for said in (hook["reason"], log, project.cli("inspect", run).out):
        assert 'nothing was enqueued: alert: parameter "state": expected one of' in said
