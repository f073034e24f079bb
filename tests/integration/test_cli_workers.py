"""`hueyctl worker`: who is alive is told by locks; stop and reload reach those that are meant."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator

import pytest
from shell import Shell, eventually

from hueyctl.storage.bell import Bell
from hueyctl.storage.locks import HeldLock, hold

JOBS = """
    [jobs.fetch]
    command = ["true"]

    [jobs.slow]
    command = ["sleep", "60"]
    queue = "heavy"

    [jobs.say]
    script = "echo out; echo err >&2; exit $PARAM_CODE"
    params = { code = 0 }
    """


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write(JOBS)


@contextlib.contextmanager
def alive(shell: Shell, *ids: str) -> Iterator[list[HeldLock]]:
    """Workers that are registered, hold their locks, and do nothing."""
    with shell.store():
        pass
    locks = [lock for id in ids if (lock := hold(shell.place.worker_lock(id)))]
    for id in ids:
        shell.register(id, jobs=["fetch", "slow"])
    try:
        yield locks
    finally:
        for lock in locks:
            lock.release()


def test_status_is_0_only_while_a_worker_is_alive_and_fresh(shell: Shell) -> None:
    nobody = shell.type("worker", "status", code=1)
    assert (nobody.out, nobody.err) == ("", "hueyctl: no worker is running\n")
    assert shell.type("worker", "status", "--json", code=1).json == {"schema": 1, "workers": []}
    with alive(shell, "w1"):
        found = shell.type("worker", "status", "--json").json["workers"]
        assert [(each["id"], each["alive"], each["fresh"], each["running"]) for each in found] == [
            ("w1", True, True, 0)
        ]
        assert found[0]["lease"] == 30
        assert "alive" in shell.type("worker", "status").out
    dead = shell.type("worker", "status", "--json", code=1).json["workers"]
    assert [(each["id"], each["alive"]) for each in dead] == [("w1", False)]
    assert "dead" in shell.type("worker", "status", code=1).out


def test_a_worker_that_was_silent_for_longer_than_its_lease_is_not_fresh(shell: Shell) -> None:
    with alive(shell, "w1"):
        shell.beat("w1", ago_s=31)
        found = shell.type("worker", "status", "--json", code=1).json["workers"]
        assert [(each["alive"], each["fresh"]) for each in found] == [(True, False)]
        assert "silent" in shell.type("worker", "status", code=1).out


def test_enqueue_is_quiet_where_a_live_worker_serves_the_job(shell: Shell) -> None:
    with alive(shell, "w1"):
        assert shell.type("enqueue", "fetch").err == ""
        assert 'defines the job "say"' in shell.type("enqueue", "say").err
        shell.register("w1", jobs=["fetch"], queues=("heavy",))
        assert 'no live worker serves the queue "default"' in shell.type("enqueue", "fetch").err


def test_stop_without_a_name_is_for_the_only_worker(shell: Shell) -> None:
    assert "no worker is running" in shell.type("worker", "stop", code=1).err
    assert "no worker is running" in shell.type("worker", "reload", code=1).err
    assert shell.type("worker", "stop", "--all").err == "hueyctl: no worker is running\n"
    with alive(shell, "w1", "w2"):
        error = shell.type("worker", "stop", "--json", code=2).error
        assert "w1, w2" in error["message"]
        assert "--all" in error["hint"]
        assert shell.type("worker", "reload", code=2).code == 2
        with shell.store() as store:
            assert [worker.request for worker in store.workers()] == [None, None]


def test_a_worker_there_isn_t_can_t_be_stopped(shell: Shell) -> None:
    with alive(shell, "w1", "w2"):
        assert 'there is no live worker "x1"' in shell.type("worker", "stop", "x1", code=3).err
        assert "ambiguous" in shell.type("worker", "stop", "w", code=2).err


def test_stop_returns_when_the_worker_has_gone(shell: Shell) -> None:
    with alive(shell, "w1", "w2") as locks:
        stopping = shell.spawn("worker", "stop", "w1")
        with shell.store() as store:
            eventually(lambda: store.asked("w1")[0] == "stop")
        assert stopping.poll() is None
        locks[0].release()
        out, _ = stopping.communicate(timeout=20)
        assert (stopping.returncode, out) == (0, b"stopped worker w1\n")
        with shell.store() as store:
            assert store.asked("w2")[0] is None


def test_stop_waits_no_longer_than_asked(shell: Shell) -> None:
    with alive(shell, "w1"):
        assert "still running" in shell.type("worker", "stop", "--timeout", "100ms", code=124).err


def test_reload_asks_and_a_wrong_file_is_refused_before(shell: Shell) -> None:
    with alive(shell, "w1", "w2"):
        assert shell.type("worker", "reload", "--all").out.splitlines() == [
            "asked worker w1 to reload",
            "asked worker w2 to reload",
        ]
        with shell.store() as store:
            assert [store.asked(id)[0] for id in ("w1", "w2")] == ["reload", "reload"]
            shell.write("[jobs.fetch]\n")
            shell.type("worker", "reload", "--all", code=2)
            assert [store.asked(id)[0] for id in ("w1", "w2")] == [None, None]


def test_a_reload_rings_for_what_it_lets_out(shell: Shell) -> None:
    """A run that was held, as its parameters didn't fit, waited for the backstop otherwise."""
    starting = shell.spawn("worker", "start", "--detach")
    _, err = starting.communicate(timeout=60)
    assert starting.returncode == 0, err
    bell = Bell(shell.place.bell)
    try:
        heard_at = time.monotonic()

        def quiet() -> bool:  # its first look at others is over, after which it rings, too
            nonlocal heard_at
            heard_at = time.monotonic() if bell.drain() else heard_at
            return time.monotonic() > heard_at + 1

        eventually(quiet)
        (worker,) = shell.type("worker", "status", "--json").json["workers"]
        os.kill(worker["pid"], signal.SIGHUP)  # the command rings, too
        eventually(lambda: b"work" in bell.drain())
    finally:
        bell.close()
        shell.type("worker", "stop")


def test_a_detached_worker_is_online_when_start_returns_and_gone_when_stop_does(shell: Shell) -> None:
    said = shell.spawn("worker", "start", "--detach", "-c", "2", "--queue", "default,heavy")
    out, err = said.communicate(timeout=60)
    assert said.returncode == 0, err
    assert str(shell.place.log) in out.decode()
    (worker,) = shell.type("worker", "status", "--json").json["workers"]
    try:
        assert (worker["concurrency"], worker["queues"]) == (2, ["default", "heavy"])
        waited = shell.spawn("enqueue", "say", "--wait")
        out, err = waited.communicate(timeout=30)
        assert (waited.returncode, err) == (0, b"")
        run = out.decode().strip()
        assert shell.type("logs", run).out == "out\nerr\n"
        assert shell.type("result", run).out == "out\n"
        failed = shell.spawn("enqueue", "say", "code=3", "--wait")
        _, err = failed.communicate(timeout=30)
        assert failed.returncode == 1
        assert b"failed: exited with 3; hueyctl logs " in err
        slow = shell.enqueue("slow")
        eventually(lambda: shell.run(slow)["state"] == "running")
        assert "is running" in shell.type("revoke", slow, code=1).err
        shell.type("revoke", "--kill", slow)
        assert shell.run(slow)["state"] == "revoked"
    finally:
        stopping = shell.spawn("worker", "stop")
        stopping.communicate(timeout=60)
        with contextlib.suppress(ProcessLookupError):
            if stopping.returncode:
                os.kill(worker["pid"], signal.SIGKILL)
    assert stopping.returncode == 0
    assert shell.type("worker", "status", code=1).err == "hueyctl: no worker is running\n"


def test_a_detached_worker_that_can_t_start_says_why(shell: Shell) -> None:
    shell.place.dir.mkdir()
    shell.place.path.write_text("not a database at all")
    said = shell.spawn("worker", "start", "--detach")
    _, err = said.communicate(timeout=60)
    assert said.returncode == 4
    assert "is damaged" in err.decode()
    shell.place.path.unlink()
    shell.place.log.unlink()
    shell.place.log.mkdir()
    assert "worker.log: Is a directory" in shell.type("worker", "start", "--detach", code=4).err


def test_a_burst_worker_ends_by_itself_and_logs_as_asked(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    worker = shell.spawn("worker", "start", "--burst", "--log-format", "json")
    out, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, err
    assert shell.run(run)["state"] == "succeeded"
    logged = (out + err).decode().splitlines()
    assert logged
    assert all(isinstance(json.loads(line), dict) for line in logged)
    assert "--log-format" in shell.type("worker", "start", "--log-format", "xml", code=2).err


def test_a_worker_for_a_queue_that_nothing_uses_says_so(shell: Shell) -> None:
    shell.enqueue("fetch", "--queue", "special")
    shell.write(
        "[queues.rare]\n[schedules.say]\nevery = '1h'\nqueue = 'hourly'\n" + (shell.dir / "jobs.toml").read_text()
    )
    for queues, said in (
        ("default,heavy,special,rare,hourly", ""),
        ("default,haevy", '"haevy"; did you mean "heavy"?'),
    ):
        worker = shell.spawn("worker", "start", "--burst", "--queue", queues)
        first = worker.communicate(timeout=60)[1].decode().splitlines()[0]
        assert ("no job, schedule or waiting run uses the queue" in first) == bool(said)
        assert said in first
    shell.place.path.unlink()
    shell.place.path.write_text("not a database at all")
    said = shell.spawn("worker", "start", "--detach", "--queue", "haevy").communicate(timeout=60)[1].decode()
    assert 'the queue "haevy"' in said
    assert "is damaged" in said


def test_run_needs_no_store_and_exits_with_the_commands_own_code(shell: Shell) -> None:
    said = shell.spawn("run", "say", "code=7")
    out, err = said.communicate(timeout=30)
    assert (said.returncode, out) == (7, b"out\n")
    assert err.decode().splitlines() == ["hueyctl: say runs here and now; nothing is recorded", "err"]
    assert not shell.place.dir.exists()


@pytest.mark.parametrize("words", [["nosuch"], ["say", "code=x"], ["say", "nosuch=1"], [], ["say", "--nosuch"]])
def test_what_run_itself_can_t_do_is_125(shell: Shell, words: list[str]) -> None:
    """Every other code may be the command's own."""
    assert shell.type("run", *words, code=125).out == ""
