"""Hooks, over every store: what follows an end is written with it, once, and can't be in its way."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from scene import Scene

from hueyctl.model.definition import Retention
from hueyctl.model.event import Event
from hueyctl.model.hook import ANY_JOB, Occasion
from hueyctl.model.outcome import Exited, Stopped
from hueyctl.model.run import Message, NewRun, NewStep, Run, RunState
from hueyctl.model.transition import Done, Final, Release, Retry, Settlement
from hueyctl.storage.store import Claim, Exchange, Firing, RunFilter, ScheduleDefinition, Want

ALL = Retention(succeeded=timedelta(0), failed=timedelta(0), events=timedelta(days=1))


class Alerts:
    """The hook of a job: each occasion that it was called for, and for each a run of the job `alert`."""

    def __init__(self, **more: Any) -> None:
        self.occasions: list[Occasion] = []
        self._more = more

    def __call__(self, occasion: Occasion) -> NewRun | None:
        self.occasions.append(occasion)
        message = Message(params={"state": occasion.state})
        return NewRun(id=str(uuid.uuid4()), job="alert", message=message, trigger="hook", **self._more)

    @property
    def states(self) -> list[str]:
        return [occasion.state for occasion in self.occasions]


@pytest.fixture
def alerts() -> Alerts:
    return Alerts()


def following(scene: Scene) -> list[Run]:
    """The runs that hooks made, the oldest first."""
    return scene.store.runs(RunFilter(job="alert"), limit=None)[::-1]


def told(scene: Scene) -> list[Event]:
    return [event for event in scene.events() if event.type == "hook"]


def settle(scene: Scene, alerts: Alerts, *settlements: Settlement, want: Want | None = None) -> Exchange:
    return scene.store.exchange(settlements, want, now=scene.now, hooks={"a": alerts})


def failed(scene: Scene, claim: Claim) -> Settlement:
    return scene.settlement(claim, Final(), Exited(3))


def missing(scene: Scene, count: int, *, job: str = "a") -> list[Firing]:
    """So many slots, a minute from each other, that were missed."""
    slots = [scene.now + timedelta(minutes=minute) for minute in range(1, count + 1)]
    return [Firing(schedule="s", definition="d", slot=slot, run=None, job=job, reason="late") for slot in slots]


def test_the_run_of_a_hook_comes_right_after_the_end_that_it_follows(scene: Scene, alerts: Alerts) -> None:
    run = scene.accept(params={"token": "hunter22"}, secrets=("token",))
    claim = scene.claim_one()
    before = scene.store.last_seq()
    settle(scene, alerts, failed(scene, claim))
    [occasion] = alerts.occasions
    assert (occasion.job, occasion.key, occasion.reason) == ("a", "on_failure", "exited with 3")
    assert occasion.mask.text("hunter22") == "***"
    assert occasion.run is not None
    assert msgspec.structs.replace(occasion.run, token=None) == scene.get(run)
    [alert] = following(scene)
    assert (alert.trigger, alert.state, alert.message.params) == ("hook", RunState.QUEUED, {"state": "failed"})
    new = [event for event in scene.events() if event.seq > before]
    assert [(event.run, event.type) for event in new] == [
        (run.id, "error"),
        (run.id, "failed"),
        (run.id, "hook"),
        (alert.id, "enqueued"),
    ]
    assert new[2].data == {"on": "on_failure", "job": "alert", "run": alert.id}
    assert new[3].by == f"run {run.id}"


def test_a_success_has_its_hook_and_an_attempt_that_is_retried_or_given_back_has_none(
    scene: Scene, alerts: Alerts
) -> None:
    scene.accept()
    settle(scene, alerts, scene.settlement(scene.claim_one(), Retry(timedelta(0), 1), Exited(3)))
    settle(scene, alerts, scene.settlement(scene.claim_one(), Release(), Stopped("interrupted")))
    assert alerts.states == []
    settle(scene, alerts, scene.settlement(scene.claim_one(), Done(b"x"), Exited(0)))
    assert [(each.state, each.key) for each in alerts.occasions] == [("succeeded", "on_success")]


def test_a_run_that_is_retried_and_fails_again_is_followed_again(scene: Scene, alerts: Alerts) -> None:
    run = scene.accept()
    settle(scene, alerts, failed(scene, scene.claim_one()))
    scene.store.retry([run.id], by="bob", now=scene.now)
    settle(scene, alerts, failed(scene, scene.claim_one()))
    assert [alert.state for alert in following(scene)] == [RunState.QUEUED] * 2


def test_an_end_that_came_too_late_or_twice_is_followed_once(scene: Scene, alerts: Alerts) -> None:
    scene.accept()
    end = failed(scene, scene.claim_one())
    settle(scene, alerts, end)
    assert settle(scene, alerts, end).stale == (end,)
    assert len(following(scene)) == 1


def test_a_job_without_a_hook_calls_none(scene: Scene, alerts: Alerts) -> None:
    scene.accept("b")
    settle(scene, alerts, failed(scene, scene.claim_one()))
    assert (alerts.occasions, told(scene)) == ([], [])


def test_the_runs_of_hooks_have_no_hooks(scene: Scene, alerts: Alerts) -> None:
    scene.accept(trigger="hook")
    settle(scene, alerts, failed(scene, scene.claim_one()))
    assert alerts.occasions == []


def test_what_is_revoked_waiting_or_running_has_no_hook(scene: Scene, alerts: Alerts) -> None:
    waiting, running = scene.accept(), scene.accept(priority=1)
    claim = scene.claim_one()
    scene.store.revoke([waiting.id, running.id], kill=True, by="bob", now=scene.now)
    settle(scene, alerts, scene.settlement(claim, Final(), Stopped("revoked")))
    assert {scene.get(run).state for run in (waiting, running)} == {RunState.REVOKED}
    assert alerts.occasions == []


def test_the_run_of_a_hook_may_expire(scene: Scene) -> None:
    alerts = Alerts(expires_s=5)
    scene.accept()
    want = scene.want(jobs=("a",))
    settle(scene, alerts, failed(scene, scene.claim_one()), want=want)
    settle(scene, alerts, want=want)
    scene.pass_time(seconds=6)
    settle(scene, alerts, want=want)
    assert [alert.state for alert in following(scene)] == [RunState.EXPIRED]


@pytest.mark.parametrize("how", ["exchange", "sweep"])
def test_what_expires_has_its_hook_whoever_finds_it(scene: Scene, alerts: Alerts, how: str) -> None:
    run = scene.accept(expires_s=5)
    scene.pass_time(seconds=6)
    for _ in range(2):
        if how == "exchange":
            settle(scene, alerts)
        else:
            scene.store.sweep(served=None, now=scene.now, hooks={"a": alerts})
    assert alerts.states == ["expired"]
    [alert] = following(scene)
    assert scene.types(run)[-2:] == ["expired", "hook"]
    assert scene.types(alert) == ["enqueued"]


def test_a_held_run_has_its_hook_once_for_each_time_that_it_is_held(scene: Scene, alerts: Alerts) -> None:
    run = scene.accept()
    want = scene.want(admit=lambda run: "no such parameter")
    for holding in (1, 2):
        for _ in range(2):
            settle(scene, alerts, want=want)
            scene.store.sweep(served={"*": ["a"]}, now=scene.now, hooks={"a": alerts})
        assert alerts.states == ["held"] * holding
        scene.store.readmit(["a"], now=scene.now)
    assert alerts.occasions[0].reason == "no such parameter"
    assert scene.types(run) == ["enqueued", *(["held", "hook", "released"] * 2)]


@pytest.mark.parametrize("key", ["a", ANY_JOB])
def test_a_run_that_no_worker_defines_has_its_jobs_hook_or_else_that_of_all(
    scene: Scene, alerts: Alerts, key: str
) -> None:
    run = scene.accept()
    for _ in range(2):
        scene.store.sweep(served={"*": ["alert"]}, now=scene.now, hooks={key: alerts})
    [occasion] = alerts.occasions
    assert (occasion.state, occasion.run) == ("held", scene.get(run))


def pipeline(scene: Scene, *params: dict[str, str]) -> list[Run]:
    """The steps of a pipeline in a line, all of them runs of `a`, with these parameters, each of them secret."""
    steps = [
        NewStep(scene.new("a", params=each, secrets=tuple(each)), (position - 1,) if position else ())
        for position, each in enumerate(params)
    ]
    [accepted] = scene.store.accept([scene.new("etl", steps=tuple(steps))], by="alice@host", now=scene.now)
    return [each.run for each in scene.store.steps(accepted.run.id)]


def test_the_hook_of_a_step_follows_it_and_not_those_that_it_skips(scene: Scene, alerts: Alerts) -> None:
    first, *_ = pipeline(scene, {}, {}, {})
    settle(scene, alerts, failed(scene, scene.claim_one()))
    assert [occasion.run and occasion.run.id for occasion in alerts.occasions] == [first.id]


def test_a_step_that_fails_for_want_of_its_input_has_its_hook(scene: Scene, alerts: Alerts) -> None:
    _, second, _ = pipeline(scene, {}, {}, {})
    settle(scene, alerts, scene.settlement(scene.claim_one(), Done(None, "too large"), Exited(0)))
    assert [(each.run and each.run.id, each.state) for each in alerts.occasions][1:] == [(second.id, "failed")]


def test_a_step_that_fails_again_as_soon_as_it_is_retried_has_its_hook_again(scene: Scene, alerts: Alerts) -> None:
    _, second, third = pipeline(scene, {}, {}, {})
    settle(scene, alerts, scene.settlement(scene.claim_one(), Done(None, "too large"), Exited(0)))
    before = len(following(scene))
    scene.store.retry([third.id], by="bob", now=scene.now, hooks={"a": alerts})
    assert (alerts.occasions[-1].run, len(following(scene))) == (scene.get(second), before + 1)
    assert scene.types(second)[-3:] == ["retried", "failed", "hook"]


def test_the_hook_of_a_step_is_told_of_no_secret_of_the_others(scene: Scene, alerts: Alerts) -> None:
    pipeline(scene, {"token": "hunter22"}, {"key": "sesame"})
    settle(scene, alerts, scene.settlement(scene.claim_one(), Done(b"hunter22"), Exited(0)))
    settle(scene, alerts, failed(scene, scene.claim_one()))
    assert [each.mask.text("hunter22 sesame") for each in alerts.occasions] == ["*** ***"] * 2


def test_a_run_that_is_lost_for_the_last_time_has_its_hook(scene: Scene, alerts: Alerts) -> None:
    scene.accept()
    for attempt in (1, 2, 3):
        scene.register(f"w{attempt}")
        scene.claim_one(worker=f"w{attempt}")
        for _ in range(2):
            scene.store.rescue(f"w{attempt}", cause="killed", now=scene.now, hooks={"a": alerts})
        assert len(following(scene)) == (1 if attempt == 3 else 0)
    assert "crash_limit" in (alerts.occasions[0].reason or "")


def test_slots_that_are_missed_together_have_one_hook_that_counts_them(scene: Scene, alerts: Alerts) -> None:
    scene.store.define_schedules({"s": ScheduleDefinition("r", "d")}, file="f", now=scene.now)
    firings, later = missing(scene, 4), scene.now + timedelta(hours=1)
    for _ in range(2):
        scene.store.fire(firings[:3], now=later, hooks={"a": alerts})
    scene.store.fire(firings[3:], now=later, hooks={"a": alerts})
    first, second = alerts.occasions
    assert (first.state, first.key, first.run) == ("missed", "on_failure", None)
    assert first.reason == "schedule s: 3 slots were missed, the last 2026-03-01T12:03:00Z: late"
    assert second.reason == "schedule s: slot 2026-03-01T12:04:00Z was missed: late"
    assert [(event.job, event.schedule, event.slot) for event in told(scene)] == [
        ("a", "s", firings[2].slot),
        ("a", "s", firings[3].slot),
    ]
    assert [scene.events(alert)[0].by for alert in following(scene)] == ["schedule s"] * 2


def test_a_slot_that_is_skipped_or_fired_calls_no_hook(scene: Scene, alerts: Alerts) -> None:
    scene.store.define_schedules({"s": ScheduleDefinition("r", "d")}, file="f", now=scene.now)
    for minute in (1, 2):
        slot = scene.now + timedelta(minutes=minute)
        new = scene.new(schedule="s", slot=slot)
        firing = Firing(schedule="s", definition="d", slot=slot, run=new, job="a")
        [fired] = scene.store.fire([firing], now=slot, hooks={"a": alerts})
        assert fired.outcome == ("fired" if minute == 1 else "skipped")
    assert alerts.occasions == []


def test_a_hook_that_raises_is_told_of_and_takes_nothing_with_it(scene: Scene, alerts: Alerts) -> None:
    def broken(occasion: Occasion) -> NewRun | None:
        raise RuntimeError("out of ideas")

    runs = [scene.accept("a"), scene.accept("b")]
    ends = [failed(scene, claim) for claim in scene.claim(2)]
    scene.store.exchange(ends, None, now=scene.now, hooks={"a": broken, "b": alerts})
    assert [scene.get(run).state for run in runs] == [RunState.FAILED] * 2
    assert [event.data for event in told(scene)] == [
        {"on": "on_failure", "reason": "nothing was enqueued: out of ideas"},
        {"on": "on_failure", "job": "alert", "run": following(scene)[0].id},
    ]


def test_a_hook_that_wants_nothing_leaves_no_trace(scene: Scene) -> None:
    scene.accept()
    end = failed(scene, scene.claim_one())
    exchange = scene.store.exchange([end], None, now=scene.now, hooks={"a": lambda occasion: None})
    assert (following(scene), told(scene), exchange.next_due, exchange.opened) == ([], [], None, False)


def test_where_the_hooks_job_is_unique_the_run_that_stands_is_named(scene: Scene) -> None:
    alerts = Alerts(unique_key=b"k" * 32)
    scene.accept(), scene.accept()
    settle(scene, alerts, *[failed(scene, claim) for claim in scene.claim(2)])
    [alert] = following(scene)
    first, second = told(scene)
    assert first.data == {"on": "on_failure", "job": "alert", "run": alert.id}
    assert second.data == {**first.data, "existing": True}


def test_an_end_that_cannot_be_stored_is_followed_once_as_what_it_became(scene: Scene) -> None:
    alerts = Alerts()
    runs = [scene.accept(), scene.accept()]
    first, second = scene.claim(2)
    settle(scene, alerts, scene.settlement(first, Final(), Exited(2**70)), failed(scene, second))
    assert [scene.get(run).state for run in runs] == [RunState.FAILED] * 2
    assert len(following(scene)) == 2
    assert "can't be stored" in (alerts.occasions[-2].reason or "")


def test_an_exchange_that_made_a_hooks_run_says_that_there_is_more_to_claim(scene: Scene, alerts: Alerts) -> None:
    scene.accept()
    want = scene.want(4, jobs=("a", "alert"))
    exchange = settle(scene, alerts, failed(scene, scene.claim_one()), want=want)
    assert (exchange.claims, exchange.next_due) == ((), scene.now)
    exchange = settle(scene, alerts, want=want)
    assert ([claim.run.job for claim in exchange.claims], exchange.next_due) == (["alert"], None)


def test_the_newest_run_that_somebody_asked_for_is_not_one_of_a_hook(scene: Scene, alerts: Alerts) -> None:
    run = scene.accept()
    settle(scene, alerts, failed(scene, scene.claim_one()))
    assert scene.store.newest() == scene.get(run)


def test_the_run_of_a_hook_outlives_the_one_that_it_follows(scene: Scene, alerts: Alerts) -> None:
    run = scene.accept()
    settle(scene, alerts, failed(scene, scene.claim_one()))
    scene.pass_time(seconds=1)
    assert scene.store.prune(ALL, now=scene.now).runs == (run.id,)
    assert [alert.state for alert in following(scene)] == [RunState.QUEUED]
