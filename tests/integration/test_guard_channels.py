"""The way between a worker's threads and its guard: each has a channel of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import FrameType

import pytest
from guarded import Guarded, eventually, lives, out, pid_in

from hueyctl.model.outcome import Exited, Lost, NotStarted, Returned, Stopped
from hueyctl.process.client import SAY_TIMEOUT_S, Guard, kill_what_outlived


def descriptors(pid: int | str) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_stop_never_overtakes_its_start(guarded: Guarded) -> None:
    guarded.module("import time\ndef wait(text): time.sleep(300)")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # the other thread comes by while this one puts its large start into words
    try:
        for _ in range(15):
            under = guarded.begin(guarded.job("wait", {"text": "x" * 1_000_000}))
            while not guarded.guard.stop(under.spec.token, "revoked"):
                pass
            assert under.end().outcome == Stopped("revoked")
    finally:
        sys.setswitchinterval(before)


def test_each_attempt_has_its_own_environment_and_nothing_of_the_one_before(guarded: Guarded) -> None:
    """An environment that is the same as before isn't sent again: no attempt may get another's."""
    base = {"PATH": os.environ["PATH"]}
    wanted: list[dict[str, str]] = [
        {"A": "1"},
        {"A": "1"},
        {"B": "2"},
        {},
        {"A": "\ud800"},
        {"A": "\ud800"},
        {"A": "1"},
    ]
    found = []
    for given in wanted:
        spec = guarded.script('echo "$A$B"', env=base | given, run_env={"C": "3"})
        found.append((guarded.run(spec).outcome, out(spec)))
    texts = b"1\n", b"1\n", b"2\n", b"\n", b"", b"", b"1\n"
    assert [text for _, text in found] == [*texts]
    assert [isinstance(outcome, NotStarted) for outcome, _ in found] == [False] * 4 + [True] * 2 + [False]
    shadowed = guarded.command("env", env=base | {"A": "1"}, run_env={"A": "2"})
    guarded.run(shadowed)
    assert [line for line in out(shadowed).splitlines() if line.startswith(b"A=")] == [b"A=2"]


def test_a_guards_successor_is_told_the_environment_again(tmp_path: Path) -> None:
    first, second = Guarded(tmp_path / "first"), Guarded(tmp_path / "second")
    first.guard.on_death = lambda: second.guard
    env = {"PATH": os.environ["PATH"], "A": "1"}
    specs = [first.script('echo "$A"', env=env) for _ in range(3)]
    assert first.run(specs[0]).outcome == Exited(0)
    os.kill(first.guard.pid, signal.SIGKILL)
    eventually(lambda: not first.guard.alive)
    assert [first.run(spec).outcome for spec in specs[1:]] == [Exited(0)] * 2
    assert [out(spec) for spec in specs] == [b"1\n"] * 3
    first.guard.close(10)
    second.guard.close(10)


def test_large_messages_go_both_ways_side_by_side(guarded: Guarded) -> None:
    guarded.module("def echo(text): return text")
    texts = [letter * 700_000 for letter in "abc"]
    under = [guarded.begin(guarded.job("echo", {"text": text}, output_max=10)) for text in texts]
    assert [each.end().outcome for each in under] == [Returned(f'"{text}"') for text in texts]


def test_a_thread_that_has_ended_leaves_no_descriptor_behind(guarded: Guarded) -> None:
    guarded.run(guarded.command("true"))
    here, there = descriptors("self"), descriptors(guarded.guard.pid)
    for _ in range(10):
        assert guarded.begin(guarded.command("true")).end().outcome == Exited(0)
    eventually(lambda: (descriptors("self"), descriptors(guarded.guard.pid)) == (here, there))


class BrokenOff(Exception):
    pass


def test_a_thread_that_dies_takes_its_attempt_along(guarded: Guarded) -> None:
    """Its run is lost then, and soon started again: nothing of it may be left when the exception gets out."""

    def break_off(number: int, frame: FrameType | None) -> None:
        raise BrokenOff

    text = "trap '' TERM; setsid sleep 300 & echo $! > away; echo $$ > leader; while :; do sleep 0.05; done"
    files = guarded.dir / "away", guarded.dir / "leader"
    main = threading.get_ident()
    other = guarded.begin(guarded.script("echo up; while [ ! -e end ]; do sleep 0.01; done"))
    killer = threading.Thread(target=lambda: [*map(pid_in, files), signal.pthread_kill(main, signal.SIGUSR1)])
    before = signal.signal(signal.SIGUSR1, break_off)
    try:
        killer.start()
        with pytest.raises(BrokenOff):
            guarded.run(guarded.script(text, kill_after=300.0))
        assert not any(lives(pid_in(path)) for path in files)
    finally:
        signal.signal(signal.SIGUSR1, before)
        killer.join()
    assert guarded.run(guarded.command("true")).outcome == Exited(0)
    assert lives(guarded.guard.pid)
    (guarded.dir / "end").touch()
    assert other.end().outcome == Exited(0)
    assert out(other.spec) == b"up\n"


def test_the_death_of_a_guard_is_told_to_every_thread_after_it_was_cleared_up(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    deaths: list[list[bool]] = []
    guarded.run(guarded.command("true"))  # this thread has a channel too, and nothing under way
    under = [guarded.begin(guarded.script("echo up; sleep 300")) for _ in range(8)]

    def clear_up() -> None:
        assert kill_what_outlived(guarded.lock)
        deaths.append([each.over for each in under])

    guarded.guard.on_death = clear_up
    eventually(lambda: all(each.printed() for each in under))
    os.kill(guarded.guard.pid, signal.SIGKILL)
    assert [each.end().outcome for each in under] == [Lost("the guard died")] * 8
    assert deaths == [[False] * 8]
    assert guarded.run(guarded.command("true")).outcome == Lost("the guard died")
    guarded.guard.close(1)


def is_refused_late(guard: Guard, token: str) -> bool:
    """Does a stop give up, after it has waited?"""
    began = time.monotonic()
    assert not guard.stop(token, "revoked")
    return time.monotonic() - began > SAY_TIMEOUT_S / 2


def test_a_guard_that_stands_still_holds_up_neither_a_stop_nor_a_close(tmp_path: Path) -> None:
    # Such a close kills everything below its process, which below this one is other tests' too.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(close_one_that_stands_still, tmp_path).result() == [Stopped("interrupted")] * 3


def close_one_that_stands_still(dir: Path) -> list[object]:
    guarded = Guarded(dir)
    under_way = guarded.begin(guarded.script("echo up; sleep 300"))
    eventually(under_way.printed)
    os.kill(guarded.guard.pid, signal.SIGSTOP)
    # More than its socket takes: the thread can't even say what it wants.
    begun = guarded.begin(guarded.script("true", run_env={"A": "x" * 10_000_000}))
    eventually(lambda: is_refused_late(guarded.guard, begun.spec.token))
    guarded.guard.stop(under_way.spec.token, "revoked")
    for _ in range(1000):
        guarded.guard.tick()
    unheard = guarded.begin(guarded.command("true"))
    guarded.guard.close(0.1)
    assert kill_what_outlived(guarded.lock)
    return [each.end().outcome for each in (under_way, begun, unheard)]
