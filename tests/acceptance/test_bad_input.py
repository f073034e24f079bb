"""Wrong input: a clear message, the right exit code, and nothing lost or half done."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
from harness import Project

JOBS = """
    [jobs.typed]
    command = ["echo", "{text}", "{count}"]
    params = { text = { type = "string", required = true }, count = 3, yes = false, ratio = 0.5, list = ["a"], mode = { type = "string", default = "fast", choices = ["fast", "slow"] } }
    """  # noqa: E501 (TOML, as one would write it)


# -- the file -------------------------------------------------------------------------------------------------------


def test_without_a_file_every_command_says_how_to_make_one(project: Project) -> None:
    for words in (["check"], ["enqueue", "fetch"], ["worker", "start"], ["runs"], ["events"], ["inspect"]):
        result = project.cli(*words, code=2)
        assert "jobs.toml" in result.err
        assert "hueyctl init" in result.err


def test_broken_toml_is_named_with_its_line(project: Project) -> None:
    project.write('[jobs.a]\ncommand = ["true"\nretries = 1\n')
    result = project.cli("check", code=2)
    assert "jobs.toml" in result.err
    assert "line 3" in result.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[jobs.a]\ncommand = ["true"]\nretires = 1', ["jobs.a.retires", "retries"]),
        ('[jobs.a]\nrun = "true"', ["jobs.a.run", "script"]),
        ('[jobs.a]\ncommand = ["true"]\nneeds = ["b"]', ["jobs.a.needs", "pipelines"]),
        ("[worker]\nworkers = 4", ["worker.workers", "concurrency"]),
        ('[jobs.a]\ncommand = ["true"]\nretries = "three"', ["jobs.a.retries: expected an integer", '"three"']),
        ('[jobs.a]\ncommand = ["true"]\nretries = true', ["jobs.a.retries"]),
        ('[jobs.a]\ncommand = ["true"]\ntimeout = "soon"', ["jobs.a.timeout", '"soon"']),
        ("[jobs.a]\ncommand = []", ["jobs.a.command"]),
        ("[jobs.a]\n", ["jobs.a", "command", "script", "python"]),
        ('[jobs.a]\ncommand = ["true"]\nscript = "true"', ["jobs.a", "command", "script"]),
        ('[jobs.a]\ncommand = ["echo", "{nome}"]\nparams = { name = "x" }', ["jobs.a.command", "nome"]),
        ('[jobs.a]\npython = "no-colon"', ["jobs.a.python"]),
        ('[jobs."a b"]\ncommand = ["true"]', ["a b"]),
        ('[jobs.a]\ncommand = ["true"]\nparams = { n = { type = "int" } }', ["jobs.a.params.n", "integer"]),
        ('[hueyctl]\ntimezone = "Europe/Berlni"', ["hueyctl.timezone", "Europe/Berlin"]),
        ("[jbos.a]\n", ["jbos", "jobs"]),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_place(project: Project, text: str, said: list[str]) -> None:
    project.write(text)
    result = project.cli("check", code=2)
    for part in said:
        assert part in result.err, result
    assert not result.out
    document = project.cli("check", "--json", code=2).error
    assert document["code"] == "config"


def test_all_that_is_wrong_is_said_at_once(project: Project) -> None:
    project.write('[jobs.a]\nretries = -1\nqueue = 3\n[jobs.b]\ncommand = "true"\n[worker]\nconcurrency = 0\n')
    result = project.cli("check", code=2)
    for place in ("jobs.a", "jobs.a.retries", "jobs.a.queue", "jobs.b.command", "worker.concurrency"):
        assert f"jobs.toml: {place}:" in result.err, result


def test_check_says_what_of_a_python_job_cannot_be_imported_or_called(project: Project) -> None:
    project.file("mine.py", "def f(a, b=1): ...\n")
    project.file("broken.py", "import nothing_like_it\n")
    project.write(
        """
        [jobs.good]
        python = "mine:f"
        params = { a = 1 }
        [jobs.module]
        python = "nowhere:f"
        [jobs.function]
        python = "mine:g"
        [jobs.inside]
        python = "broken:f"
        [jobs.missing]
        python = "mine:f"
        [jobs.extra]
        python = "mine:f"
        params = { a = 1, colour = "red" }
        """
    )
    result = project.cli("check", code=2)
    for job, said in {
        "module": "nowhere",
        "function": "g",
        "inside": "nothing_like_it",
        "missing": "a",
        "extra": "colour",
    }.items():
        assert any(f"jobs.{job}" in line and said in line for line in result.err.splitlines()), (job, result)
    assert "jobs.good" not in result.err


def test_check_says_which_program_or_shell_is_not_there(project: Project) -> None:
    project.write(
        '[jobs.a]\ncommand = ["no-such-program"]\n[jobs.b]\nscript = "true"\nshell = ["no-such-shell", "-c"]\n'
    )
    done = subprocess.run(
        [project.command, "check"], cwd=project.dir, env=project.env, capture_output=True, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert "no-such-program" in said
    assert "no-such-shell" in said


# -- parameters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["text"]),
        (["text=a", "colour=red"], ["colour"]),
        (["text=a", "cuont=1"], ["cuont", "count"]),
        (["text=a", "count=three"], ["count", "integer"]),
        (["text=a", "count=1.5"], ["count", "integer"]),
        (["text=a", f"count={2**63}"], ["count"]),
        (["text=a", "yes=perhaps"], ["yes", "true or false", "perhaps"]),
        (["text=a", "ratio=nan"], ["ratio"]),
        (["text=a", "list=a,b"], ["list"]),
        (["text=a", "mode=medium"], ["mode", "fast", "slow"]),
        (["text"], ["text"]),
        (["text=@no-such-file"], ["no-such-file"]),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(project: Project, words: list[str], said: list[str]) -> None:
    project.write(JOBS)
    result = project.cli("enqueue", "typed", *words, code=2)
    for part in said:
        assert part in result.err, result
    assert not result.out
    if project.store.exists():
        assert project.runs() == []


def test_a_parameter_of_bytes_that_are_no_utf8_is_refused(project: Project) -> None:
    project.write(JOBS)
    project.cli("enqueue", "typed", b"text=\xff\xfe", code=2)
    project.cli("enqueue", "--batch", "-", stdin='{"job": "typed", "params": {"text": "\\ud800"}}\n', code=2)
    project.cli("enqueue", "--batch", "-", stdin=b'{"job": "typed", "params": {"text": "\xff"}}\n', code=2)
    project.cli("enqueue", "--batch", "-", stdin='{"job": "typed", "params": {"text": "a\\u0000b"}}\n', code=2)
    if project.store.exists():
        assert project.runs() == []


def test_an_unknown_job_is_refused_with_the_nearest_name(project: Project) -> None:
    project.write(JOBS)
    result = project.cli("enqueue", "tyepd", code=3)
    assert "tyepd" in result.err
    assert "typed" in result.err
    assert project.cli("enqueue", "tyepd", "--json", code=3).error["code"] == "not-found"


# -- the store ------------------------------------------------------------------------------------------------------


def test_a_store_that_cannot_be_made_is_said_with_its_place(project: Project) -> None:
    project.write(JOBS)
    blocked = project.file("file", "")
    for store in (blocked / "queue.db", Path("/proc/hueyctl/queue.db")):
        for words in (["enqueue", "typed", "text=a"], ["worker", "start"]):
            result = project.cli(*words, code=4, env={"HUEYCTL_STORE": str(store)})
            assert str(store.parent) in result.err
            assert not result.out


def test_a_store_that_is_a_folder_is_refused(project: Project) -> None:
    project.write(JOBS)
    project.store.mkdir(parents=True)
    project.cli("enqueue", "typed", "text=a", code=4)


def test_reading_without_a_store_says_that_there_is_none(project: Project) -> None:
    project.write(JOBS)
    result = project.cli("events", code=4)
    assert "store" in result.err
    assert not project.store.exists()


def test_a_full_disk_takes_in_nothing_and_says_so(project: Project) -> None:
    project.write(JOBS)
    kept = project.enqueue("typed", "text=before")
    batch = project.dir / "batch"
    batch.write_text('{"job": "typed", "params": {"text": "%s"}}\n' % ("x" * 500) * 20_000)
    limited = ["bash", "-c", 'ulimit -f 1024; exec "$@"', "bash", project.command, "enqueue", "--batch", str(batch)]
    done = subprocess.run(limited, cwd=project.dir, env=project.env, capture_output=True, check=False)
    assert done.returncode == 4, done
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr
    assert done.stderr
    assert [run["id"] for run in project.runs()] == [kept]
    with sqlite3.connect(project.store) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    assert len(project.cli("enqueue", "--batch", str(batch)).out.split()) == 20_000


def test_a_store_of_a_newer_version_is_left_alone(project: Project) -> None:
    project.write(JOBS)
    run = project.enqueue("typed", "text=a")
    _pragma(project.store, "user_version = 9999")
    for words in (["enqueue", "typed", "text=b"], ["worker", "start", "--burst"], ["runs"], ["revoke", run]):
        result = project.cli(*words, code=4)
        assert "newer" in result.err
    assert project.cli("runs", "--json", code=4).error["code"] == "store-newer"


@pytest.mark.parametrize("size", [10_000, 100])
def test_a_file_that_is_no_store_is_left_alone(project: Project, size: int) -> None:
    project.write(JOBS)
    project.store.parent.mkdir()
    garbage = os.urandom(size)
    project.store.write_bytes(garbage)
    for words in (["enqueue", "typed", "text=b"], ["worker", "start", "--burst"], ["runs"]):
        result = project.cli(*words, code=4)
        assert str(project.store) in result.err
    assert project.store.read_bytes() == garbage


def test_a_busy_store_is_waited_for_and_then_said_to_be_busy(project: Project) -> None:
    project.write(JOBS)
    project.enqueue("typed", "text=a")
    db = sqlite3.connect(project.store, isolation_level=None)
    try:
        db.execute("BEGIN IMMEDIATE")
        assert project.cli("enqueue", "typed", "text=b", "--json", code=4).error["code"] == "store-busy"
        assert len(project.runs()) == 1
    finally:
        db.close()
    project.enqueue("typed", "text=b")


def _pragma(store: Path, pragma: str) -> None:
    db = sqlite3.connect(store)
    try:
        db.execute(f"PRAGMA {pragma}")
        db.commit()
    finally:
        db.close()
