"""Whatever has become of jobs.toml, an operator gets at the store: he can see, stop and hold what goes on in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from shell import Shell, eventually

from hueyctl.cli.settings import Settings
from hueyctl.errors import ConfigError

JOBS = """
    [jobs.fetch]
    command = ["echo", "{token}"]
    params = { token = { type = "string", default = "hunter2222", secret = true } }

    [jobs.store]
    command = ["true"]
    queue = "other"

    [pipelines.etl]
    steps = ["fetch", "store"]

    [schedules.nightly]
    job = "fetch"
    cron = "30 2 * * *"
    """


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


BROKEN: dict[str, Callable[[Path], object]] = {
    "no TOML": lambda path: path.write_text("[jobs\n"),
    "wrong": lambda path: path.write_text("[jobs.fetch]\nretries = 'x'\n[jobs.store]\ncommand = ['true']\n"),
    "gone": lambda path: path.unlink(),
    "unreadable": loop,
}


@pytest.fixture(params=BROKEN)
def breaking(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    return BROKEN[request.param]


@pytest.fixture
def file(shell: Shell) -> Path:
    """A file that was right while its store came to be: a pipeline that has succeeded, a run that has, and one that
    waits."""
    file = shell.write(JOBS)
    shell.enqueue("etl")
    shell.finish("fetch")
    shell.finish("store", result=b"done")
    run = shell.enqueue("fetch")
    shell.finish("fetch", result=b"got hunter2222")
    shell.print_output(run, 1, stdout=b"got hunter2222\n")
    shell.enqueue("store", "--delay", "1h")
    return file


STORE_ALONE = [
    "worker status",
    "inspect",
    "inspect fetch",
    "runs",
    "runs --job store --queue other --since yesterday",
    "logs fetch",
    "result fetch",
    "wait fetch",
    "result etl",
    "graph {etl}",
    "events",
    "backup copy.db --force",
    "prune --succeeded 1d --failed 1d --events 1d",
    "pause --job fetch --queue other --note why",
    "resume --job fetch --queue other",
    "revoke --state scheduled",
    "retry --state revoked",
    "revoke store",
]
DEFINITIONS = [
    "check",
    "jobs",
    "enqueue fetch",
    "worker start --burst",
    "worker reload",
    "schedule list",
    "schedule next nightly",
    "schedule trigger nightly",
    "schedule backfill nightly --from yesterday",
    "retry --again fetch",
    "graph etl",
    "prune",
    "prune --failed 1d",
]


def test_what_needs_the_store_alone_goes_on_with_one_line_of_warning(
    shell: Shell, file: Path, breaking: Callable[[Path], object]
) -> None:
    etl = shell.type("runs", "--job", "etl", "--json").json["runs"][0]["id"]
    same = ["logs fetch", "result fetch", "result etl", "wait fetch", "events -n 5 --json", "worker status --json"]
    whole = {line: shell.type(*line.split(), code=line.startswith("worker")).out for line in same}
    breaking(file)
    for line in [*whole, *STORE_ALONE]:
        said = shell.type(*line.format(etl=etl).split(), code=line.startswith("worker status"))
        warning, *others = said.err.splitlines()
        if "--json" in line:
            assert json.loads(warning)["warning"]["problems"], warning
        else:
            assert warning.startswith("jobs.toml: "), "a line about the file begins with its name"
            assert f"going on with its store alone, {shell.place.path}: see `hueyctl check`" in warning
        assert not [line for line in others if line.startswith("jobs.toml")], "once is enough"
        assert said.out == whole.get(line, said.out)
        assert "hunter" not in said.out + said.err
        assert said.out


def test_what_needs_definitions_says_all_that_is_wrong_and_does_nothing(
    shell: Shell, file: Path, breaking: Callable[[Path], object]
) -> None:
    before = shell.type("events", "--json").out
    breaking(file)
    for line in DEFINITIONS:
        wrong = shell.type(*line.split(), "--json", code=2).err.splitlines()[-1]
        assert json.loads(wrong)["error"]["code"] == "config"
    assert shell.type("run", "fetch", code=125).err.startswith("jobs.toml: ")
    assert shell.type("events", "--json").out == before


def test_whoever_has_gone_on_without_definitions_gets_none(shell: Shell, file: Path) -> None:
    file.write_text("[jobs\n")
    settings = Settings()
    settings.file = file
    try:
        assert settings.store_session().reader().newest(job="fetch")
        with pytest.raises(ConfigError):
            settings.session()
    finally:
        settings.close()


def test_a_name_that_the_store_does_not_have_may_be_in_the_file(shell: Shell, file: Path) -> None:
    file.write_text("[jobs\n")
    for line in ("inspect heavy", "pause --job heavy", "pause --queue heavy", "pause --schedule heavy", "runs --job x"):
        assert "jobs.toml: line 1, column 6" in shell.type(*line.split(), code=2).err
    assert "is a pipeline" in shell.type("pause", "--job", "etl", code=2).err
    shell.register("w1", jobs=["heavy"])
    assert shell.type("pause", "--job", "heavy").out.startswith("paused job heavy"), "its worker knows it"


def test_a_worker_is_found_and_stopped_without_a_right_file(
    shell: Shell, file: Path, breaking: Callable[[Path], object]
) -> None:
    log = shell.dir / "worker.log"
    with log.open("wb") as stderr:
        worker = shell.spawn("worker", "start", stderr=stderr)
    eventually(lambda: worker.poll() is not None or b"online" in log.read_bytes())
    breaking(file)
    assert "alive" in shell.type("worker", "status").out
    assert shell.type("worker", "stop").out.startswith("stopped worker ")
    assert worker.wait(timeout=20) == 0


def test_doctor_looks_at_the_store_too(shell: Shell, file: Path, breaking: Callable[[Path], object]) -> None:
    breaking(file)
    found = {check["name"]: check["state"] for check in shell.type("doctor", "--json", code=1).json["checks"]}
    assert found["file"] == "problem"
    assert found["store"] == "ok"


def test_a_lost_file_is_that_of_the_nearest_folder_with_a_store(shell: Shell, file: Path) -> None:
    file.unlink()
    inner = shell.dir / "a" / "b"
    inner.mkdir(parents=True)
    shell.dir = inner
    assert "fetch" in shell.type("runs").out


def test_where_the_store_can_not_be_told_nothing_is_guessed_and_nothing_made(
    shell: Shell, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = shell.place.path.parent.rename(shell.dir / "away")
    for text in ("[jobs\n", '[hueyctl]\nstore = "away/queue.db"\n[jobs\n'):
        file.write_text(text)
        for line in ("runs", "pause", "worker stop", "worker status"):
            assert "HUEYCTL_STORE=PATH" in shell.type(*line.split(), code=2).err
    assert not shell.place.dir.exists()
    monkeypatch.setenv("HUEYCTL_STORE", "away/queue.db")
    assert "fetch" in shell.type("runs").out
    monkeypatch.delenv("HUEYCTL_STORE")
    file.write_text('[hueyctl]\nstore = "away/queue.db"\nstroe = 1\n')
    assert "fetch" in shell.type("runs").out, "as far as it is right"
    away.rename(shell.place.dir)
    for wrong in (
        "  ",
        "~nobody-of-that-name/q.db",
        "mysql://ada:hunter2@localhost/jobs",
        "postgres://ada:hunter2@x@localhost/jobs",
    ):
        monkeypatch.setenv("HUEYCTL_STORE", wrong)
        said = shell.type("runs", code=2)
        assert "HUEYCTL_STORE" in said.err
        assert "hunter2" not in said.err
        checks = shell.type("doctor", "--json", code=1).json["checks"]
        assert {check["name"] for check in checks} == {"file"}, "of another store it says nothing"
