"""What a script can rely on: 0 done, 1 not (all) done, 2 wrong usage, 3 not there, 4 the store, 124 timed out, 130."""

from __future__ import annotations

import signal

import pytest
from harness import Project, eventually

JOBS = """
    [jobs.good]
    command = ["true"]
    [jobs.bad]
    script = "echo a last word >&2; exit 3"
    [jobs.gate]
    script = "echo started >> marks; until [ -e go ]; do sleep 0.05; done"
    [jobs.code]
    script = 'exit "$PARAM_N"'
    params = { n = 0 }
    [jobs.killed]
    script = "kill -TERM $$; sleep 5"
    [jobs.slow]
    command = ["sleep", "300"]
    timeout = "300ms"
    [jobs.absent]
    command = ["no-such-program"]
    [jobs.plain]
    command = ["./plain"]
    """


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["enqueu"], ["enqueu", "enqueue"]),
        (["enqueue"], []),
        (["enqueue", "good", "--priorty", "1"], ["--priorty", "--priority"]),
        (["enqueue", "good", "--priority", "high"], ["high"]),
        (["enqueue", "good", "--priority", str(2**63)], ["priority"]),
        (["enqueue", "good", "--delay", "soon"], ["soon"]),
        (["enqueue", "good", "--at", "sometime"], ["sometime"]),
        (["enqueue", "good", "--delay", "1s", "--at", "tomorrow"], ["delay", "at"]),
        (["enqueue", "good", "--id", "abc"], ["abc"]),
        (["enqueue", "good", "--queue", "a b"], ["a b"]),
        (["enqueue", "good", "--retries", "-1"], ["retries"]),
        (["enqueue", "good", "--timeout", "never"], ["never"]),
        (["events", "--type", "completed"], ["completed", "complete"]),
        (["events", "--since", "whenever"], ["whenever"]),
        (["runs", "--state", "succeded"], ["succeded", "succeeded"]),
        (["runs", "-n", "many"], ["many"]),
        (["revoke"], []),
        (["retry"], []),
        (["worker", "start", "--concurrency", "0"], ["concurrency"]),
        (["worker", "start", "--log-format", "xml"], ["xml"]),
    ],
)
def test_wrong_usage_is_2_and_says_what_was_meant(project: Project, words: list[str], said: list[str]) -> None:
    project.write(JOBS)
    result = project.cli(*words, code=2)
    assert result.err.strip()
    assert not result.out
    for part in said:
        assert part in result.err, result


def test_wrong_usage_in_json_is_one_document_on_stderr(project: Project) -> None:
    project.write(JOBS)
    for words in (["runs", "--json", "--state", "nope"], ["runs", "--json", "--nope"], ["inspect", "--json", "a", "b"]):
        error = project.cli(*words, code=2).error
        assert error["code"] == "usage"
        assert error["message"]
        assert "hint" in error


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "nope"],
        ["inspect", "0c5b9ac8"],
        ["logs", "0c5b9ac8"],
        ["result", "0c5b9ac8"],
        ["wait", "0c5b9ac8"],
        ["revoke", "0c5b9ac8"],
        ["retry", "0c5b9ac8"],
        ["enqueue", "nope"],
        ["run", "nope"],
        ["pause", "--job", "nope"],
        ["worker", "stop", "nope"],
        ["runs", "--job", "nope"],
    ],
)
def test_what_is_not_there_is_3(project: Project, words: list[str]) -> None:
    project.write(JOBS)
    project.enqueue("good")
    result = project.cli(*words, code=125 if words[0] == "run" else 3)
    assert words[-1] in result.err


def test_wait_is_0_for_what_succeeded_and_1_for_what_did_not(project: Project) -> None:
    project.write(JOBS)
    good, bad = project.enqueue("good"), project.enqueue("bad")
    project.burst()
    project.cli("wait", good)
    result = project.cli("wait", bad, code=1)
    assert "exited with 3" in result.err
    assert f"hueyctl logs {bad[:8]}" in result.err
    project.cli("wait", good, bad, code=1)


def test_enqueue_wait_follows_the_run_to_its_end(project: Project) -> None:
    project.write(JOBS)
    with project.worker():
        assert len(project.cli("enqueue", "good", "--wait").out.split()) == 1
        failed = project.cli("enqueue", "bad", "--wait", code=1)
        assert "exited with 3" in failed.err
        assert "hueyctl logs" in failed.err
        assert project.run(failed.out.strip())["state"] == "failed"


def test_a_wait_that_takes_too_long_is_124_and_the_run_goes_on(project: Project) -> None:
    project.write(JOBS)
    waited = project.cli("enqueue", "good", "--wait", "--wait-timeout", "300ms", code=124)
    run = waited.out.strip()
    assert project.run(run)["state"] == "queued"
    project.cli("wait", run, "--timeout", "300ms", code=124)
    project.burst()
    assert project.run(run)["state"] == "succeeded"


def test_an_interrupted_wait_is_130_and_the_run_goes_on(project: Project) -> None:
    project.write(JOBS)
    with project.worker():
        waiting = project.popen("enqueue", "gate", "--wait")
        eventually(lambda: project.lines("marks"))
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=20)
        assert waiting.returncode == 130
        assert "Traceback" not in err.decode()
        assert err.strip()
        run = out.decode().strip()
        (project.dir / "go").touch()
        project.reaches(run, "succeeded")


def test_what_could_not_all_be_done_is_1(project: Project) -> None:
    project.write(JOBS)
    ended, waiting = project.enqueue("good"), ""
    project.burst()
    waiting = project.enqueue("good")
    result = project.cli("revoke", ended, waiting, code=1)
    assert ended[:8] in result.err + result.out
    assert project.run(waiting)["state"] == "revoked"
    project.cli("retry", ended, waiting, code=1)
    assert project.run(waiting)["state"] == "queued"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["good"], 0),
        (["bad"], 3),
        (["code", "n=42"], 42),
        (["killed"], 128 + 15),
        (["slow"], 124),
        (["absent"], 127),
        (["plain"], 126),
        (["nope"], 125),
        (["code", "n=x"], 125),
        (["code", "m=1"], 125),
    ],
)
def test_run_exits_like_the_command_that_it_runs(project: Project, words: list[str], code: int) -> None:
    project.write(JOBS)
    project.file("plain", "no program\n")
    result = project.cli("run", *words, code=code)
    assert result.err.strip()


def test_an_interrupt_of_run_alone_reaches_what_it_runs(project: Project) -> None:
    """As CI systems and supervisors send it; on a terminal Ctrl-C reaches both by itself."""
    project.write("""
        [jobs.long]
        script = 'echo up > up; exec sleep 300'
        """)
    running = project.popen("run", "long", start_new_session=True)
    eventually(lambda: project.lines("up"))
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == 128 + signal.SIGINT
    running.communicate()
    eventually(lambda: not any("sleep 300" in line for line in project.processes().values()))


def test_a_secret_is_not_in_what_run_itself_says(project: Project) -> None:
    project.write("""
        [jobs.login]
        command = ["no-such-{token}"]
        params = { token = { type = "string", secret = true, required = true } }
        """)
    assert "not started: no-such-***: " in project.cli("run", "login", "token=hunter22", code=127).err


def test_who_cannot_be_told_the_id_of_what_he_enqueued_is_told_it_otherwise(project: Project) -> None:
    """Or he would do it again."""
    project.write(JOBS)
    with open("/dev/full", "wb") as full:
        enqueueing = project.popen("enqueue", "good", stdout=full)
        _, err = enqueueing.communicate(timeout=60)
    assert enqueueing.returncode == 1
    assert f"hint: it was: {project.run('last')['id']}\n" in err.decode()


def test_a_closed_pipe_ends_a_command_quietly(project: Project) -> None:
    project.write(JOBS)
    project.cli("enqueue", "--batch", "-", stdin='{"job": "good"}\n' * 3000)
    listing = project.popen("runs", "-n", "100000")
    assert listing.stdout is not None
    assert listing.stderr is not None
    listing.stdout.readline()
    listing.stdout.close()
    assert listing.stderr.read() == b""
    listing.wait(20)
    listing.stderr.close()


def test_help_and_version_are_0(project: Project) -> None:
    assert "enqueue" in project.cli("--help").out
    assert "--priority" in project.cli("enqueue", "--help").out
    assert project.cli("--version").out.strip().endswith("0.1.0")


def test_a_missing_program_is_127_whatever_else_the_search_met(project: Project) -> None:
    """exec reports the first EACCES of its search: of a folder that can't be looked into, or of one that is found."""
    project.write(JOBS)
    (project.dir / "bin" / "no-such-program").mkdir(parents=True)
    project.env["PATH"] = f"{project.dir / 'bin'}:{project.env['PATH']}"
    project.cli("run", "absent", code=127)
    run = project.enqueue("absent")
    project.burst()
    assert project.run(run)["exit_code"] == 127
