"""The way between a worker's threads and its guard: each has a channel of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType

import pytest
from guarded import Guarded, eventually, lives, out, pid_in

from hueyctl.model.outcome import Exited, Lost, Returned, Stopped
from hueyctl.process.client import SAY_TIMEOUT_S, Guard, kill_what_outlived


def descriptors(pid: int | str) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_stop_that_follows_its_start_at_once_is_heard_on_every_channel(guarded: Guarded) -> None:
    for _ in range(5):
        under = [guarded.begin(guarded.command("sleep", "300")) for _ in range(6)]
        for each in under:
            eventually(lambda each=each: guarded.guard.stop(each.spec.token, "revoked"))
        assert [each.end().outcome for each in under] == [Stopped("revoked")] * 6


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
    guarded = Guarded(tmp_path)
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
    assert [each.end().outcome for each in (under_way, begun, unheard)] == [Stopped("interrupted")] * 3
