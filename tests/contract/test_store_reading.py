"""Reading: what is shown is what is there."""

from datetime import timedelta

import pytest
from scene import Scene

from hueyctl.model.run import RunState
from hueyctl.storage.store import EventFilter, Line, RunFilter


def test_a_run_is_found_by_its_id_or_not_at_all(scene: Scene) -> None:
    run = scene.accept()
    assert scene.store.get(run.id) == run
    assert scene.store.get(run.id[:-1]) is None
    assert scene.store.get("") is None


def test_runs_are_found_by_a_prefix(scene: Scene) -> None:
    for end in ("0a", "0b", "1c"):
        scene.accept(id=f"abcd{end}00-0000-4000-8000-000000000000")
    assert len(scene.store.find("abcd", limit=5)) == 3
    assert len(scene.store.find("abcd", limit=2)) == 2
    assert [run.id[:6] for run in scene.store.find("abcd0", limit=5)] == ["abcd0a", "abcd0b"]
    assert scene.store.find("abce") == []
    assert scene.store.find("%") == []


def test_the_newest_run_of_a_job_and_the_newest_that_was_started_by_hand(scene: Scene) -> None:
    a, b = scene.accept("a"), scene.accept("b")
    scheduled = scene.accept("a", schedule="nightly", trigger="schedule")
    assert scene.store.newest(job="a") == scheduled
    assert scene.store.newest() == b
    triggered = scene.accept("a", schedule="nightly", trigger="manual")
    assert scene.store.newest() == triggered
    assert scene.store.newest(job="zzz") is None
    assert a.n < b.n


def test_runs_are_filtered_by_every_given_field_newest_first(scene: Scene) -> None:
    one = scene.accept("a", queue="x")
    scene.pass_time(minutes=1)
    two = scene.accept("b", queue="x", schedule="s")
    scene.pass_time(minutes=1)
    three = scene.accept("a", queue="y")
    scene.store.revoke([one.id], kill=False, by="b", now=scene.now)
    running = scene.claim_one(queues=("y",))

    def ids(limit: int | None = None, before: int | None = None, **where: object) -> list[str]:
        return [run.id for run in scene.store.runs(RunFilter(**where), limit=limit, before=before)]

    assert ids() == [three.id, two.id, one.id]
    assert ids(limit=2) == [three.id, two.id]
    assert ids(before=three.n) == [two.id, one.id]
    assert ids(job="a") == [three.id, one.id]
    assert ids(queue="x") == [two.id, one.id]
    assert ids(schedule="s") == [two.id]
    assert ids(states=(RunState.REVOKED,)) == [one.id]
    assert ids(states=(RunState.REVOKED, RunState.RUNNING, RunState.REVOKED)) == [running.run.id, one.id]
    assert ids(states=(RunState.REVOKED, RunState.RUNNING), limit=1) == [running.run.id]
    assert ids(states=(RunState.QUEUED,), job="b", queue="x") == [two.id]
    assert ids(states=()) == []
    assert ids(since=two.enqueued_at) == [three.id, two.id]
    assert ids(until=two.enqueued_at) == [one.id]


@pytest.mark.parametrize("state", list(RunState))
@pytest.mark.parametrize("more", [{}, {"job": "a"}, {"schedule": "s"}, {"queue": "default"}])
def test_every_state_can_be_asked_for_with_every_filter(scene: Scene, state: RunState, more: dict[str, str]) -> None:
    run = scene.accept("a", schedule="s", due_at=scene.now + timedelta(seconds=1) if state == "scheduled" else None)
    match state:
        case RunState.RUNNING:
            scene.claim_one()
        case RunState.SUCCEEDED:
            scene.succeed(scene.claim_one())
        case RunState.FAILED:
            scene.fail(scene.claim_one())
        case RunState.REVOKED:
            scene.store.revoke([run.id], kill=False, by="b", now=scene.now)
        case RunState.HELD:
            scene.claim(admit=lambda run: "no")
        case _:
            pass
    found = scene.store.runs(RunFilter(states=(state,), **more), limit=5)
    assert [run.id for run in found] == ([run.id] if scene.get(run).state is state else [])


def test_events_come_by_seq_without_a_gap_or_a_repeat(scene: Scene) -> None:
    for _ in range(5):
        scene.accept()
    seen, after = [], 0
    while page := scene.store.events(EventFilter(), after=after, limit=2):
        seen += [event.seq for event in page]
        after = seen[-1]
    assert seen == list(range(1, scene.store.last_seq() + 1))
    assert [event.seq for event in scene.store.last_events(EventFilter(), limit=2)] == seen[-2:]
    assert scene.store.events(EventFilter(), after=after, limit=2) == []


def test_events_are_filtered_by_every_given_field(scene: Scene) -> None:
    a = scene.accept("a")
    scene.pass_time(minutes=1)
    b = scene.accept("b")
    scene.succeed(scene.claim_one(jobs=("a",)))

    def types(**where: object) -> list[tuple[str | None, str]]:
        found = scene.store.events(EventFilter(**where), after=0, limit=100)
        assert found == scene.store.last_events(EventFilter(**where), limit=100)
        return [(event.job, event.type) for event in found]

    assert types(run=a.id) == [("a", "enqueued"), ("a", "executing"), ("a", "complete")]
    assert types(job="b") == [("b", "enqueued")]
    assert types(types=("complete", "enqueued")) == [("a", "enqueued"), ("b", "enqueued"), ("a", "complete")]
    assert types(types=("complete",), job="b") == []
    assert types(since=b.enqueued_at, types=("enqueued",)) == [("b", "enqueued")]
    assert types(until=b.enqueued_at) == [(None, "worker-online"), ("a", "enqueued")]
    assert types(run="nobody") == []


def test_an_empty_store_has_no_events(scene: Scene) -> None:
    scene.store.unregister("w1", reason="x", now=scene.now)
    assert scene.store.last_seq() == 2
    assert scene.store.events(EventFilter(types=()), after=0, limit=5) == []


def test_lines_count_the_live_runs_by_queue_job_and_state(scene: Scene) -> None:
    for _ in range(3):
        scene.accept("a")
    scene.accept("a", queue="other", due_at=scene.now + timedelta(hours=1))
    scene.claim_one()
    assert scene.store.lines() == [
        Line(queue="default", job="a", state=RunState.QUEUED, count=2),
        Line(queue="default", job="a", state=RunState.RUNNING, count=1),
        Line(queue="other", job="a", state=RunState.SCHEDULED, count=1),
    ]


def test_next_up_is_the_order_of_claiming_then_of_time(scene: Scene) -> None:
    late = scene.accept(due_at=scene.now + timedelta(hours=2))
    soon = scene.accept(due_at=scene.now + timedelta(hours=1), priority=-1)
    low, high, other = scene.accept("a"), scene.accept("b", priority=5), scene.accept("c", queue="q")
    expected = [run.id for run in (high, low, other, soon, late)]
    for limit in (1, 2, 4, 5, 50):
        assert [run.id for run in scene.store.next_up(limit=limit)] == expected[:limit]


def test_who_waits_for_a_lock_is_next_up_behind_those_that_wait_for_none(scene: Scene) -> None:
    held = [scene.accept("a", lock_key=key) for key in ("k", "l")]
    scene.register()
    assert {claim.run.id for claim in scene.claim()} == {run.id for run in held}
    low, high = scene.accept("a", lock_key="k"), scene.accept("b", lock_key="k", priority=5)
    other = scene.accept("c", lock_key="l")
    assert scene.claim() == []
    free, later = scene.accept("a", priority=-1), scene.accept(due_at=scene.now + timedelta(hours=1))
    expected = [run.id for run in (free, high, low, other, later)]
    for limit in (2, 3, 4, 5, 50):
        assert [run.id for run in scene.store.next_up(limit=limit)] == expected[:limit]


def test_failures_come_as_they_ended_and_those_of_pipelines_by_their_steps(scene: Scene) -> None:
    late = scene.accept("a", due_at=scene.now + timedelta(seconds=5))
    many = [scene.accept("a") for _ in range(5)]
    for claim in scene.claim():
        scene.fail(claim)
    scene.now += timedelta(seconds=5)
    scene.fail(scene.claim_one())
    gone = scene.accept("a", expires_s=1)
    scene.now += timedelta(seconds=2)
    assert scene.claim() == []
    expected = [gone.id, late.id, *(run.id for run in reversed(many))]
    for limit in (1, 3, 10):
        assert [run.id for run in scene.store.last_failed(limit=limit)] == expected[:limit]


def test_ahead_of_counts_what_its_queue_would_claim_before_it(scene: Scene) -> None:
    high = scene.accept("b", priority=5)
    first, second = scene.accept("a"), scene.accept("a")
    scene.accept("a", queue="other", priority=9)
    assert [scene.store.ahead_of(run) for run in (high, first, second)] == [0, 1, 2]
    scene.store.accept([scene.new("c", priority=1) for _ in range(1_100)], by="b", now=scene.now)
    assert scene.store.ahead_of(second) == 1_000


def test_running_is_the_longest_first_and_by_worker(scene: Scene) -> None:
    scene.register("w2")
    low, high = scene.accept(), scene.accept(priority=1)
    scene.claim_one(worker="w2")
    scene.pass_time(seconds=1)
    scene.claim_one()
    assert [run.id for run in scene.store.running()] == [high.id, low.id]
    assert [run.id for run in scene.store.running(worker="w1")] == [low.id]
    assert scene.store.running(worker="w3") == []


def test_changed_tells_of_others_commits_once(scene: Scene) -> None:
    other = scene.another()
    assert other.changed()
    assert not other.changed()
    scene.accept()
    assert other.changed()
    assert not other.changed()


def test_what_is_read_twice_is_the_same_through_another_connection(scene: Scene) -> None:
    scene.accept()
    scene.fail(scene.claim_one())
    other = scene.another()
    assert other.runs(RunFilter(), limit=None) == scene.store.runs(RunFilter(), limit=None)
    assert other.last_events(EventFilter(), limit=9) == scene.store.last_events(EventFilter(), limit=9)


def test_sync_and_checkpoint_change_nothing_that_is_read(scene: Scene) -> None:
    run = scene.accept()
    scene.store.sync()
    scene.store.checkpoint()
    assert scene.get(run) == run
    assert scene.types(run) == ["enqueued"]
