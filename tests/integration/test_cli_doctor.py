"""`hueyctl doctor`: each thing that can be wrong is found, said with what to do, and nothing is changed."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from shell import Shell

import hueyctl
from hueyctl.config.load import load
from hueyctl.model.run import Message, NewRun
from hueyctl.model.schedule import definition_hash, rule_hash
from hueyctl.storage.database import SCHEMA_VERSION
from hueyctl.storage.locks import hold
from hueyctl.storage.store import Pause, ScheduleDefinition

JOBS = """
    [jobs.fetch]
    command = ["true"]
    params = { url = "", token = { type = "string", default = "", secret = true } }

    [jobs.heavy]
    command = ["true"]
    queue = "heavy"
    """

Checks = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write(JOBS)


@pytest.fixture
def worker(shell: Shell) -> Iterator[None]:
    """The worker `w1`: registered, holding its lock, of this version."""
    with shell.store():
        pass
    lock = hold(shell.place.worker_lock("w1"))
    assert lock is not None
    shell.register("w1", jobs=["fetch", "heavy"], version=hueyctl.__version__)
    yield
    lock.release()


def doctor(shell: Shell, *words: str, code: int) -> Checks:
    document = shell.type("doctor", "--json", *words, code=code).json
    assert list(document) == ["schema", "checks"]
    checks: Checks = document["checks"]
    assert all((check["hint"] is None) == (check["state"] == "ok") for check in checks)
    return checks


def findings(checks: Checks) -> list[tuple[str, str]]:
    """All that is not ok, but the SQLite of this machine."""
    return [(each["name"], each["state"]) for each in checks if each["state"] != "ok" and each["name"] != "sqlite"]


def only(checks: Checks, name: str, state: str) -> str:
    """The one finding that there is, as one text."""
    assert findings(checks) == [(name, state)], checks
    (found,) = (each for each in checks if (each["name"], each["state"]) == (name, state))
    return f"{found['found']} -> {found['hint']}"


def sql(shell: Shell, *statements: str) -> None:
    with closing(sqlite3.connect(shell.place.path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_fresh_install_is_well_and_nothing_is_made(shell: Shell) -> None:
    checks = doctor(shell, code=0)
    assert findings(checks) == []
    assert [each["name"] for each in checks] == ["file", "file-system", "permissions", "space", "sqlite", "store"]
    assert [path.name for path in shell.dir.iterdir()] == ["jobs.toml"]


def test_a_store_in_use_is_well_and_its_file_is_left_as_it_is(shell: Shell, worker: None) -> None:
    shell.enqueue("fetch", "url=x")
    shell.finish("fetch")
    shell.enqueue("fetch")
    before = shell.place.path.read_bytes()
    checks = doctor(shell, code=0)
    assert findings(checks) == []
    assert {"pragmas", "integrity", "clock", "workers", "queues", "held", "jobs"} <= {c["name"] for c in checks}
    assert findings(doctor(shell, "--full", code=0)) == []
    assert shell.place.path.read_bytes() == before


def test_people_are_told_in_words_what_to_do(shell: Shell) -> None:
    shell.enqueue("fetch")
    said = shell.type("doctor", code=1)
    assert said.out.splitlines()[0].split() == ["CHECK", "STATE", "FOUND"]
    assert "\nqueues: 1 run is due, and no worker is running\n  `hueyctl worker start` starts one\n" in said.out
    assert said.err.startswith("hueyctl: 1 problem, ")


def test_a_wrong_file_is_a_finding_and_its_store_is_looked_at(shell: Shell) -> None:
    shell.write(JOBS + '\n[hueyctl]\nstore = "elsewhere/q.db"\n')
    shell.enqueue("fetch")
    shell.write(JOBS + '\n[hueyctl]\nstore = "elsewhere/q.db"\n[jobs.bad]\nrun = "true"\n[worker]\nlease = "soon"\n')
    checks = doctor(shell, code=1)
    assert len([each for each in checks if (each["name"], each["state"]) == ("file", "problem")]) >= 2
    assert any("elsewhere/q.db: version" in each["found"] for each in checks)
    shell.write("[jobs\n")
    assert ("file", "problem") in findings(doctor(shell, code=1))
    (shell.dir / "jobs.toml").unlink()
    assert [each["name"] for each in doctor(shell, code=1)] == ["file"]


def test_what_jobs_name_is_looked_at_as_check_does(shell: Shell) -> None:
    """A function that can't be imported fails each run; a program may be there where the workers run."""
    shell.write(JOBS + '[jobs.gone]\ncommand = ["nosuchprogram"]\n[jobs.bad]\npython = "nosuchmodule:f"\n')
    found = [check for check in doctor(shell, code=1) if check["name"] == "file"]
    assert [check["state"] for check in found] == ["ok", "problem", "warning"]
    assert "nosuchmodule" in found[1]["found"]
    assert 'there is no program "nosuchprogram" here' in found[2]["found"]
    assert all(check["hint"] for check in found[1:])


def test_a_file_that_everybody_can_write_is_a_problem(shell: Shell) -> None:
    (shell.dir / "jobs.toml").chmod(0o666)
    assert "chmod o-w" in only(doctor(shell, code=1), "file", "problem")


def test_folders_and_files_that_others_can_read_are_told(shell: Shell, worker: None) -> None:
    shell.place.dir.chmod(0o755)
    assert f"chmod go-rwx {shell.place.dir}" in only(doctor(shell, code=0), "permissions", "warning")
    shell.place.dir.chmod(0o700)
    shell.place.path.chmod(0o640)
    assert f"chmod go-rwx {shell.place.path}" in only(doctor(shell, code=0), "permissions", "warning")


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\0" * 5000])
def test_what_is_no_store_is_a_finding_and_left_as_it_is(shell: Shell, content: bytes) -> None:
    shell.enqueue("fetch")
    shell.place.path.write_bytes(content)
    assert "hueyctl backup" in only(doctor(shell, code=1), "store", "problem")
    assert shell.place.path.read_bytes() == content


def test_damage_inside_is_found(shell: Shell, worker: None) -> None:
    with shell.store() as store:
        runs = [
            NewRun(id=str(uuid.uuid4()), job="fetch", message=Message(params={"url": "x" * 900})) for _ in range(500)
        ]
        store.accept(runs, by="b", now=datetime.now(UTC))
    damaged = bytearray(shell.place.path.read_bytes())
    damaged[30 * 4096 : 60 * 4096] = b"\xa5" * (30 * 4096)
    shell.place.path.write_bytes(damaged)
    checks = doctor(shell, code=1)
    assert ("integrity", "problem") in findings(checks)
    assert all("backup" in each["hint"] for each in checks if each["name"] == "integrity")
    assert shell.place.path.read_bytes() == damaged


def test_an_index_that_lacks_a_row_is_found_by_a_full_look(shell: Shell, worker: None) -> None:
    shell.enqueue("fetch")
    sql(
        shell,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = replace(sql, '(job)', '(queue)') WHERE name = 'runs_job'",
    )
    assert findings(doctor(shell, code=0)) == []
    assert set(findings(doctor(shell, "--full", code=1))) == {("integrity", "problem")}


def test_a_count_that_is_not_that_of_its_runs_is_found_by_a_full_look(shell: Shell, worker: None) -> None:
    shell.enqueue("fetch")
    sql(shell, "UPDATE lines SET count = 5 WHERE state = 'queued'")
    assert findings(doctor(shell, code=0)) == []
    found = only(doctor(shell, "--full", code=1), "integrity", "problem")
    assert "1 runs of fetch are queued in default, and 5 are counted" in found


def test_a_newer_store_and_a_lost_one_are_findings(shell: Shell) -> None:
    shell.enqueue("fetch")
    sql(shell, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    assert "upgrade hueyctl" in only(doctor(shell, code=1), "store", "problem")
    shell.place.path.unlink()
    shell.place.path.with_name("queue.db-wal").write_bytes(b"x")
    assert "its log queue.db-wal is there" in only(doctor(shell, code=1), "store", "problem")


def test_a_journal_mode_that_is_not_ours_is_told(shell: Shell) -> None:
    with shell.store():
        pass
    sql(shell, "PRAGMA journal_mode = DELETE")
    assert "journal_mode is delete" in only(doctor(shell, code=0), "pragmas", "warning")


def test_a_worker_silent_past_its_lease_is_a_problem_and_a_late_one_is_told(shell: Shell, worker: None) -> None:
    shell.beat("w1", ago_s=31)
    assert "kill -CONT 4242" in only(doctor(shell, code=1), "workers", "problem")
    shell.beat("w1", ago_s=20)
    assert "of a lease of 30s" in only(doctor(shell, code=0), "workers", "warning")


def test_a_dead_worker_is_a_problem_where_nobody_gives_its_runs_back(shell: Shell) -> None:
    shell.register("dead", jobs=["fetch"])
    assert "worker start" in only(doctor(shell, code=0), "workers", "warning")
    shell.enqueue("fetch")
    shell.claim("fetch", worker="dead")
    found = only(doctor(shell, code=1), "workers", "problem")
    assert "1 run of it still counted as running" in found


def test_a_dead_worker_beside_a_live_one_is_left_to_it(shell: Shell, worker: None) -> None:
    shell.register("dead", jobs=["fetch"])
    shell.enqueue("fetch")
    shell.claim("fetch", worker="dead")
    assert "worker dead (host:4242) is dead" in only(doctor(shell, code=0), "workers", "warning")


def test_a_guard_without_its_worker_is_told(shell: Shell) -> None:
    shell.register("w1", jobs=["fetch", "heavy"], version=hueyctl.__version__)
    guard = hold(shell.place.guard_lock("w1"))
    assert guard is not None
    assert "its guard still ends what it ran" in only(doctor(shell, code=0), "workers", "warning")
    guard.release()


def test_queues_that_nobody_serves_are_a_problem(shell: Shell, worker: None) -> None:
    shell.register("w1", jobs=["fetch", "heavy"], queues=("default",), version=hueyctl.__version__)
    shell.enqueue("fetch")
    assert findings(doctor(shell, code=0)) == []
    shell.enqueue("heavy", "--delay", "1h")
    assert findings(doctor(shell, code=0)) == []
    shell.enqueue("heavy")
    shell.enqueue("heavy")
    found = only(doctor(shell, code=1), "queues", "problem")
    assert found.startswith('2 runs are due, and no live worker serves the queue "heavy" -> ')


def test_held_runs_are_told_by_job_and_reason_without_secrets(shell: Shell, worker: None) -> None:
    shell.enqueue("fetch", "token=hunter2")
    sql(shell, "UPDATE runs SET state = 'held', hold = 'misfit', reason = 'bad hunter2'", "DELETE FROM lines")
    found = only(doctor(shell, code=1), "held", "problem")
    assert found.startswith('1 run of "fetch" is held: bad ***')
    assert "hueyctl revoke --job fetch --state held" in found


def test_runs_that_jobs_toml_no_longer_fits_are_found_before_a_worker_holds_them(shell: Shell) -> None:
    shell.enqueue("fetch", "url=x", "--delay", "1h")
    shell.enqueue("heavy", "--delay", "1h")
    shell.write('[jobs.fetch]\ncommand = ["true"]\nparams = { url = 5 }\n')
    checks = doctor(shell, code=1)
    assert findings(checks) == [("jobs", "problem")] * 2
    said = [each["found"] for each in checks if each["name"] == "jobs"]
    assert '1 run of "heavy" waits' in said[0]
    assert "doesn't define" in said[0]
    assert 'parameter "url"' in said[1]


def test_workers_of_another_version_or_an_older_file_are_told(shell: Shell, worker: None) -> None:
    shell.register("w1", jobs=["fetch", "heavy"], version="0.0.1")
    assert "workers run 0.0.1" in only(doctor(shell, code=0), "versions", "warning")
    shell.register("w1", jobs=["fetch"], version=hueyctl.__version__)
    assert "hueyctl worker reload w1" in only(doctor(shell, code=0), "versions", "warning")


SCHEDULES = """
    [schedules.often]
    job = "fetch"
    every = "1m"

    [schedules.nightly]
    job = "fetch"
    cron = "30 2 29 2 *"  # never due while a test runs
    """


def read_by_a_worker(shell: Shell, text: str = JOBS + SCHEDULES, name: str = "jobs.toml", ago_s: float = 0) -> None:
    """Let a worker have read this file so many seconds ago."""
    at = datetime.now(UTC) - timedelta(seconds=ago_s)
    schedules = load(shell.write(text, name), environ={}).schedules.values()
    with shell.store() as store:
        definitions = {each.name: ScheduleDefinition(rule_hash(each), definition_hash(each)) for each in schedules}
        store.define_schedules(definitions, file=str(shell.dir / name), now=at)


def test_schedules_that_are_fired_as_the_file_has_them_are_well(shell: Shell, worker: None) -> None:
    read_by_a_worker(shell)
    assert findings(doctor(shell, code=0)) == []


def test_schedules_that_no_worker_has_read_yet_are_told(shell: Shell, worker: None) -> None:
    shell.write(JOBS + SCHEDULES)
    said = only(doctor(shell, code=0), "schedules", "warning")
    assert '"nightly", "often": no worker has read what jobs.toml says now' in said
    read_by_a_worker(shell)
    shell.write(JOBS + SCHEDULES.replace("30 2", "45 2"))
    assert '"nightly": no worker has read' in only(doctor(shell, code=0), "schedules", "warning")
    read_by_a_worker(shell, JOBS)
    shell.write(JOBS + SCHEDULES)
    assert '"nightly", "often": no worker has read' in only(doctor(shell, code=0), "schedules", "warning")


def test_a_schedule_that_another_file_defines_differently_is_a_problem(shell: Shell, worker: None) -> None:
    read_by_a_worker(shell)
    read_by_a_worker(shell, JOBS + SCHEDULES.replace("30 2", "45 2"), "other.toml")
    said = only(doctor(shell, code=1), "schedules", "problem")
    assert f'"nightly": fired as {shell.dir / "other.toml"} has it' in said
    assert "worker reload --all" in said


def test_a_slot_that_nobody_decides_is_a_problem_but_not_in_a_pause(shell: Shell, worker: None) -> None:
    read_by_a_worker(shell, ago_s=300)
    said = only(doctor(shell, code=1), "schedules", "problem")
    assert re.search(r'^"often" at \S+: due, and no worker has fired or missed it', said)
    with shell.store() as store:
        since = datetime.now(UTC) - timedelta(seconds=400)
        store.pause([Pause(kind="schedule", name="often", note=None, by="b", at=since)])
        assert findings(doctor(shell, code=0)) == [("paused", "warning")]
        store.resume("schedule", "often", by="b", now=datetime.now(UTC))
    assert findings(doctor(shell, code=0)) == [], "what came in a pause is missed by nobody"


def test_events_of_the_future_tell_of_a_wrong_clock(shell: Shell, worker: None) -> None:
    with shell.store() as store:
        late = datetime.now(UTC) + timedelta(hours=2)
        store.accept([NewRun(id=str(uuid.uuid4()), job="fetch", message=Message())], by="b", now=late)
    found = [each for each in doctor(shell, code=1) if each["name"] == "clock"]
    assert [each["state"] for each in found] == ["problem"]
    assert "in the future" in found[0]["found"]


def test_pauses_are_told(shell: Shell, worker: None) -> None:
    with shell.store() as store:
        store.pause([Pause(kind="job", name="fetch", note="moving", by="alice@host", at=datetime.now(UTC))])
    found = only(doctor(shell, code=0), "paused", "warning")
    assert 'job "fetch" since' in found
    assert found.endswith("by alice@host (moving) -> hueyctl resume --job fetch")


def test_a_locked_store_is_read_all_the_same(shell: Shell, worker: None) -> None:
    with closing(sqlite3.connect(shell.place.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert findings(doctor(shell, code=0)) == []


def test_a_store_that_one_may_not_write_is_a_problem_and_no_crash(shell: Shell) -> None:
    """Root, whom permissions don't bind, becomes nobody first."""
    shell.enqueue("fetch")
    shell.place.dir.chmod(0o500)
    for folder in (shell.dir, *shell.dir.parents):
        if os.geteuid() == 0 and folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o005)
    code = f"""
import os
from hueyctl.cli.main import run
words = ["--file", {str(shell.dir / "jobs.toml")!r}, "doctor"]
run(words)  # so that all is loaded that nobody may be unable to load
print("-- as nobody", flush=True)
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
raise SystemExit(run(words))
"""
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env=shell.env(), cwd="/", capture_output=True, text=True, check=False)
    shell.place.dir.chmod(0o700)
    assert done.returncode == 1, done
    assert "permissions  problem" in done.stdout.partition("-- as nobody")[2]
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


def test_a_store_is_opened_for_reading_alone(shell: Shell, worker: None) -> None:
    """What a process that died left in the log stays there: nothing is moved into the file when the doctor leaves."""
    code = """
import os
from pathlib import Path
from hueyctl.cli.main import run
from hueyctl.storage.sqlite import open_store
store = open_store(Path(".hueyctl/queue.db"))  # or the command, as the last to leave, would empty the log
run(["enqueue", "fetch"])
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], cwd=shell.dir, env=shell.env(), check=True, stdout=subprocess.DEVNULL)
    log = Path(f"{shell.place.path}-wal")
    before = (shell.place.path.read_bytes(), log.read_bytes())
    assert before[1]
    assert findings(doctor(shell, "--full", code=0)) == []
    assert (shell.place.path.read_bytes(), log.read_bytes()) == before
