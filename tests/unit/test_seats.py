"""Where a worker's threads wait: who takes what was given, and who is woken for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from hueyctl.engine.attempt import Attempt
from hueyctl.engine.seats import Seats

WAIT_S = 10.0


class Room:
    """Seats, and threads that take what is given and note who did; an event holds up the end of an attempt."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seats = Seats(self.lock)
        self.threads: list[threading.Thread] = []
        self.taken: list[tuple[str, object]] = []
        self.waits = 0
        self.left: list[str] = []

    def sit(self, *names: str) -> None:
        before = self.seats.free
        for name in names:
            self.threads.append(threading.Thread(target=self._work, name=name, daemon=True))
            self.threads[-1].start()
        self.until(lambda: self.seats.free == before + len(names) and self.seats._asleep == self.seats.free)

    def _work(self) -> None:
        while (attempt := self.seats.take(self._before)) is not None:
            given = cast(Any, attempt)
            self.taken.append((threading.current_thread().name, given.number))
            assert given.thread is threading.current_thread()
            assert given.end.wait(WAIT_S)
        self.left.append(threading.current_thread().name)

    def _before(self) -> None:
        assert not self.lock.locked()
        self.waits += 1

    def give(self, *attempts: Attempt, one: bool = False) -> None:
        with self.lock:
            self.seats.give(attempts, one=one, here=False)

    def until(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not what():
            assert time.monotonic() < deadline
            time.sleep(0.001)


class Given:
    """As much of an attempt as seats know of."""

    def __init__(self, number: int, *, ends: bool = True) -> None:
        self.number = number
        self.thread: threading.Thread | None = None
        self.end = threading.Event()
        if ends:
            self.end.set()


def given(*numbers: int, ends: bool = True) -> list[Any]:
    return [Given(number, ends=ends) for number in numbers]


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    with room.lock:
        room.seats.close()
    for thread in room.threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_each_of_several_is_taken_at_once_by_a_thread_of_its_own(room: Room) -> None:
    room.sit("a", "b", "c")
    attempts = given(1, 2, 3, ends=False)
    room.give(*attempts)
    room.until(lambda: len(room.taken) == 3)
    assert {name for name, _ in room.taken} == {"a", "b", "c"}
    assert sorted(number for _, number in room.taken) == [1, 2, 3]
    assert room.seats.free == 0
    for attempt in attempts:
        attempt.end.set()


def test_what_is_given_for_one_is_performed_by_one_in_its_order(room: Room) -> None:
    room.sit("a", "b", "c")
    room.give(*given(1, 2, 3), one=True)
    room.until(lambda: len(room.taken) == 3)
    assert [number for _, number in room.taken] == [1, 2, 3]
    assert len({name for name, _ in room.taken}) == 1


def test_what_turns_out_to_take_its_time_is_taken_by_others_when_somebody_says_so(room: Room) -> None:
    room.sit("a", "b", "c")
    attempts = given(1, 2, 3, ends=False)
    room.give(*attempts, one=True)
    room.until(lambda: room.taken)
    with room.lock:
        room.seats.hurry()
    room.until(lambda: len(room.taken) == 3)
    assert {name for name, _ in room.taken} == {"a", "b", "c"}
    for attempt in attempts:
        attempt.end.set()


def test_who_gives_what_it_takes_itself_wakes_nobody_for_it(room: Room) -> None:
    room.sit("a")
    with room.lock:
        room.seats.free += 1  # this thread
        room.seats.give(given(1), one=False, here=True)
        assert not room.seats._called
        assert room.seats.take_back()
        room.seats.free -= 1
    assert room.taken == []


def test_what_nobody_has_taken_can_be_taken_back(room: Room) -> None:
    room.sit("a")
    held = given(1, 2, 3, ends=False)
    with room.lock:
        room.seats.give(held, one=True, here=False)
        assert room.seats.free == -2  # more than sat there: nobody may do that, but it is counted right
        back = room.seats.take_back()
        assert [each.number for each in cast(list[Any], back)] == [1, 2, 3]
        assert room.seats.free == 1
    assert room.taken == []


def test_those_who_wait_go_when_nothing_more_will_come_and_what_was_given_is_taken_first(room: Room) -> None:
    room.sit("a", "b", "c")
    with room.lock:
        room.seats.give(given(1, 2), one=True, here=False)
        room.seats.close()
    room.until(lambda: len(room.left) == 3)
    assert sorted(number for _, number in room.taken) == [1, 2]
    assert room.seats.free == 0


def test_before_each_wait_and_only_then_there_is_a_chance_to_do_something(room: Room) -> None:
    room.sit("a")
    assert room.waits == 1
    room.give(*given(1), one=True)
    room.until(lambda: room.waits == 2)
    assert len(room.taken) == 1


def test_nobody_sleeps_on_where_it_was_closed_while_one_was_on_its_way(room: Room) -> None:
    """The one that was called takes what there is, and has to send the others home before."""
    room.sit("a", "b", "c")
    (attempt,) = given(1, ends=False)
    with room.lock:
        room.seats.give([attempt], one=False, here=False)
        room.seats.close()
    room.until(lambda: len(room.left) == 2)
    assert not attempt.end.is_set()
    attempt.end.set()
