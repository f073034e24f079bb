"""What a store remembers between two exchanges is never what somebody has changed meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pytest
from scene import Scene

from hueyctl.model.run import RunState
from hueyctl.storage.store import Pause


@pytest.fixture
def busy(scene: Scene) -> Scene:
    """A worker that has exchanged before: it knows of no switch, no due run, and that it is registered."""
    scene.register()
    scene.accept()
    scene.succeed(scene.claim_one())
    assert scene.claim() == []
    return scene


def pause(scene: Scene) -> Pause:
    return Pause(kind="job", name="a", note=None, by="b", at=scene.now)


@pytest.mark.parametrize("who", ["another", "itself"])
def test_a_switch_that_was_set_or_unset_in_between_counts_at_once(busy: Scene, who: str) -> None:
    store = busy.another() if who == "another" else busy.store
    run = busy.accept()
    store.pause([pause(busy)])
    assert busy.claim() == []
    store.resume("job", "a", by="b", now=busy.now)
    assert busy.claim_one().run.id == run.id


@pytest.mark.parametrize("who", ["another", "itself"])
def test_a_run_that_was_scheduled_in_between_becomes_due(busy: Scene, who: str) -> None:
    store = busy.another() if who == "another" else busy.store
    new = busy.new(due_at=busy.now + timedelta(seconds=5))
    store.accept([new], by="b", now=busy.now)
    exchange = busy.store.exchange([], busy.want(), now=busy.now)
    assert (exchange.claims, exchange.next_due) == ((), new.due_at)
    busy.pass_time(seconds=5)
    assert busy.claim_one().run.id == new.id


def test_what_its_own_settlement_schedules_becomes_due(busy: Scene) -> None:
    run = busy.accept(retries=3)
    exchange = busy.fail_for_now(busy.claim_one(), timedelta(seconds=5), 2)
    assert exchange.next_due == busy.now + timedelta(seconds=5)
    busy.pass_time(seconds=5)
    assert busy.claim_one().run.id == run.id


def test_a_run_that_expires_is_expired_though_nobody_has_written_since(busy: Scene) -> None:
    run = busy.accept("b", expires_s=5.0)
    assert busy.claim(jobs=("a",)) == []
    assert busy.claim(jobs=("a",)) == []
    busy.pass_time(seconds=6)
    assert busy.claim(jobs=("a",)) == []
    assert busy.get(run).state is RunState.EXPIRED


def test_a_worker_that_was_taken_out_in_between_gets_nothing(busy: Scene) -> None:
    busy.another().rescue("w1", cause="it died", now=busy.now)
    busy.accept()
    assert busy.claim() == []
