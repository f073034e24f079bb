"""What users ask for: revoke, retry, pause, resume."""

from datetime import timedelta

import pytest
from scene import Scene

from hueyctl.model.outcome import Exited
from hueyctl.model.run import RunState
from hueyctl.model.transition import Retry
from hueyctl.storage.store import JobPolicy, Pause, RunFilter


def test_a_revoked_queued_run_never_starts(scene: Scene) -> None:
    run = scene.accept()
    [revocation] = scene.store.revoke([run.id], kill=False, by="bob@host", now=scene.now)
    assert (revocation.effect, revocation.run) == ("revoked", scene.get(run))
    assert (revocation.run.state, revocation.run.reason) == (RunState.REVOKED, "revoked by bob@host")
    assert scene.claim() == []
    event = scene.events(run)[-1]
    assert (event.type, event.state, event.by) == ("revoked", "revoked", "bob@host")


def test_a_revoked_scheduled_run_never_becomes_due(scene: Scene) -> None:
    run = scene.accept(due_at=scene.now + timedelta(seconds=1))
    scene.store.revoke([run.id], kill=False, by="bob", now=scene.now)
    scene.pass_time(seconds=2)
    assert scene.claim() == []
    assert scene.get(run).state is RunState.REVOKED


def test_a_revoked_retry_does_not_come(scene: Scene) -> None:
    run = scene.accept()
    scene.settle(scene.claim_one(), Retry(timedelta(seconds=1), 1), Exited(1))
    scene.store.revoke([run.id], kill=False, by="bob", now=scene.now)
    scene.pass_time(seconds=2)
    assert scene.claim() == []


def test_a_held_run_can_be_revoked(scene: Scene) -> None:
    run = scene.accept()
    scene.claim(admit=lambda run: "no")
    assert scene.store.revoke([run.id], kill=False, by="bob", now=scene.now)[0].effect == "revoked"


def test_a_running_run_is_left_alone_unless_it_is_to_be_killed(scene: Scene) -> None:
    run = scene.accept()
    claim = scene.claim_one()
    before = scene.store.last_seq()
    [left] = scene.store.revoke([run.id], kill=False, by="bob", now=scene.now)
    assert (left.effect, left.run, scene.store.last_seq()) == ("running", claim.run, before)
    [asked] = scene.store.revoke([run.id], kill=True, by="bob", now=scene.now)
    assert (asked.effect, asked.run) == ("requested", scene.get(run))
    assert (asked.run.revoking, asked.run.killing, asked.run.state) == (True, True, RunState.RUNNING)
    assert scene.store.asked("w1") == (None, ((claim.run.n, claim.token),))
    assert scene.types(run)[-1] == "revoke-requested"


def test_a_revoke_asked_for_twice_is_recorded_once(scene: Scene) -> None:
    run = scene.accept()
    scene.claim_one()
    for _ in range(2):
        scene.store.revoke([run.id], kill=True, by="bob", now=scene.now)
    assert scene.types(run).count("revoke-requested") == 1


def test_an_ended_run_is_not_revoked(scene: Scene) -> None:
    run = scene.accept()
    scene.succeed(scene.claim_one())
    assert scene.store.revoke([run.id], kill=True, by="bob", now=scene.now)[0].effect == "ended"
    assert scene.get(run).state is RunState.SUCCEEDED


def test_revocations_come_in_the_order_asked_for_without_the_unknown(scene: Scene) -> None:
    runs = [scene.accept() for _ in range(3)]
    ids = [runs[2].id, "nobody", runs[0].id]
    done = scene.store.revoke(ids, kill=False, by="bob", now=scene.now)
    assert [revocation.run.id for revocation in done] == [runs[2].id, runs[0].id]


def test_retry_brings_a_failed_run_back_as_itself(scene: Scene) -> None:
    run = scene.accept(retries=2)
    first = scene.claim_one()
    scene.settle(first, Retry(timedelta(0), 1), Exited(1))
    scene.fail(scene.claim_one())
    scene.pass_time(hours=1)
    [retried] = scene.store.retry([run.id], by="bob", now=scene.now)
    again = retried.run
    assert (retried.refusal, again) == (None, scene.get(run))
    assert (again.state, again.attempt, again.losses, again.due_at) == (RunState.QUEUED, 2, 0, scene.now)
    assert (again.exit_code, again.error, again.reason, again.finished_at, again.worker) == (None,) * 5
    event = scene.events(run)[-1]
    assert (event.type, event.state, event.by) == ("retried", "queued", "bob")
    claim = scene.claim_one()
    assert (claim.run.attempt, claim.run.retries_left) == (3, 2)


def test_retry_takes_the_definitions_retries_where_the_enqueuer_gave_none(scene: Scene) -> None:
    run = scene.accept()
    scene.fail(scene.claim_one(jobs={"a": JobPolicy(retries=1)}))
    scene.store.retry([run.id], by="bob", now=scene.now)
    assert scene.claim_one(jobs={"a": JobPolicy(retries=7)}).run.retries_left == 7


def test_retry_counts_losses_and_expiry_anew(scene: Scene) -> None:
    run = scene.accept(expires_s=10)
    scene.claim_one(jobs={"a": JobPolicy(crash_limit=1)})
    scene.store.rescue("w1", cause="killed", now=scene.now)
    assert scene.get(run).state is RunState.FAILED
    scene.pass_time(hours=1)
    scene.store.retry([run.id], by="bob", now=scene.now)
    assert (scene.get(run).losses, scene.get(run).expires_at) == (0, scene.now + timedelta(seconds=10))
    scene.register("w1")
    scene.pass_time(seconds=10)
    assert scene.claim() == []
    assert scene.get(run).state is RunState.EXPIRED


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_retry_brings_back_what_was_revoked_or_expired(scene: Scene, how: str) -> None:
    run = scene.accept(expires_s=5)
    if how == "revoked":
        scene.store.revoke([run.id], kill=False, by="bob", now=scene.now)
    else:
        scene.store.exchange([], None, now=scene.pass_time(seconds=6))
    assert scene.get(run).state == how
    assert scene.store.retry([run.id], by="bob", now=scene.now)[0].refusal is None
    assert scene.claim_one().run.id == run.id


def test_retry_refuses_what_succeeded_and_what_has_not_ended(scene: Scene) -> None:
    succeeded = scene.accept()
    scene.succeed(scene.claim_one())
    running = scene.accept()
    scene.claim_one()
    queued = scene.accept()
    refused = scene.store.retry([succeeded.id, running.id, queued.id], by="bob", now=scene.now)
    assert all(refusal.refusal for refusal in refused)
    assert refused[0].refusal == "has succeeded"
    assert [scene.get(run).state.value for run in (succeeded, running, queued)] == ["succeeded", "running", "queued"]
    assert [refusal.run for refusal in refused] == [scene.get(run) for run in (succeeded, running, queued)]


def test_retry_is_refused_while_a_live_run_has_the_same_unique_key(scene: Scene) -> None:
    old = scene.accept(unique_key=b"k")
    scene.fail(scene.claim_one())
    new = scene.accept(unique_key=b"k")
    [refused] = scene.store.retry([old.id], by="bob", now=scene.now)
    assert new.id in (refused.refusal or "")
    assert scene.get(old).state is RunState.FAILED


def test_pauses_are_independent_and_keep_their_note(scene: Scene) -> None:
    one = Pause(kind="job", name="a", note="moving \udcff", by="bob", at=scene.now)
    two = Pause(kind="queue", name="a", note=None, by="eve", at=scene.now)
    scene.store.pause([one, two])
    assert [(pause.kind, pause.name, pause.note, pause.by) for pause in scene.store.pauses()] == [
        ("job", "a", "moving ?", "bob"),
        ("queue", "a", None, "eve"),
    ]
    assert [event.type for event in scene.events()][-2:] == ["paused", "paused"]
    assert scene.events()[-2].data == {"kind": "job", "name": "a", "note": "moving ?"}
    assert (scene.events()[-2].job, scene.events()[-2].by) == ("a", "bob")
    scene.store.pause([Pause(kind="job", name="a", note="still", by="bob", at=scene.now)])
    assert scene.store.pauses()[0].note == "still"


def test_resume_unsets_one_switch_and_says_whether_it_was_set(scene: Scene) -> None:
    scene.store.pause([Pause(kind="job", name="a", note=None, by="bob", at=scene.now)])
    assert scene.store.resume("job", "a", by="eve", now=scene.now)
    assert not scene.store.resume("job", "a", by="eve", now=scene.now)
    assert scene.store.pauses() == []
    assert [event.type for event in scene.events()].count("resumed") == 1


def test_what_is_paused_still_runs_to_its_end_and_waits_with_its_state(scene: Scene) -> None:
    claim_me = scene.accept()
    claim = scene.claim_one()
    scene.store.pause([Pause(kind="job", name="a", note=None, by="bob", at=scene.now)])
    scene.succeed(claim)
    assert scene.get(claim_me).state is RunState.SUCCEEDED
    assert scene.store.runs(RunFilter(states=(RunState.QUEUED,)), limit=None) == []
