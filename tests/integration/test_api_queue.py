"""The Python API: what an application can rely on, from its threads and its forks."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest
from shell import ROOT, Shell, eventually

import hueyctl
from hueyctl.errors import ConfigError, NotFound, Refused, RunFailed, StoreMissing, UsageError, WaitTimeout
from hueyctl.storage.locks import hold

JOBS = """
    [jobs.fetch]
    command = ["true"]
    params = { url = "x", depth = 1 }
    priority = 2

    [jobs.tricky]
    command = ["true"]
    params = { priority = 0, id = "" }

    [jobs.login]
    command = ["true"]
    params = { token = { type = "string", secret = true, required = true } }

    [jobs.report]
    python = "acme:report"
    """


@pytest.fixture
def queue(shell: Shell) -> Iterator[hueyctl.Queue]:
    shell.write(JOBS)
    with hueyctl.open_queue(shell.dir / "jobs.toml") as queue:
        yield queue


def test_enqueue_returns_the_run_durably(shell: Shell, queue: hueyctl.Queue) -> None:
    run = queue.enqueue("fetch", url="y", priority=10, delay="1h", retries=3, queue="q")
    assert (run.state, run.params, run.priority, run.queue) == ("scheduled", {"url": "y", "depth": 1}, 10, "q")
    assert (run.due_at - run.enqueued_at, run.retries_left) == (timedelta(hours=1), 3)
    assert shell.run(run.id)["state"] == "scheduled"
    assert queue.get(run) == queue.get(run.id[:8]) == queue.get("fetch") == run
    assert queue.get("report") is None
    assert queue.jobs == ("fetch", "tricky", "login", "report")


def test_parameters_are_a_mapping_or_keywords_or_both(queue: hueyctl.Queue) -> None:
    assert queue.enqueue("fetch", {"url": "a"}, depth=2).params == {"url": "a", "depth": 2}
    with pytest.raises(UsageError, match="given twice"):
        queue.enqueue("fetch", {"url": "a"}, url="b")


def test_a_parameter_is_never_taken_for_an_option_in_silence(queue: hueyctl.Queue) -> None:
    """Huey's own `s(**kwargs)` swallows parameters called id, delay, priority and others."""
    with pytest.raises(UsageError, match="an option of enqueue and a parameter"):
        queue.enqueue("tricky", priority=7)
    run = queue.enqueue("tricky", {"priority": 7, "id": "x"}, priority=9)
    assert (run.params, run.priority) == ({"priority": 7, "id": "x"}, 9)


def test_errors_are_typed_and_say_what_the_command_line_says(queue: hueyctl.Queue) -> None:
    with pytest.raises(NotFound, match='did you mean "fetch"'):
        queue.enqueue("fetsh")
    with pytest.raises(UsageError, match='there is no parameter "dept"'):
        queue.enqueue("fetch", dept=1)
    with pytest.raises(UsageError, match="expected an integer"):
        queue.enqueue("fetch", depth="1")
    with pytest.raises(UsageError, match="time zone"):
        queue.enqueue("fetch", at=datetime(2126, 1, 1))
    with pytest.raises(UsageError, match="only one"):
        queue.enqueue("fetch", at=datetime.now(UTC), delay=1)
    with pytest.raises(StoreMissing):
        queue.get("last")
    assert issubclass(NotFound, hueyctl.HueyctlError)


def test_a_wrong_or_missing_file_is_an_error_when_it_is_opened(shell: Shell) -> None:
    with pytest.raises(ConfigError, match=r"jobs\.toml"):
        hueyctl.open_queue(shell.dir / "jobs.toml")
    shell.write("[jobs.a]\n[jobs.b]\n")
    with pytest.raises(ConfigError) as caught:
        hueyctl.open_queue(shell.dir / "jobs.toml")
    assert len(caught.value.problems) == 2


def test_the_same_id_means_the_same_run(queue: hueyctl.Queue) -> None:
    id = "7c1e2f6a-90d4-4c5b-8f3e-2a1b0c9d8e7f"
    assert queue.enqueue("fetch", id=id) == queue.enqueue("fetch", id=id)
    with pytest.raises(Refused):
        queue.enqueue("fetch", url="other", id=id)


def test_wait_returns_the_run_as_it_ended(shell: Shell, queue: hueyctl.Queue) -> None:
    good, bad = queue.enqueue("report"), queue.enqueue("fetch")
    with pytest.raises(WaitTimeout):
        queue.wait(good, timeout=0.05)
    ended: list[hueyctl.Run] = []
    waiter = threading.Thread(target=lambda: ended.append(queue.wait(good.id, timeout=20)))
    waiter.start()
    shell.finish("report", result=b'{"rows": [1, 2]}')
    waiter.join()
    assert (ended[0].state, ended[0].result, ended[0].ended, ended[0].succeeded) == (
        "succeeded",
        {"rows": [1, 2]},
        True,
        True,
    )
    shell.finish("fetch", code=3)
    failed = queue.wait(bad)
    assert (failed.succeeded, failed.exit_code, failed.reason) == (False, 3, "exited with 3")


def test_run_is_enqueue_and_wait_and_raises_where_it_did_not_succeed(shell: Shell, queue: hueyctl.Queue) -> None:
    outcome: list[object] = []

    def call() -> None:
        try:
            outcome.append(queue.run("fetch", url="y", wait_timeout=20))
        except hueyctl.HueyctlError as error:
            outcome.append(error)

    for code in (0, 1):
        caller = threading.Thread(target=call)
        caller.start()
        eventually(lambda: shell.place.path.exists() and shell.type("runs", "--state", "queued", "--json").json["runs"])
        shell.finish("fetch", code=code)
        caller.join()
    assert isinstance(outcome[0], hueyctl.Run)
    assert outcome[0].params["url"] == "y"
    assert isinstance(outcome[1], RunFailed)


def test_revoke_refuses_what_runs_unless_it_may_kill(shell: Shell, queue: hueyctl.Queue) -> None:
    run = queue.enqueue("fetch")
    assert queue.revoke(run).state == "revoked"
    running = queue.enqueue("fetch")
    shell.claim("fetch")
    lock = hold(shell.place.worker_lock("w1"))
    assert lock
    try:
        with pytest.raises(Refused, match="is running"):
            queue.revoke(running)
        with pytest.raises(WaitTimeout):
            queue.revoke(running, kill=True, timeout=0.05)
    finally:
        lock.release()
    assert queue.revoke(running, kill=True).state == "revoked", "its worker is dead, which is found out"


def test_events_are_read_and_followed(queue: hueyctl.Queue) -> None:
    run = queue.enqueue("fetch")
    (event,) = queue.events()
    assert (event.type, event.run, event.job) == ("enqueued", run.id, "fetch")
    other = queue.enqueue("login", token="hunter2")
    assert [each.run for each in queue.events(after=event.seq)] == [other.id]
    assert [each.run for each in queue.events(run=run)] == [run.id]
    assert list(queue.events(types=["complete"])) == []
    with pytest.raises(UsageError, match='did you mean "complete"'):
        list(queue.events(types=["complet"]))
    followed = islice(queue.events(after=event.seq, follow=True), 2)
    assert next(followed).run == other.id
    third = queue.enqueue("fetch")
    assert next(followed).run == third.id


def test_secrets_are_masked_here_too(queue: hueyctl.Queue) -> None:
    run = queue.enqueue("login", token="hunter2")
    assert run.params == {"token": "***"}
    assert "hunter2" not in repr(queue.get(run))


def test_a_queue_is_shared_by_threads(queue: hueyctl.Queue) -> None:
    errors: list[BaseException] = []

    def many() -> None:
        try:
            for number in range(25):
                queue.enqueue("fetch", depth=number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(list(queue.events(types=["enqueued"]))) == 100


def test_connections_of_threads_that_ended_are_closed(queue: hueyctl.Queue, shell: Shell) -> None:
    queue.enqueue("fetch")

    def opened() -> int:
        return sum(os.readlink(f"/proc/self/fd/{fd}") == str(shell.place.path) for fd in _fds())

    before = opened()
    for _ in range(5):
        thread = threading.Thread(target=lambda: queue.enqueue("fetch"))
        thread.start()
        thread.join()
    assert opened() <= before + 1


def test_a_queue_is_used_on_after_a_fork(shell: Shell, queue: hueyctl.Queue) -> None:
    queue.enqueue("fetch")
    for round in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                queue.enqueue("fetch", url=f"child {round}")
                os._exit(0)
            finally:
                os._exit(1)
        queue.enqueue("fetch", url=f"parent {round}")
        assert os.waitpid(pid, 0)[1] == 0
    assert len(list(queue.events(types=["enqueued"]))) == 7
    with shell.store() as store:
        assert store.database.all("PRAGMA integrity_check") == [("ok",)]


def test_a_run_can_be_kept(queue: hueyctl.Queue) -> None:
    run = queue.enqueue("fetch")
    assert pickle.loads(pickle.dumps(run)) == run


def test_importing_the_package_loads_next_to_nothing(tmp_path: Path) -> None:
    code = "import sys; before = set(sys.modules); import hueyctl; print(*sorted(set(sys.modules) - before))"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    ).stdout
    assert shown.split() == [b"__future__", b"hueyctl"]


def test_a_store_that_is_replaced_ends_a_follower(shell: Shell, queue: hueyctl.Queue) -> None:
    queue.enqueue("fetch")
    following = shell.spawn("events", "-f")
    waiting = shell.spawn("wait", "last")
    eventually(lambda: len(list(shell.place.bell.iterdir())) == 2)
    shell.place.path.rename(shell.dir / "moved.db")
    for process in (following, waiting):
        _, err = process.communicate(timeout=20)
        assert process.returncode == 4
        assert b"was deleted or moved while in use" in err


def test_the_package_has_what_it_names_and_nothing_else() -> None:
    for name in hueyctl.__all__:
        assert getattr(hueyctl, name) is not None
    with pytest.raises(AttributeError, match="nosuch"):
        hueyctl.nosuch  # noqa: B018 (asking is the test)


def _fds() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")]
