"""Whatever is wrong: one clear message on stderr, the exit code that DESIGN names, and never a traceback."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shell import ROOT, Shell, eventually

import hueyctl
from hueyctl.cli.main import COMMANDS
from hueyctl.cli.schedule import schedule
from hueyctl.cli.settings import Settings
from hueyctl.cli.worker import worker

JOBS = """
    [jobs.fetch]
    command = ["true"]
    """


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write(JOBS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["enqueu"], 'there is no command "enqueu"; did you mean "enqueue"?'),
        (["worker", "strat"], 'there is no worker command "strat"; did you mean "start"?'),
        (["schedul", "list"], 'there is no command "schedul"; did you mean "schedule"?'),
        (["runs", "--jop", "x"], "--job"),
        (["runs", "x"], "unexpected extra argument"),
        (["enqueue", "fetch", "--priority", "x"], '--priority: expected a whole number, got "x"'),
        (["events", "--after", "1.5"], '--after: expected a whole number, got "1.5"'),
        (["runs", "-n", "0"], "--limit: expected 1 or more, got 0"),
        (["worker", "start", "-c", "0"], "--concurrency: expected 1 to 1000, got 0"),
        (["start"], 'there is no command "start"; did you mean "worker start"?'),
        (["backfill", "x"], 'there is no command "backfill"; did you mean "schedule backfill"?'),
    ],
)
def test_wrong_usage_is_2_in_our_words(shell: Shell, words: list[str], said: str) -> None:
    plain = shell.type(*words, code=2)
    assert plain.out == ""
    assert said in plain.err
    assert plain.err.startswith("hueyctl: ")
    assert "--help" in plain.err
    error = shell.type(*words, "--json", code=2).error
    assert error["code"] == "usage"
    assert said in error["message"]


def test_without_a_command_the_help_is_shown_and_it_is_2(shell: Shell) -> None:
    for words in ([], ["worker"]):
        said = shell.type(*words, code=2)
        assert "Commands:" in said.err
        assert "no command was given" in said.err


def test_version_and_help_are_answers(shell: Shell) -> None:
    assert shell.type("--version").out == f"hueyctl {hueyctl.__version__}\n"
    assert shell.type("--help").err == ""


@pytest.mark.parametrize("group", [[], ["worker"], ["schedule"]])
def test_the_list_of_commands_says_each_in_a_whole_sentence_and_h_is_help(shell: Shell, group: list[str]) -> None:
    usage, *rest = shell.type(*group, "--help").out.splitlines()
    assert shell.type(*group, "-h").out.splitlines() == [usage, *rest]
    assert not [line for line in rest if "..." in line]


def test_each_options_value_is_shown_by_a_word_and_not_by_a_type(shell: Shell) -> None:
    groups: dict[str, Any] = {"worker": worker, "schedule": schedule}
    names = [[name] for name in COMMANDS if name not in groups]
    names += [
        [name, str(each.name or getattr(each.callback, "__name__", "")).rstrip("_")]
        for name, group in groups.items()
        for each in group.registered_commands
    ]
    for words in names:
        shown = shell.type(*words, "--help").out
        assert not re.search("<(int|str|float|text)", shown), f"{words}: {shown}"


def test_a_parameter_that_is_missing_or_wrong_names_those_that_there_are(shell: Shell) -> None:
    shell.write('[jobs.get]\ncommand = ["true", "{url}", "{out}"]\nparams = { url = { required = true }, out = "x" }')
    for words in (["get"], ["get", "url=x", "ulr=x"], ["get", "url"]):
        assert "hint: get takes url, out\n" in shell.type("enqueue", *words, code=2).err


def test_every_error_of_a_file_is_said_at_once(shell: Shell) -> None:
    shell.write('[jobs.a]\ncommand = ["true"]\nretries = "three"\n[jobs.b]\nrun = "x"\n')
    said = shell.type("check", code=2)
    assert said.out == ""
    assert len([line for line in said.err.splitlines() if line.startswith("jobs.toml: jobs.")]) >= 2
    error = shell.type("runs", "--json", code=2).error
    assert error["code"] == "config"
    assert len(error["problems"]) >= 2


def test_without_a_file_init_is_named_and_makes_one(shell: Shell) -> None:
    (shell.dir / "jobs.toml").unlink()
    said = shell.type("jobs", code=2).err
    assert said.startswith("jobs.toml: there is none in "), "every line about the file begins with its name"
    assert "hueyctl init" in said
    assert shell.type("schema").raw == shell.type("schema", "--json").raw
    assert shell.type("init").out == "wrote jobs.toml\n"
    assert shell.type("check").out.endswith(" jobs, ok\n")
    assert "is there already" in shell.type("init", code=1).err
    assert shell.type("init", "--file", "other.toml", "--json").json["file"] == str(shell.dir / "other.toml")
    assert "can't be written" in shell.type("init", "--file", "no/such/folder.toml", code=1).err


def test_check_names_what_python_targets_lack_and_warns_of_what_isn_t_here(shell: Shell) -> None:
    shell.write("def good(a, b=1): ...\ndef other(a, c): ...\n", "acme.py")
    right = """
        [jobs.good]
        python = "acme:good"
        params = { a = 1 }
        [jobs.away]
        command = ["no-such-program-here"]
        [jobs.shell]
        script = "true"
        shell = ["no-such-shell-here", "-c"]
        env_file = "no-such.env"
        """
    shell.write(right)
    said = shell.type("check")
    assert said.out == "jobs.toml: 3 jobs, ok\n"
    assert [line.split(": ")[:3] for line in said.err.splitlines()] == [
        ["jobs.toml", "warning", "jobs.away.command"],
        ["jobs.toml", "warning", "jobs.shell.env_file"],
        ["jobs.toml", "warning", "jobs.shell.shell"],
    ], "lines about the file begin with its name, where it is wrong and where it is doubtful"
    assert len(shell.type("check", "--json").json["check"]["warnings"]) == 3
    shell.write(
        right
        + """
        [jobs.missing]
        python = "acme:nosuch"
        [jobs.nowhere]
        python = "nowhere:at_all"
        [jobs.wrong]
        python = "acme:other"
        params = { a = 1, d = 2 }
        """
    )
    problems = shell.type("check", "--json", code=2).error["problems"]
    for part in ("jobs.missing.python", "jobs.nowhere.python", '"d"', '"c"'):
        assert any(part in problem for problem in problems), problems


def test_check_looks_at_a_target_in_the_environment_that_a_worker_would_give_it(shell: Shell) -> None:
    shell.write("import os\nif os.environ['SETTINGS'] == 'live':\n    def job(): ...\n", "acme.py")
    shell.write("SETTINGS=live\n", "live.env")
    shell.write('[jobs.job]\npython = "acme:job"\nenv_file = "live.env"\n')
    assert shell.type("check").out == "jobs.toml: 1 job, ok\n"
    shell.write('[jobs.job]\npython = "acme:job"\nenv = { SETTINGS = "test" }\n')
    assert "jobs.job.python" in shell.type("check", code=2).err


def test_completion_offers_commands(shell: Shell) -> None:
    env = shell.env(_HUEYCTL_COMPLETE="complete_bash", COMP_WORDS="hueyctl enq", COMP_CWORD="1")
    process = shell.spawn(env=env)
    assert process.communicate(timeout=20)[0].split() == [b"enqueue"]


def test_a_store_that_can_t_be_used_is_4(shell: Shell) -> None:
    shell.place.dir.mkdir()
    shell.place.path.write_text("not a database")
    for words in (["enqueue", "fetch"], ["runs"], ["inspect"], ["events", "-f"], ["worker", "status"]):
        assert shell.type(*words, "--json", code=4).error["code"] == "store-damaged"
    assert shell.place.path.read_text() == "not a database"


def test_another_users_store_is_said_to_be_one_users(shell: Shell) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own can't be entered by others
        shell = Shell(Path(folder))
        shell.write(JOBS)
        commands = [["enqueue", "fetch"], ["runs"], ["worker", "start", "--detach"], ["worker", "start"]]
        shell.enqueue("fetch")
        for words in commands[:2]:
            shell.type(*words)
        importlib.import_module("hueyctl.engine.worker")  # that other user may not be able to read it
        with as_another_user(shell):
            for words in commands:
                said = shell.type(*words, code=4)
                assert "Permission denied" in said.err
                assert "hint: a store belongs to one user" in said.err
            hints = [check["hint"] for check in shell.type("doctor", "--json", code=1).json["checks"]]
            assert not any("restore a copy" in hint for hint in hints if hint)


@contextlib.contextmanager
def as_another_user(shell: Shell) -> Iterator[None]:
    """The store's folder is closed; root, whom that doesn't stop, is somebody else meanwhile."""
    shell.dir.chmod(0o755)
    shell.place.dir.chmod(0)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)
        shell.place.dir.chmod(0o700)


def test_a_store_of_another_user_is_read_and_not_written_by_root_either(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What root made beside it, its owner could not even read."""
    run = shell.enqueue("fetch")
    shell.register()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: 0 if owner else 65534)
    shell.place.output.rmdir()
    before = set(shell.place.dir.rglob("*"))
    for words in (["enqueue", "fetch"], ["worker", "start", "--burst"], ["revoke", run], ["pause"], ["prune"]):
        said = shell.type(*words, code=4)
        assert "a store belongs to one user" in said.err
        assert "sudo -u" in said.err
    made = {path.name for path in set(shell.place.dir.rglob("*")) - before}
    assert made <= {"queue.db-shm", "queue.db-wal"}, "SQLite gives those to the owner of the file"
    assert shell.run(run)["state"] == "queued"


def test_reading_works_where_nothing_can_be_written(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    shell.finish("fetch", result=b"x")
    folders = [shell.place.dir, *(path for path in shell.place.dir.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o500)
    shell.place.path.chmod(0o400)
    try:
        for words in (["runs"], ["inspect", run], ["result", run], ["wait", run], ["events"], ["inspect"]):
            assert shell.type(*words).out
    finally:
        for path in folders:
            path.chmod(0o700)


def test_a_bug_is_70_and_debug_shows_where(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Settings) -> None:
        raise ZeroDivisionError("\x1b[31mboom")

    monkeypatch.setattr(Settings, "store_session", broken)
    said = shell.type("runs", code=70)
    assert said.err == "hueyctl: a bug in hueyctl: ZeroDivisionError: \\x1b[31mboom\nhint: --debug shows where\n"
    assert shell.type("runs", "--json", code=70).error["code"] == "internal"


def test_debug_shows_the_traceback_of_an_error_too(shell: Shell) -> None:
    process = shell.spawn("enqueue", "nosuch", "--debug")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 3
    assert b"Traceback" in err
    assert b"there is no job" in err


def test_a_reader_that_has_seen_enough_ends_it_quietly(shell: Shell) -> None:
    shell.type("enqueue", "--batch", "-", stdin=b'{"job": "fetch"}\n' * 3000)
    process = subprocess.run(
        ["bash", "-c", f"{sys.executable} -P -m hueyctl runs -n 3000 | head -n 1; exit ${{PIPESTATUS[0]}}"],
        cwd=shell.dir,
        env=shell.env(),
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout.startswith(b"RUN ")


def test_a_follower_whose_reader_has_gone_ends_and_leaves_no_bell(shell: Shell) -> None:
    shell.enqueue("fetch")
    following = shell.spawn("events", "-f")
    assert following.stdout
    eventually(lambda: list(shell.place.bell.iterdir()))
    following.stdout.close()
    assert following.wait(20) == 0, "and not at the next event, which may be tomorrow"
    assert list(shell.place.bell.iterdir()) == []


def test_a_follower_of_logs_ends_with_its_reader_too(shell: Shell) -> None:
    shell.enqueue("fetch")
    (claim,) = shell.claim("fetch")
    shell.print_output(claim.run.id, 1, stdout=b"one\n")
    following = shell.spawn("logs", "last", "-f")
    assert following.stdout
    assert following.stdout.readline() == b"one\n"
    following.stdout.close()
    assert following.wait(20) == 0


def test_what_every_command_takes_may_stand_before_it(shell: Shell) -> None:
    assert shell.type("--json", "jobs").json == shell.type("jobs", "--json").json
    assert shell.type("--json", "--file", "jobs.toml", "nosuch", code=2).error["code"] == "usage"


def test_ctrl_c_on_a_follower_is_130_and_silent(shell: Shell) -> None:
    shell.enqueue("fetch")
    following = shell.spawn("events", "-f")
    eventually(lambda: list(shell.place.bell.iterdir()))
    following.send_signal(signal.SIGINT)
    assert following.communicate(timeout=20) == (b"", b"")
    assert following.returncode == 130


def test_ctrl_c_in_what_no_exception_can_leave_ends_it_too(shell: Shell) -> None:
    """As in the callback of a weak reference, which every import has: Python prints what was raised, and goes on."""
    (shell.dir / "sitecustomize.py").write_text(
        textwrap.dedent("""
        import os, signal, sys

        class Gone:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGINT)

        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == "hueyctl.cli.events":
                    Gone()

        sys.meta_path.insert(0, Finder())
        """)
    )
    following = shell.spawn("events", "-f", env=shell.env(PYTHONPATH=f"{shell.dir}{os.pathsep}{ROOT}"))
    assert following.communicate(timeout=20) == (b"", b"")
    assert following.returncode == 130


def test_ctrl_c_while_it_is_loaded_is_silent_too(shell: Shell) -> None:
    (shell.dir / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    interrupted = shell.spawn("runs", env=shell.env(PYTHONPATH=f"{shell.dir}{os.pathsep}{ROOT}"))
    assert interrupted.communicate(timeout=20) == (b"", b"")
    assert interrupted.returncode == -signal.SIGINT


def test_a_full_disk_behind_stdout_is_said(shell: Shell) -> None:
    shell.enqueue("fetch")
    with open("/dev/full", "wb") as full:
        for word in ("runs", "--help", "--version"):
            process = shell.spawn(word, stdout=full)
            _, err = process.communicate(timeout=20)
            assert process.returncode == 1
            assert b"the answer could not be written" in err


def test_closed_streams_are_no_reason_to_fail(shell: Shell) -> None:
    command = f"{sys.executable} -P -m hueyctl"
    closed = subprocess.run(
        ["sh", "-c", f"{command} enqueue fetch >&- 2>&- <&-"], cwd=shell.dir, env=shell.env(), check=False, timeout=30
    )
    assert closed.returncode == 0
    assert len(shell.type("runs", "--json").json["runs"]) == 1


def test_arguments_that_are_no_utf_8_are_refused_in_words(shell: Shell) -> None:
    process = subprocess.run(
        [*map(os.fsencode, shell.argv("enqueue")), b"caf\xe9", b"--json"],
        cwd=shell.dir,
        env=shell.env(),
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert process.returncode == 3
    assert b'"code":"not-found"' in process.stderr


def test_python_m_hueyctl_is_hueyctl(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "hueyctl", "--version"], cwd=ROOT, capture_output=True, check=True, timeout=30
    )
    assert process.stdout.decode() == f"hueyctl {hueyctl.__version__}\n"


def test_a_folder_that_is_gone_is_said(shell: Shell, tmp_path: Path) -> None:
    gone = tmp_path / "release-1"
    gone.mkdir()
    command = f"cd {gone} && rmdir {gone} && exec {shlex.join(shell.argv('runs'))}"
    done = subprocess.run(["sh", "-c", command], env=shell.env(), capture_output=True, text=True, check=False)
    assert done.returncode == 2, done
    assert "the folder that you are in is gone" in done.stderr


def test_check_marks_what_may_be_right_elsewhere_and_says_what_it_has_not_looked_at(shell: Shell) -> None:
    shell.write('[jobs.a]\ncommand = ["nosuch"]\n')
    said = shell.type("check")
    assert said.err == 'jobs.toml: warning: jobs.a.command: there is no program "nosuch" here\n'
    shell.write('[jobs.a]\ncommand = ["nosuch"]\n[jobs.b]\npython = "nosuch:x"\n')
    lines = shell.type("check", code=2).err.splitlines()
    assert [line.partition(": jobs.")[0] for line in lines] == ["jobs.toml", "jobs.toml: warning"]
    shell.write('[jobs.a]\ncommand = ["nosuch"]\nretries = "x"\n')
    lines = shell.type("check", code=2).err.splitlines()
    assert lines[1] == "hint: the programs, functions and folders that it names are looked at once that is right"
