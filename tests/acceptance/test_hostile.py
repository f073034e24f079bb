"""Parameters are data, secrets are shown nowhere, and nothing that a job wrote reaches a terminal raw."""

from __future__ import annotations

import json
import re

import pexpect
import pytest
from harness import Project

NASTY = [
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "a\nb\n",
    "a b\tc",
    "",
    "-rf",
    "--help",
    "{other}",
    "{{x}}",
    "%s %d \\n \\x41",
    "*?[a-z]~",
    "grün 🦊 \u202e",
    "\x1b[31mred\x1b]0;owned\x07",
    "[bold]markup[/bold]",
    "=a=b",
]

PROGRAM = """
    import json, os, sys
    with open("seen", "a") as seen:
        print(json.dumps(sys.argv[1:] or [os.environ["PARAM_TEXT"]]), file=seen)
    """

JOBS = """
    [jobs.command]
    command = ["python3", "program.py", "{text}"]
    params = { text = { type = "string", required = true } }
    [jobs.inside]
    command = ["python3", "program.py", "--text={text}"]
    params = { text = { type = "string", required = true } }
    [jobs.script]
    script = 'test "$PARAM_TEXT" = "$(cat expected; printf x)" || true; python3 program.py'
    params = { text = { type = "string", required = true } }
    [jobs.python]
    python = "called:call"
    params = { text = { type = "string", required = true } }
    """

CALLED = """
    import json

    def call(text):
        with open("seen", "a") as seen:
            print(json.dumps([text]), file=seen)
        return text
    """


@pytest.mark.parametrize("job", ["command", "inside", "script", "python"])
def test_a_parameter_reaches_every_kind_of_job_as_it_is(project: Project, job: str) -> None:
    project.write(JOBS)
    project.file("program.py", PROGRAM)
    project.file("called.py", CALLED)
    project.file("expected", "")
    lines = "\n".join(json.dumps({"job": job, "params": {"text": text}}) for text in NASTY)
    assert project.cli("enqueue", "--batch", "-", stdin=lines).code == 0
    project.burst("-c", "1")
    seen = [json.loads(line)[0] for line in project.lines("seen")]
    assert seen == [f"--text={text}" if job == "inside" else text for text in NASTY]
    assert not (project.dir / "pwned").exists()
    assert [run["params"] for run in project.runs()] == [{"text": text} for text in reversed(NASTY)]


def test_a_parameter_that_is_typed_is_taken_as_it_is(project: Project) -> None:
    project.write(JOBS)
    given = [project.enqueue("script", f"text={text}") for text in NASTY]
    assert {run["id"]: run["params"] for run in project.runs()} == {
        id: {"text": text} for id, text in zip(given, NASTY, strict=True)
    }


def test_a_parameter_can_come_from_a_file(project: Project) -> None:
    project.write(JOBS)
    project.file("called.py", CALLED)
    text = "x" * 300_000 + "\n$(touch pwned)"
    (project.dir / "big").write_text(text)
    run = project.enqueue("python", "text=@big")
    project.burst()
    assert project.run(run)["result"] == text


def test_parameters_too_long_for_a_command_line_are_a_failure_and_not_a_crash(project: Project) -> None:
    """Each of them could be handed over, all together can't."""
    (project.dir / "big").write_text(json.dumps(["x" * 1000] * 120))
    command = ["true", *["{items}"] * 60]
    params = "{ items = { type = 'array', required = true } }"
    project.file("jobs.toml", f"[jobs.many]\ncommand = {command}\nparams = {params}\n")
    run = project.enqueue("many", "items=@big")
    project.burst()
    assert project.run(run)["state"] == "failed"
    assert project.run(run)["exit_code"] == 126
    project.write(JOBS)
    (project.dir / "big").write_text("x" * 3_000_000)
    assert "3,000,012 bytes" in project.cli("enqueue", "command", "text=@big", code=2).err


def test_an_array_in_an_argument_of_its_own_becomes_several(project: Project) -> None:
    project.write(
        """
        [jobs.list]
        command = ["python3", "program.py", "{items}", "end"]
        params = { items = { type = "array", default = [] } }
        """
    )
    project.file("program.py", PROGRAM)
    project.enqueue("list", 'items=["a b", "$x", ""]')
    project.enqueue("list")
    project.burst("-c", "1")
    assert [json.loads(line) for line in project.lines("seen")] == [["a b", "$x", "", "end"], ["end"]]


SECRET = "s3cr3t-hunter2"


def test_a_secret_is_shown_nowhere(project: Project) -> None:
    project.write(
        """
        [jobs.login]
        script = 'echo "with $PARAM_TOKEN"; echo "$PARAM_TOKEN" >&2; printf %s "$PARAM_TOKEN" > got; exit 4'
        params = { token = { type = "string", required = true, secret = true }, user = "me" }
        [jobs.raise]
        python = "mine:fail"
        params = { token = { type = "string", required = true, secret = true } }
        [jobs.return]
        python = "mine:give"
        params = { token = { type = "string", required = true, secret = true } }
        """
    )
    project.file("mine.py", "def fail(token): raise ValueError(token)\ndef give(token): return {'t': token}\n")
    runs = [project.enqueue(job, f"token={SECRET}") for job in ("login", "raise", "return")]
    log = project.burst()
    assert (project.dir / "got").read_text() == SECRET
    assert project.run(runs[0])["params"] == {"token": "***", "user": "me"}
    shown = [log]
    for run in runs:
        for words in (["inspect", run], ["inspect", run, "--json"], ["logs", run]):
            result = project.cli(*words)
            shown += [result.out, result.err]
        result = project.cli("wait", run, code=0 if run == runs[2] else 1)
        shown += [result.out, result.err]
    shown.append(project.cli("result", runs[2]).out)
    for words in (["events", "-n", "100"], ["events", "--json"], ["runs"], ["runs", "--json"], ["inspect"], ["jobs"]):
        result = project.cli(*words)
        shown += [result.out, result.err]
    wrong = project.cli("enqueue", "login", f"tokne={SECRET}", code=2)
    shown += [wrong.out, wrong.err]
    for text in shown:
        assert SECRET not in text
    assert "***" in project.cli("logs", runs[0]).out


# -- the terminal ---------------------------------------------------------------------------------------------------

WRITES = """
    [jobs.writes]
    script = 'cat "$PARAM_FROM"; exit 5'
    params = { from = "evil", text = "x" }
    description = "[bold]bold[/bold] \\u001b]0;owned\\u0007"
    """
EVIL = "\x1b]0;owned\x07 [bold]markup[/bold] \x1b[31mred\x1b[0m \x9b31m \x08\x08 \r over [/nonsense]\n"


def terminal(project: Project, *words: str) -> str:
    """What a command prints on a terminal of 160 columns."""
    child = pexpect.spawn(
        str(project.command),
        list(words),
        cwd=str(project.dir),
        env=project.env,
        dimensions=(50, 160),
        encoding="utf-8",
        timeout=30,
    )
    child.expect(pexpect.EOF)
    child.close()
    return str(child.before)


pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")  # pexpect's, with xdist's threads


def test_on_a_terminal_nothing_that_a_job_wrote_is_raw(project: Project) -> None:
    project.write(WRITES)
    (project.dir / "evil").write_bytes(EVIL.encode())
    run = project.enqueue("writes", f"text={EVIL}")
    project.burst()
    for words in (
        ["inspect"],
        ["inspect", run],
        ["inspect", "writes"],
        ["runs"],
        ["jobs"],
        ["logs", run],
        ["events"],
        ["wait", run],
        ["enqueue", "writes", f"{EVIL}=1"],
        ["inspect", EVIL],
    ):
        shown = terminal(project, *words)
        assert "\x1b]" not in shown, (words, shown)
        assert "\x07" not in shown, (words, shown)
        assert "\x08" not in shown, (words, shown)
        assert "\x9b" not in shown, (words, shown)
        assert "\x1b[31mred" not in shown, (words, shown)
    assert "[bold]markup[/bold]" in terminal(project, "logs", run)
    assert "[bold]markup[/bold]" in terminal(project, "inspect", run)
    assert "[bold]bold[/bold]" in terminal(project, "jobs")


def test_not_on_a_terminal_logs_are_the_bytes_that_were_written(project: Project) -> None:
    project.write(WRITES)
    (project.dir / "evil").write_bytes(EVIL.encode())
    run = project.enqueue("writes")
    project.burst()
    assert project.cli("logs", run).raw == EVIL.encode()


def test_tables_are_for_terminals_and_plain_text_for_the_rest(project: Project) -> None:
    project.write(WRITES)
    project.enqueue("writes")
    plain = project.cli("runs").out
    assert "\x1b" not in plain
    assert not re.search("[─━│┃┏╭]", plain)
    assert "writes" in terminal(project, "runs")


def test_ctrl_c_on_a_terminal_leaves_the_run_going_and_says_so(project: Project) -> None:
    project.write('[jobs.gate]\nscript = "echo started >> marks; until [ -e go ]; do sleep 0.05; done"\n')
    with project.worker():
        child = pexpect.spawn(
            str(project.command),
            ["enqueue", "gate", "--wait"],
            cwd=str(project.dir),
            env=project.env,
            dimensions=(50, 160),
            encoding="utf-8",
            timeout=30,
        )
        child.expect("[0-9a-f]{8}-[0-9a-f-]{27}")
        run = str(child.match.group(0))
        project.reaches(run, "running")
        child.sendintr()
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 130
        assert "goes on" in str(child.before)
        (project.dir / "go").touch()
        project.reaches(run, "succeeded")
