"""`hueyctl enqueue`: the id alone, whatever was given checked, all or nothing."""

from __future__ import annotations

import json
import re
import signal
import time
import uuid
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from shell import Shell, eventually

from hueyctl.cli.main import COMMANDS

JOBS = """
    [jobs.fetch]
    command = ["curl", "{url}"]
    params = { url = { type = "string", required = true }, depth = 1, deep = false, tags = ["a"], rate = 0.5 }
    priority = 3
    retries = 2

    [jobs.plain]
    command = ["true"]
    queue = "heavy"
    expires = "1h"

    [jobs.login]
    command = ["true"]
    params = { token = { type = "string", secret = true, required = true } }
    """


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write(JOBS)


def test_it_prints_the_id_alone_and_says_on_stderr_that_nobody_will_run_it(shell: Shell) -> None:
    said = shell.type("enqueue", "plain")
    assert uuid.UUID(said.out.removesuffix("\n")).version == 4
    assert said.out == f"{uuid.UUID(said.out.strip())}\n"
    assert said.err == "hueyctl: no worker is running: `hueyctl worker start` starts one\n"


def test_who_enqueues_what_is_paused_is_told_by_whom_and_how_it_goes_on(shell: Shell) -> None:
    shell.type("pause", "--job", "plain", "--note", "the disk")
    who = re.escape(shell.type("inspect", "--json").json["pauses"][0]["by"])
    said = shell.type("enqueue", "plain")
    assert len(said.out.split()) == 1, "it is accepted"
    assert re.search(rf'the job "plain" is paused by {who} \(the disk\): `hueyctl resume --job plain`\n', said.err)
    assert "paused" not in shell.type("enqueue", "login", "token=x").err
    shell.type("pause")
    said = shell.type("enqueue", "--batch", "-", stdin=b'{"job": "plain"}\n' * 3)
    assert said.err.count("everything is paused by") == said.err.count('the job "plain" is paused by') == 1


def test_values_are_read_by_their_parameters_type(shell: Shell) -> None:
    run = shell.enqueue("fetch", "url=a=b", "depth=-2", "deep=yes", 'tags=["x", 1]', "rate=2")
    assert shell.run(run)["params"] == {"url": "a=b", "depth": -2, "deep": True, "tags": ["x", 1], "rate": 2}


@pytest.mark.parametrize("value", ["$(reboot)", "a b", "'\"", "new\nline", "[bold]", "\x1b[31m", "-x", "世界 🎉", ""])
def test_text_arrives_as_it_was_given(shell: Shell, value: str) -> None:
    assert shell.run(shell.enqueue("fetch", f"url={value}"))["params"]["url"] == value


def test_a_value_can_come_from_a_file_or_stdin(shell: Shell) -> None:
    shell.write("from a file\n", "value.txt")
    shell.write(" 7\n", "number.txt")
    said = shell.type("enqueue", "fetch", "url=@value.txt", "depth=@number.txt")
    assert shell.run(said.out.strip())["params"]["url"] == "from a file\n"
    assert shell.run(said.out.strip())["params"]["depth"] == 7
    assert shell.run(shell.type("enqueue", "fetch", "url=@-", stdin=b"piped").out.strip())["params"]["url"] == "piped"
    assert shell.run(shell.enqueue("fetch", "url=@@at"))["params"]["url"] == "@at"
    assert "can't be read" in shell.type("enqueue", "fetch", "url=@missing", code=2).err


def test_options_go_before_what_the_job_says(shell: Shell) -> None:
    own = shell.run(shell.enqueue("fetch", "url=x"))
    assert (own["priority"], own["queue"], own["retries_left"]) == (3, "default", 2)
    run = shell.run(shell.enqueue("fetch", "url=x", "--priority", "-10", "--queue", "q.1", "--retries", "5"))
    assert (run["priority"], run["queue"], run["retries_left"], run["state"]) == (-10, "q.1", 5, "queued")


def test_a_delay_or_a_time_makes_it_scheduled(shell: Shell) -> None:
    run = shell.run(shell.enqueue("plain", "--delay", "1h30m"))
    waits = datetime.fromisoformat(run["due_at"]) - datetime.fromisoformat(run["enqueued_at"])
    assert (run["state"], waits) == ("scheduled", timedelta(minutes=90))
    at = shell.run(shell.enqueue("plain", "--at", "2126-03-29T14:30:00+02:00"))
    assert at["due_at"] == "2126-03-29T12:30:00Z"
    assert shell.run(shell.enqueue("plain", "--delay", "0"))["state"] == "queued"


def test_a_time_that_has_passed_is_said(shell: Shell) -> None:
    said = shell.type("enqueue", "plain", "--at", "2020-01-01")
    assert "hueyctl: 2020-01-01 has passed: it is due now\n" in said.err
    run = shell.run(said.out.strip())
    assert (run["state"], run["due_at"]) == ("queued", run["enqueued_at"]), "not 2020, which would have expired"
    assert "has passed" not in shell.type("enqueue", "plain", "--at", "tomorrow").err


def test_a_parameter_that_no_program_can_be_given_is_refused(shell: Shell, tmp_path: Path) -> None:
    """It would use up every retry. A Python function takes it."""
    longest = 128 * 1024 - len("PARAM_URL=") - 1
    (tmp_path / "fits").write_text("x" * longest)
    (tmp_path / "long").write_text("ä" * (longest // 2 + 1))
    shell.enqueue("fetch", f"url=@{tmp_path / 'fits'}")
    said = shell.type("enqueue", "fetch", f"url=@{tmp_path / 'long'}", code=2)
    assert 'fetch: parameter "url": 131,073 bytes are more than a program can be given (131,072)' in said.err
    assert len(shell.type("runs", "--json").json["runs"]) == 1


def test_expiry_counts_from_when_it_is_due(shell: Shell) -> None:
    found = shell.type("inspect", shell.enqueue("plain", "--delay", "2h"), "--json").json
    due, expires = (datetime.fromisoformat(at) for at in (found["run"]["due_at"], found["expires_at"]))
    assert expires - due == timedelta(hours=1)


def test_an_id_of_ones_own_is_accepted_once(shell: Shell) -> None:
    id = "7C1E2F6A-90D4-4C5B-8F3E-2A1B0C9D8E7F"
    first = shell.type("enqueue", "plain", "--id", id, "--json").json
    again = shell.type("enqueue", "plain", "--id", id, "--json").json
    assert first["run"]["id"] == again["run"]["id"] == id.lower()
    assert ("existing" in first, again["existing"]) == (False, True)
    assert len(shell.type("runs", "--json").json["runs"]) == 1
    refused = shell.type("enqueue", "fetch", "url=x", "--id", id, "--json", code=1)
    assert refused.error["code"] == "refused"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["fetsh"], 3, 'there is no job "fetsh"; did you mean "fetch"?'),
        ([], 2, "which job?"),
        (["fetch"], 2, 'parameter "url" is required'),
        (["fetch", "url=x", "dept=1"], 2, 'there is no parameter "dept"; did you mean "depth"?'),
        (["fetch", "url=x", "depth=one"], 2, "expected an integer"),
        (["fetch", "url=x", "url=y"], 2, "given twice"),
        (["fetch", "url"], 2, "expected param=value"),
        (["plain", "--priority", "9223372036854775808"], 2, "64 bit"),
        (["plain", "--priority", "high"], 2, "high"),
        (["plain", "--retries", "-1"], 2, "0 or more"),
        (["plain", "--queue", "no spaces"], 2, "queue"),
        (["plain", "--id", "7c1e"], 2, "UUID"),
        (["plain", "--delay", "soon"], 2, "duration"),
        (["plain", "--delay", "1m", "--at", "now"], 2, "only one"),
        (["plain", "--at", "whenever"], 2, "expected a time"),
        (["plain", "--timeout", "0"], 2, "more than 0"),
        (["plain", "--prioriti", "1"], 2, "--priority"),
        (["--batch", "lines", "plain"], 2, "--batch"),
        (["--batch", "missing"], 2, "can't be read"),
    ],
)
def test_wrong_usage_is_said_and_nothing_is_enqueued(shell: Shell, words: list[str], code: int, said: str) -> None:
    plain = shell.type("enqueue", *words, code=code)
    assert said in plain.err
    assert plain.out == ""
    error = shell.type("enqueue", *words, "--json", code=code).error
    assert said in error["message"] + str(error["hint"])
    assert error["code"] == {2: "usage", 3: "not-found"}[code]
    assert not shell.place.path.exists()


def test_everything_that_is_wrong_with_the_parameters_is_said_at_once(shell: Shell) -> None:
    err = shell.type("enqueue", "fetch", "depth=one", "deep=perhaps", code=2).err
    assert "depth" in err
    assert "deep" in err


def test_the_value_of_a_secret_is_shown_nowhere(shell: Shell) -> None:
    run = shell.enqueue("login", "token=hunter2")
    claim = shell.claim("login")[0]
    shell.print_output(run, 1, stdout=b"using hunter2\n", stderr=b"hunter2 refused\n")
    shell.settle(claim, result=b"got hunter2")
    said = [
        shell.type(*words, *more)
        for words in (
            ["inspect", run],
            ["runs"],
            ["logs", run],
            ["result", run],
            ["events"],
            ["inspect"],
            ["wait", run],
        )
        for more in ([], ["--json"])
    ]
    assert not any("hunter2" in each.out + each.err for each in said)
    assert shell.type("result", run).out == "got ***\n"
    assert shell.type("logs", run).out == "using ***\n*** refused\n"


def test_a_batch_is_taken_whole_and_its_ids_printed_one_a_line(shell: Shell) -> None:
    lines = [{"job": "fetch", "params": {"url": f"u{n}"}, "priority": n} for n in range(3)] + [
        {"job": "plain", "delay": "1h", "queue": "q", "retries": 1, "timeout": 5, "expires": "1m"}
    ]
    shell.write("\n".join(map(json.dumps, lines)) + "\n\n", "lines")
    ids = shell.type("enqueue", "--batch", "lines").out.split()
    assert [shell.run(id)["params"].get("url") for id in ids] == ["u0", "u1", "u2", None]
    assert shell.run(ids[3])["state"] == "scheduled"
    piped = shell.type("enqueue", "--batch", "-", "--json", stdin=b'{"job": "plain"}').json
    assert [run["job"] for run in piped["runs"]] == ["plain"]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ('{"job": "fetsh"}', 3, 'line 2: there is no job "fetsh"; did you mean "fetch"?'),
        ('{"job": "fetch"}', 2, "line 2: fetch: "),
        ('{"job": "plain", "prioriti": 1}', 2, 'line 2: there is no key "prioriti"; did you mean "priority"?'),
        ('{"job": "plain", "priority": "high"}', 2, "line 2: priority: expected an integer, got text\n"),
        ('{"job": "plain", "delay": []}', 2, "line 2: delay: expected an integer or a number or text, got a list\n"),
        ('{"params": {}}', 2, 'line 2: it names no "job"\n'),
        ("7", 2, "line 2: expected an object, got an integer\n"),
        ('{"job": "plain", "priority": 9223372036854775808}', 2, "line 2: "),
        ('{"job": "plain"', 2, "line 2: it is not JSON"),
        ('{"job": "plain", "delay": "soon"}', 2, "line 2: delay: expected a duration"),
        ("[" * 5000, 2, "line 2: "),
        ('{"job": "plain", "params": {"x": "\\ud800"}}', 2, "line 2: "),
        ("[]", 2, "line 2: "),
    ],
)
def test_one_wrong_line_and_nothing_of_the_batch_is_taken(shell: Shell, line: str, code: int, said: str) -> None:
    err = shell.type("enqueue", "--batch", "-", stdin=f'{{"job": "plain"}}\n{line}\n'.encode(), code=code).err
    assert said in err
    assert not shell.place.path.exists()


def test_the_first_wrong_lines_are_named_at_once(shell: Shell) -> None:
    lines = ['{"job": "plain"}', '{"job": "fetsh"}', "", "x", '{"job": "plain"}', '{"job": "plain", "retries": -1}']
    said = shell.type("enqueue", "--batch", "-", stdin="\n".join(lines).encode(), code=3).err
    assert said.startswith('hueyctl: line 2: there is no job "fetsh"')
    assert "; line 4: it is not JSON" in said
    assert "; line 6: retries: expected an integer of 0 or more, got -1\n" in said
    said = shell.type("enqueue", "--batch", "-", stdin=b"x\n" * 50, code=2).err
    assert "; line 5: " in said
    assert "; there may be more\n" in said
    assert "line 6" not in said
    assert not shell.place.path.exists()


def test_a_batch_of_nothing_enqueues_nothing(shell: Shell) -> None:
    assert shell.type("enqueue", "--batch", "-", stdin=b"\n\n").out == ""


def test_waiting_prints_the_id_at_once_and_ends_with_the_run(shell: Shell) -> None:
    waiting = shell.spawn("enqueue", "plain", "--wait")
    assert waiting.stdout
    id = waiting.stdout.readline().decode().strip()
    assert shell.run(id)["state"] == "queued", "it waits, and the id is there already"
    shell.finish("plain")
    out, err = waiting.communicate(timeout=20)
    assert (waiting.returncode, out) == (0, b"")
    assert b"no worker is running" in err


def test_waiting_for_a_run_that_fails_says_why_on_one_line_and_exits_1(shell: Shell) -> None:
    waiting = shell.spawn("enqueue", "plain", "--wait", "--queue", "default")
    assert waiting.stdout
    id = waiting.stdout.readline().decode().strip()
    shell.finish("plain", code=3)
    _, err = waiting.communicate(timeout=20)
    assert waiting.returncode == 1
    assert (
        err.decode().splitlines()[-1] == f"hueyctl: run {id[:8]} of plain failed: exited with 3; hueyctl logs {id[:8]}"
    )


def test_waiting_in_json_ends_with_the_run_as_it_ended(shell: Shell) -> None:
    waiting = shell.spawn("enqueue", "plain", "--wait", "--json")
    eventually(lambda: shell.place.path.exists() and shell.claim_all("plain"))
    out, err = waiting.communicate(timeout=20)
    assert (waiting.returncode, err) == (0, b"")
    assert json.loads(out)["run"]["state"] == "succeeded"


@pytest.mark.parametrize(
    ("option", "value", "wrong"),
    [
        ("--delay", "soon", "expected a duration"),
        ("--at", "soon", "expected a time"),
        ("--timeout", "0", "expected a duration of more than 0"),
        ("--expires", "x", "expected a duration"),
        ("--priority", "9" * 20, "expected an integer of 64 bits"),
        ("--retries", "-1", "expected an integer of 0 or more"),
        ("--queue", "a/b", "expected letters"),
        ("--id", "x", "expected a UUID"),
    ],
)
def test_a_wrong_value_is_said_of_the_option_that_gave_it(shell: Shell, option: str, value: str, wrong: str) -> None:
    assert shell.type("enqueue", "plain", option, value, code=2).err.startswith(f"hueyctl: {option}: {wrong}")


def test_a_job_that_is_called_like_an_option_is_not_taken_for_it(shell: Shell) -> None:
    shell.write('[jobs.at]\ncommand = ["true", "{x}"]\nparams = { x = { required = true } }')
    assert shell.type("enqueue", "at", code=2).err.startswith('hueyctl: at: parameter "x" is required')


def test_a_wait_that_times_out_exits_124_and_the_run_goes_on(shell: Shell) -> None:
    began = time.monotonic()
    said = shell.type("enqueue", "plain", "--wait-timeout", "200ms", code=124)
    assert 0.2 <= time.monotonic() - began < 5
    assert "is still queued" in said.err
    assert shell.run(said.out.strip())["state"] == "queued"


def test_a_wait_in_json_that_is_over_too_early_still_says_which_runs_were_accepted(shell: Shell) -> None:
    said = shell.type("enqueue", "plain", "--wait-timeout", "1ms", "--json", code=124)
    assert said.error["code"] == "wait-timeout"
    assert (said.json["run"]["state"], shell.run("last")["id"]) == ("queued", said.json["run"]["id"])
    batch = shell.type(
        "enqueue", "--batch", "-", "--wait-timeout", "1ms", "--json", code=124, stdin=b'{"job":"plain"}\n' * 2
    )
    assert [run["state"] for run in batch.json["runs"]] == ["queued", "queued"]
    shell.claim_all("plain")
    ended, live = said.json["run"]["id"], shell.enqueue("plain")
    waited = shell.type("wait", ended, live, "--timeout", "1ms", "--json", code=124).json["runs"]
    assert [(run["id"], run["state"]) for run in waited] == [(ended, "succeeded"), (live, "queued")]


def test_ctrl_c_ends_the_wait_says_so_and_leaves_the_run_going(shell: Shell) -> None:
    waiting = shell.spawn("enqueue", "plain", "--wait")
    assert waiting.stdout
    id = waiting.stdout.readline().decode().strip()
    eventually(lambda: list(shell.place.bell.iterdir()))
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert f"run {id[:8]} goes on" in err.decode()
    assert shell.run(id)["state"] == "queued"
    assert list(shell.place.bell.iterdir()) == []


def test_what_a_short_command_loads_is_little(shell: Shell) -> None:
    """The time of `hueyctl enqueue` is that of its imports."""
    timed = shell.spawn("enqueue", "plain", env=shell.env(PYTHONPROFILEIMPORTTIME="1"))
    _, err = timed.communicate(timeout=20)
    loaded = {line.rpartition("|")[2].strip() for line in err.decode().splitlines() if line.startswith("import time:")}
    assert "hueyctl.app.enqueue" in loaded
    heavy = {"rich", "huey", "cronsim", "pydantic", "asyncio", "multiprocessing", "logging", "hueyctl.engine"}
    assert loaded & heavy == set()


def test_every_command_explains_itself(shell: Shell) -> None:
    overview = shell.type("--help").out
    for name in COMMANDS:
        assert f"\n  {name} " in overview
        assert "--file" in shell.type(name, *{"worker": ["status"], "schedule": ["list"]}.get(name, []), "--help").out


def test_the_file_can_be_named_on_either_side_of_the_command(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    other = Shell(folder)
    file = str(shell.dir / "jobs.toml")
    first = other.enqueue("plain", "--file", file)
    second = other.type("--file", file, "enqueue", "plain").out.strip()
    assert {run["id"] for run in shell.type("runs", "--json").json["runs"]} == {first, second}
