"""Taking runs in: all or none, in order, each id once."""

from datetime import timedelta
from typing import Any

import pytest
from scene import Scene

from hueyctl.errors import Refused
from hueyctl.model.definition import Retention
from hueyctl.model.run import NewStep, RunState
from hueyctl.storage import intake
from hueyctl.storage.store import EventFilter, RunFilter

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def test_an_accepted_run_is_read_back_as_it_was_given(scene: Scene) -> None:
    slot = scene.now - timedelta(minutes=1)
    run = scene.accept(
        params={"url": "https://example.org/ü", "n": 3, "list": [1, "x", None, 1.5]},
        secrets=("url",),
        retries=2,
        queue="mail",
        priority=7,
        expires_s=60.0,
        trigger="schedule",
        schedule="nightly",
        slot=slot,
    )
    assert scene.get(run) == run
    assert run.state is RunState.QUEUED
    assert run.message.params == {"url": "https://example.org/ü", "n": 3, "list": [1, "x", None, 1.5]}
    assert run.message.secrets == ("url",)
    assert (run.message.retries, run.queue, run.priority) == (2, "mail", 7)
    assert (run.schedule, run.scheduled_at, run.trigger) == ("nightly", slot, "schedule")
    assert run.enqueued_at == run.due_at == scene.now
    assert run.expires_at == scene.now + timedelta(seconds=60)


def test_acceptance_writes_one_event_that_names_who_did_it(scene: Scene) -> None:
    run = scene.accept(queue="mail", priority=5)
    [event] = scene.events(run)
    assert (event.type, event.state, event.by) == ("enqueued", "queued", "alice@host")
    assert (event.run, event.job, event.attempt, event.time) == (run.id, "a", None, scene.now)
    assert event.data == {"queue": "mail", "priority": 5}


def test_a_run_due_later_is_scheduled_and_expires_from_when_it_is_due(scene: Scene) -> None:
    due = scene.now + timedelta(minutes=5)
    run = scene.accept(due_at=due, expires_s=10)
    assert (run.state, run.due_at, run.expires_at) == (RunState.SCHEDULED, due, due + timedelta(seconds=10))
    [event] = scene.events(run)
    assert (event.type, event.state) == ("scheduled", "scheduled")
    assert event.data["due_at"] == "2026-03-01T12:05:00Z"


def test_runs_are_numbered_in_the_order_in_which_they_were_handed_in(scene: Scene) -> None:
    first = scene.accept()
    many = [accepted.run for accepted in scene.store.accept([scene.new() for _ in range(20)], by="b", now=scene.now)]
    assert [run.n for run in (first, *many)] == sorted({run.n for run in (first, *many)})
    assert scene.store.runs(RunFilter(), limit=None) == [*reversed(many), first]


def test_numbers_are_not_used_twice_after_the_newest_run_was_pruned(scene: Scene) -> None:
    run = scene.accept()
    scene.store.revoke([run.id], kill=False, by="b", now=scene.now)
    scene.pass_time(days=365)
    assert scene.store.prune(Retention(), now=scene.now).runs == (run.id,)
    assert scene.accept().n > run.n


def test_accepting_nothing_does_nothing(scene: Scene) -> None:
    before = scene.store.last_seq()
    assert scene.store.accept([], by="b", now=scene.now) == []
    assert scene.store.last_seq() == before


def test_a_given_id_repeated_with_the_same_job_and_params_is_the_run_that_exists(scene: Scene) -> None:
    run = scene.accept(id=ID, given_id=True, params={"x": [1, 2]})
    scene.succeed(scene.claim_one())
    [again] = scene.store.accept([scene.new(id=ID, given_id=True, params={"x": (1, 2)})], by="b", now=scene.now)
    assert again.existing
    assert again.run == scene.get(run)
    assert len(scene.store.runs(RunFilter(), limit=None)) == 1


@pytest.mark.parametrize("other", [{"job": "b"}, {"params": {"x": 2}}])
def test_a_given_id_repeated_with_another_job_or_params_is_refused(scene: Scene, other: dict[str, Any]) -> None:
    scene.accept(id=ID, given_id=True, params={"x": 1})
    with pytest.raises(Refused, match=ID):
        scene.store.accept(
            [scene.new(**{"id": ID, "given_id": True, "params": {"x": 1}, **other})], by="b", now=scene.now
        )


def test_a_given_id_twice_in_one_batch_is_one_run(scene: Scene) -> None:
    first, second = scene.store.accept([scene.new(id=ID, given_id=True)] * 2, by="b", now=scene.now)
    assert (first.existing, second.existing) == (False, True)
    assert first.run == second.run


def test_a_refused_run_takes_the_whole_batch_with_it(scene: Scene) -> None:
    scene.accept(id=ID, given_id=True)
    before = scene.store.last_seq()
    with pytest.raises(Refused):
        scene.store.accept([scene.new(), scene.new("b", id=ID, given_id=True), scene.new()], by="b", now=scene.now)
    assert len(scene.store.runs(RunFilter(), limit=None)) == 1
    assert scene.store.last_seq() == before


def test_a_number_that_is_too_large_is_refused_and_nothing_is_half_done(scene: Scene) -> None:
    with pytest.raises(Refused, match="too large"):
        scene.store.accept([scene.new(), scene.new(priority=2**63)], by="b", now=scene.now)
    assert scene.store.runs(RunFilter(), limit=None) == []


def test_a_unique_key_stands_for_its_live_run_and_is_free_when_that_has_ended(scene: Scene) -> None:
    first = scene.accept(unique_key=b"k")
    new = [scene.new(unique_key=b"k"), scene.new(unique_key=b"other"), scene.new(unique_key=b"other")]
    same, other, third = scene.store.accept(new, by="b", now=scene.now)
    assert (same.run.id, same.existing) == (first.id, True)
    assert (third.run.id, third.existing, other.existing) == (other.run.id, True, False)
    scene.store.revoke([first.id], kill=False, by="b", now=scene.now)
    assert scene.accept(unique_key=b"k").id != first.id


def test_text_that_is_no_utf8_is_replaced_and_never_refused(scene: Scene) -> None:
    run = scene.accept(params={"x\udcff": ["\ud800", "ü"]})
    assert run.message.params == {"x?": ["?", "ü"]}
    assert scene.get(run) == run
    odd = scene.new(queue="q\udcff")
    [accepted] = scene.store.accept([odd], by="al\udcffice", now=scene.now)
    assert accepted.run.queue == "q?"
    assert scene.store.last_events(EventFilter(), limit=1)[0].by == "al?ice"
    assert scene.store.get("\udcff") is None


def test_each_run_of_a_batch_is_stored_as_it_is_and_has_its_own_first_event_however_many_are_alike(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many alike are written together and told of from their rows, and a few handed over: the order is that of the
    runs."""
    monkeypatch.setattr(intake, "CHUNK", 400)
    later = scene.now + timedelta(hours=1)
    step = NewStep(scene.new("s"))
    given = [scene.new("a", priority=number % 2) for number in range(10)]
    given += [scene.new("b", queue="q") for _ in range(70)]
    given += [scene.new("p", steps=(step, NewStep(scene.new("s"), (0,)))), scene.new("a", due_at=later)]
    given += [scene.new("a", priority=9, schedule="hourly", slot=scene.now, trigger="schedule") for _ in range(20)]
    given += [scene.new("b") for _ in range(5)]
    given += [scene.new("c", params={"number": number}, expires_s=60.0) for number in range(900)]
    given += [scene.new("d", lock_key=f"l{number % 3}", unique_key=b"%d" % number) for number in range(40)]
    accepted = scene.store.accept(given, by="alice@host", now=scene.now)
    first = [event for event in scene.events() if event.run is not None]
    events = {event.run: event for event in first}
    runs = sorted(scene.store.runs(RunFilter(), limit=None), key=lambda run: run.n)
    assert len(runs) == len(events) == len(given) + 2
    assert [event.run for event in first] == [run.id for run in runs]
    assert [runs[each.run.n - 1] for each in accepted] == [each.run for each in accepted]
    assert [each.run.id for each in accepted] == [new.id for new in given]
    assert [run.message.params for run in runs if run.job == "c"] == [{"number": number} for number in range(900)]
    for run in runs:
        event = events[run.id]
        assert (event.type, event.state, event.job) == (
            "scheduled" if run.state is RunState.SCHEDULED else "enqueued",
            run.state,
            run.job,
        )
        assert (event.schedule, event.slot, event.pipeline) == (run.schedule, run.scheduled_at, run.pipeline)
        assert (event.by, event.attempt, event.worker) == ("alice@host", None, None)
        assert (event.data["queue"], event.data["priority"]) == (run.queue, run.priority)
        assert ("due_at" in event.data) == (run.state is RunState.SCHEDULED)
        assert event.data.get("trigger") == (run.trigger if run.schedule else None)
    scene.check_history()


def test_a_large_batch_is_taken_in_whole(scene: Scene) -> None:
    accepted = scene.store.accept([scene.new() for _ in range(12_001)], by="b", now=scene.now)
    assert len({item.run.n for item in accepted}) == 12_001
    assert [(line.state, line.count) for line in scene.store.lines()] == [("queued", 12_001)]
    assert scene.get(accepted[-1].run) == accepted[-1].run
