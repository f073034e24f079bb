"""`revoke`, `retry`, `pause`, `resume`: one answer for each run, and exit 1 where not all could be done."""

from __future__ import annotations

import re
import signal
from datetime import UTC, datetime

import pytest
from shell import Shell, eventually

from hueyctl.storage.locks import hold
from hueyctl.storage.store import JobPolicy, Want

JOBS = """
    [jobs.fetch]
    command = ["true"]
    params = { url = "x" }

    [jobs.slow]
    command = ["sleep", "60"]
    queue = "heavy"
    """


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write(JOBS)


def states(shell: Shell, *runs: str) -> list[str]:
    return [shell.run(run)["state"] for run in runs]


# -- revoke -----------------------------------------------------------------------------------------------------------


def test_a_run_that_has_not_started_never_will(shell: Shell) -> None:
    queued, scheduled = shell.enqueue("fetch"), shell.enqueue("fetch", "--delay", "1h")
    said = shell.type("revoke", queued, scheduled[:8])
    assert said.out.splitlines() == [f"revoked {queued[:8]} fetch", f"revoked {scheduled[:8]} fetch"]
    assert states(shell, queued, scheduled) == ["revoked", "revoked"]
    assert shell.claim("fetch") == []
    again = shell.type("revoke", queued)
    assert again.out == f"{queued[:8]} fetch had been revoked before\n", "it is done, and not by this"


def test_a_running_run_goes_on_and_kill_is_named(shell: Shell) -> None:
    run, queued = shell.enqueue("slow"), shell.enqueue("fetch")
    shell.claim("slow")
    said = shell.type("revoke", run, queued, code=1)
    assert said.out == f"revoked {queued[:8]} fetch\n"
    assert said.err.splitlines()[0] == f"hueyctl: run {run[:8]} of slow is running"
    assert f"hueyctl revoke --kill {run[:8]}" in said.err
    assert states(shell, run) == ["running"]
    in_json = shell.type("revoke", run, queued, "--json", code=1).json
    assert [each["id"] for each in in_json["runs"]] == [queued]
    assert [(each["id"], each["reason"]) for each in in_json["refused"]] == [(run, "is running")]


def test_an_ended_run_can_t_be_revoked(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    shell.finish("fetch")
    assert "has already succeeded" in shell.type("revoke", run, code=1).err


def test_kill_returns_when_the_run_has_stopped(shell: Shell) -> None:
    run = shell.enqueue("slow")
    (claim,) = shell.claim("slow")
    lock = hold(shell.place.worker_lock("w1"))
    assert lock
    try:
        revoking = shell.spawn("revoke", "--kill", run)
        eventually(lambda: list(shell.place.bell.iterdir()))
        assert revoking.poll() is None
        with shell.store() as store:
            assert store.asked("w1")[1] == ((claim.run.n, claim.token),)
        shell.settle(claim, code=143)
        out, err = revoking.communicate(timeout=20)
    finally:
        lock.release()
    assert (revoking.returncode, out.decode(), err) == (0, f"revoked {run[:8]} slow\n", b"")
    assert states(shell, run) == ["revoked"]


def test_kill_of_a_run_whose_worker_is_dead_needs_no_worker(shell: Shell) -> None:
    run = shell.enqueue("slow")
    shell.claim("slow")
    shell.type("revoke", "--kill", run)
    assert states(shell, run) == ["revoked"]


def test_kill_says_when_the_run_was_quicker(shell: Shell) -> None:
    run = shell.enqueue("slow")
    (claim,) = shell.claim("slow")
    lock = hold(shell.place.worker_lock("w1"))
    assert lock
    try:
        revoking = shell.spawn("revoke", "--kill", run)
        eventually(lambda: list(shell.place.bell.iterdir()))
        shell.settle(claim)
        _, err = revoking.communicate(timeout=20)
    finally:
        lock.release()
    assert revoking.returncode == 1
    assert b"has succeeded before it could be stopped" in err


def test_kill_waits_no_longer_than_asked_and_ctrl_c_ends_it(shell: Shell) -> None:
    run = shell.enqueue("slow")
    shell.claim("slow")
    lock = hold(shell.place.worker_lock("w1"))
    assert lock
    try:
        said = shell.type("revoke", "--kill", run, "--timeout", "100ms", code=124)
        assert "still runs" in said.err
        revoking = shell.spawn("revoke", "--kill", run)
        eventually(lambda: list(shell.place.bell.iterdir()))
        revoking.send_signal(signal.SIGINT)
        revoking.communicate(timeout=20)
        assert revoking.returncode == 130
    finally:
        lock.release()


def test_runs_are_revoked_by_job_state_and_age(shell: Shell) -> None:
    fetches = [shell.enqueue("fetch") for _ in range(2)] + [shell.enqueue("fetch", "--delay", "1h")]
    slow = shell.enqueue("slow")
    done = shell.enqueue("fetch", "--priority", "9")
    shell.finish("fetch")
    shell.type("revoke", "--job", "fetch", "--state", "scheduled")
    assert states(shell, *fetches) == ["queued", "queued", "revoked"]
    assert len(shell.type("revoke", "--job", "fetch").out.splitlines()) == 2
    assert states(shell, *fetches, slow, done) == ["revoked"] * 3 + ["queued", "succeeded"]
    assert "nothing to do" in shell.type("revoke", "--job", "fetch").err
    assert shell.type("revoke", "--since", "1h").out == f"revoked {slow[:8]} slow\n"


def test_many_runs_are_revoked_page_by_page(shell: Shell) -> None:
    shell.type("enqueue", "--batch", "-", stdin=b'{"job": "fetch"}\n' * 1500)
    assert len(shell.type("revoke", "--job", "fetch").out.splitlines()) == 1500
    assert shell.type("runs", "--state", "queued", "--json").json["runs"] == []


@pytest.mark.parametrize("command", ["revoke", "retry"])
def test_runs_are_either_named_or_selected(shell: Shell, command: str) -> None:
    run = shell.enqueue("fetch")
    assert "which runs?" in shell.type(command, code=2).err
    assert "either" in shell.type(command, run, "--job", "fetch", code=2).err
    assert shell.type(command, "--job", "fetsh", code=3).code == 3
    assert shell.type(command, "--state", "faild", code=2).code == 2
    assert states(shell, run) == ["queued"]


# -- retry ------------------------------------------------------------------------------------------------------------


def test_retry_brings_a_run_back_under_its_id(shell: Shell) -> None:
    failed, revoked = shell.enqueue("fetch"), shell.enqueue("slow")
    shell.finish("fetch", code=1)
    shell.type("revoke", revoked)
    said = shell.type("retry", failed, revoked)
    assert said.out.splitlines() == [f"retried {failed[:8]} fetch", f"retried {revoked[:8]} slow"]
    assert said.err == "hueyctl: no worker is running: `hueyctl worker start` starts one\n"
    assert states(shell, failed, revoked) == ["queued", "queued"]
    assert shell.finish("fetch").attempt == 2


def test_retry_takes_all_failed_runs_of_a_job_and_leaves_revoked_ones(shell: Shell) -> None:
    runs = [shell.enqueue("fetch") for _ in range(3)]
    shell.finish("fetch", code=1)
    shell.finish("fetch", code=1)
    shell.type("revoke", runs[2])
    assert len(shell.type("retry", "--job", "fetch").out.splitlines()) == 2
    assert states(shell, *runs) == ["queued", "queued", "revoked"]
    assert len(shell.type("retry", "--job", "fetch", "--state", "revoked").out.splitlines()) == 1


def test_what_can_t_be_retried_is_said_and_a_copy_of_it_can_be_enqueued(shell: Shell) -> None:
    run, live = shell.enqueue("fetch", "url=y", "--priority", "7", "--retries", "2"), shell.enqueue("slow")
    shell.finish("fetch")
    refused = shell.type("retry", run, live, code=1)
    assert refused.err.splitlines() == [
        f"hueyctl: run {run[:8]} of fetch has succeeded",
        f"hint: `hueyctl retry --again {run[:8]}` enqueues a copy",
        f"hueyctl: run {live[:8]} of slow has not ended: it is queued",
    ]
    copy = shell.type("retry", "--again", run).out.strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", copy)
    assert copy != run
    found = shell.run(copy)
    assert (found["state"], found["params"], found["priority"], found["retries_left"]) == ("queued", {"url": "y"}, 7, 2)
    assert shell.type("retry", "--again", live, code=1).err.startswith(f"hueyctl: run {live[:8]} is queued")


def test_a_copy_that_no_longer_fits_its_definition_is_refused(shell: Shell) -> None:
    run = shell.enqueue("fetch", "url=y")
    shell.finish("fetch")
    shell.write('[jobs.fetch]\ncommand = ["true"]\nparams = { url = 1 }\n')
    assert "no longer fit" in shell.type("retry", "--again", run, code=2).err
    shell.write('[jobs.other]\ncommand = ["true"]\n')
    assert shell.type("retry", "--again", run, code=3).code == 3


# -- pause and resume -------------------------------------------------------------------------------------------------


def test_pause_says_what_goes_on_and_resume_takes_it_back(shell: Shell) -> None:
    shell.enqueue("slow")
    shell.claim("slow")
    for _ in range(2):
        shell.enqueue("slow")
    said = shell.type("pause", "--queue", "heavy", "--note", "maintenance")
    assert said.out == "paused queue heavy (maintenance): 1 run under way goes on, 2 wait\n"
    assert shell.claim("slow") == []
    assert shell.type("resume", "--queue", "heavy").out == "resumed queue heavy\n"
    assert len(shell.claim("slow")) == 1


def test_each_pause_is_a_switch_of_its_own(shell: Shell) -> None:
    shell.enqueue("fetch")
    shell.type("pause")
    shell.type("pause", "--job", "fetch", "--job", "slow", "--queue", "default")
    assert shell.type("resume").out == "resumed everything\n"
    assert shell.claim("fetch") == []
    assert shell.type("resume", "--job", "fetch", "--queue", "default").out.splitlines() == [
        "resumed job fetch",
        "resumed queue default",
    ]
    assert len(shell.claim("fetch")) == 1
    again = shell.type("resume")
    assert again.out == ""
    assert again.err.splitlines() == [
        "hueyctl: there was no pause of everything",
        "hueyctl: job slow is still paused: `hueyctl resume --job slow`",
    ]
    assert shell.type("resume", "--job", "slow").err == ""


def test_pause_and_resume_in_json(shell: Shell) -> None:
    paused = shell.type("pause", "--job", "fetch", "--json").json
    assert paused == {
        "schema": 1,
        "paused": [{"kind": "job", "name": "fetch", "note": None, "changed": True, "running": 0, "waiting": 0}],
    }
    assert shell.type("resume", "--json").json["resumed"][0]["changed"] is False


@pytest.mark.parametrize("words", [["--job", "fetsh"], ["--queue", "heavi"], ["--schedule", "nightly"]])
def test_only_what_there_is_can_be_paused(shell: Shell, words: list[str]) -> None:
    assert shell.type("pause", *words, "--json", code=3).error["code"] == "not-found"
    assert shell.type("resume", *words, code=3).code == 3
    assert shell.type("inspect", "--json").json["pauses"] == []


def test_what_ends_by_the_rescue_that_a_kill_needs_has_its_hook_as_in_a_worker(shell: Shell) -> None:
    """The dead worker had two runs: the one to be stopped, and one that had lost its worker for the last time."""
    shell.write(
        """
        [jobs.frail]
        script = "true"
        on_failure = "alert"
        [jobs.alert]
        script = "true"
        params = { run = "" }
        """
    )
    killed, lost = shell.enqueue("frail"), shell.enqueue("frail")
    shell.register("w1", jobs=["frail"])
    with shell.store() as store:
        want = Want(worker="w1", limit=2, jobs={"frail": JobPolicy(crash_limit=1)})
        assert len(store.exchange([], want, now=datetime.now(UTC)).claims) == 2
    shell.type("revoke", "--kill", killed)
    assert (shell.run(killed)["state"], shell.run(lost)["state"]) == ("revoked", "failed")
    [alert] = shell.type("runs", "--job", "alert", "--json").json["runs"]
    assert alert["params"] == {"run": lost}
