"""Settling: one recorded outcome per attempt, fenced by its token."""

import threading
from datetime import timedelta

import msgspec
import pytest
from scene import Scene

from hueyctl.model.outcome import Exited, Lost, Raised, Returned, Signaled, Stopped, TimedOut
from hueyctl.model.run import Run, RunState
from hueyctl.model.transition import Done, Final, Release, Retry, Settlement
from hueyctl.storage.store import JobPolicy, RunFilter, Store


def test_a_success_is_recorded_with_its_result(scene: Scene) -> None:
    run = scene.accept()
    claim = scene.claim_one()
    scene.pass_time(seconds=1.5)
    scene.settle(claim, Done(b"\xff\x00result"), Exited(0))
    ended = scene.get(run)
    assert (ended.state, ended.result, ended.exit_code, ended.worker) == (
        RunState.SUCCEEDED,
        b"\xff\x00result",
        0,
        "w1",
    )
    assert (ended.started_at, ended.finished_at) == (claim.run.started_at, scene.now)
    event = scene.events(run)[-1]
    assert (event.type, event.state, event.attempt, event.data) == ("complete", "succeeded", 1, {"duration_s": 1.5})


def test_a_result_that_could_not_be_kept_is_null_with_its_reason(scene: Scene) -> None:
    run = scene.accept()
    scene.settle(scene.claim_one(), Done(None, "larger than 1 MiB"), Returned(None, "larger than 1 MiB"))
    assert (scene.get(run).result, scene.get(run).result_error) == (None, "larger than 1 MiB")


def test_a_failure_is_recorded_with_its_cause(scene: Scene) -> None:
    run = scene.accept()
    scene.settle(scene.claim_one(), Final(), Raised("ValueError: no"))
    ended = scene.get(run)
    assert (ended.state, ended.error, ended.reason) == (RunState.FAILED, "ValueError: no", "ValueError: no")
    assert scene.types(run) == ["enqueued", "executing", "error", "failed"]


def test_a_retry_waits_for_its_delay_and_keeps_its_cause(scene: Scene) -> None:
    run = scene.accept()
    scene.settle(scene.claim_one(), Retry(timedelta(seconds=5), 2), TimedOut(10.0))
    waiting = scene.get(run)
    assert (waiting.state, waiting.retries_left, waiting.worker) == (RunState.SCHEDULED, 2, None)
    assert (waiting.due_at, waiting.exit_code) == (scene.now + timedelta(seconds=5), 124)
    assert scene.types(run)[-2:] == ["timeout", "retrying"]
    assert scene.claim() == []
    scene.pass_time(seconds=5)
    again = scene.claim_one(jobs={"a": JobPolicy(retries=99)})
    assert (again.run.attempt, again.run.retries_left) == (2, 2)
    assert (again.run.exit_code, again.run.error, again.run.reason) == (None, None, None)


def test_a_retry_without_delay_is_queued_at_once(scene: Scene) -> None:
    scene.accept()
    scene.fail_for_now(scene.claim_one(), retries_left=1)
    assert scene.claim_one().run.attempt == 2


def test_a_late_settlement_changes_nothing_and_is_recorded(scene: Scene) -> None:
    run = scene.accept()
    lost = scene.claim_one()
    scene.store.rescue("w1", cause="silent", now=scene.now)
    scene.register("w2")
    current = scene.claim_one(worker="w2")
    late = scene.settlement(lost, Done(b"late"), Exited(0))
    exchange = scene.store.exchange([late], None, now=scene.now)
    assert exchange.stale == (late,)
    assert scene.get(run) == current.run
    event = scene.events(run)[-1]
    assert (event.type, event.state) == ("stale", "running")
    assert (event.data["attempt"], event.data["token"]) == (1, lost.token)
    scene.succeed(current)
    assert scene.get(run).result == b"ok"


def test_a_settlement_given_twice_counts_once(scene: Scene) -> None:
    run = scene.accept()
    claim = scene.claim_one()
    scene.succeed(claim)
    assert len(scene.fail(claim).stale) == 1
    assert scene.get(run).state is RunState.SUCCEEDED


def test_a_settlement_of_a_run_that_is_gone_is_stale(scene: Scene) -> None:
    gone = Settlement(n=12345, token="1-ff", verdict=Final(), outcome=Exited(1), ended_at=scene.now)
    assert scene.store.exchange([gone], None, now=scene.now).stale == (gone,)
    assert scene.events()[-1].type == "stale"


def test_tokens_never_recur(scene: Scene) -> None:
    scene.accept()
    tokens = set()
    for _ in range(5):
        claim = scene.claim_one()
        tokens.add(claim.token)
        scene.fail_for_now(claim, retries_left=9)
    assert len(tokens) == 5


def test_a_release_uses_up_neither_retries_nor_losses(scene: Scene) -> None:
    run = scene.accept()
    claim = scene.claim_one(jobs={"a": JobPolicy(retries=1)})
    scene.release(claim, Stopped("interrupted"), started=True)
    given_back = scene.get(run)
    assert (given_back.state, given_back.retries_left, given_back.losses) == (RunState.QUEUED, 1, 0)
    assert scene.types(run)[-1] == "interrupted"
    scene.release(scene.claim_one(), Stopped("interrupted"), started=False)
    assert scene.types(run)[-1] == "released"
    assert scene.claim_one().run.attempt == 3


def test_a_release_of_what_must_not_run_twice_ends_it(scene: Scene) -> None:
    run = scene.accept()
    claim = scene.claim_one(jobs={"a": JobPolicy(on_worker_lost="fail")})
    scene.release(claim, Stopped("interrupted"), started=True)
    assert scene.get(run).state is RunState.FAILED
    assert "interrupted" in (scene.get(run).reason or "")


def test_a_revoked_attempt_that_succeeds_stays_succeeded(scene: Scene) -> None:
    run = scene.accept()
    claim = scene.claim_one()
    scene.store.revoke([run.id], kill=True, by="bob", now=scene.now)
    scene.succeed(claim)
    ended = scene.get(run)
    assert (ended.state, ended.revoking, ended.killing) == (RunState.SUCCEEDED, False, False)


@pytest.mark.parametrize("end", ["retry", "final", "release", "lost"])
def test_every_other_end_of_a_revoked_attempt_is_revoked(scene: Scene, end: str) -> None:
    run = scene.accept()
    claim = scene.claim_one()
    scene.store.revoke([run.id], kill=True, by="bob", now=scene.now)
    match end:
        case "retry":
            scene.settle(claim, Retry(timedelta(seconds=1), 3), Exited(1))
        case "final":
            scene.settle(claim, Final(), Stopped("revoked"))
        case "release":
            scene.settle(claim, Release(), Stopped("interrupted"))
        case _:
            scene.store.rescue("w1", cause="killed", now=scene.now)
    assert scene.get(run).state is RunState.REVOKED
    assert scene.types(run)[-1] == "revoked"


def test_one_that_cannot_be_stored_ends_failed_and_takes_no_other_with_it(scene: Scene) -> None:
    runs = [scene.accept() for _ in range(3)]
    claims = scene.claim(3)
    settlements = [scene.settlement(claim, Done(b"ok"), Exited(0)) for claim in claims]
    settlements[1] = scene.settlement(claims[1], Final(), Exited(2**70))
    scene.accept()
    exchange = scene.store.exchange(settlements, scene.want(1), now=scene.now)
    assert len(exchange.claims) == 1
    assert [scene.get(run).state.value for run in runs] == ["succeeded", "failed", "succeeded"]
    assert "can't be stored" in (scene.get(runs[1]).reason or "")
    assert scene.types(runs[1])[-1] == "failed"
    assert [scene.types(run).count("complete") for run in runs] == [1, 0, 1]


def test_a_retry_beside_one_that_cannot_be_stored_is_due_at_its_time(scene: Scene) -> None:
    scene.accept(), scene.accept()
    first, second = scene.claim(2)
    scene.store.exchange([], None, now=scene.now)
    broken = scene.settlement(first, Final(), Exited(2**70))
    retry = scene.settlement(second, Retry(timedelta(seconds=5), 0), Exited(1))
    exchange = scene.store.exchange([broken, retry], scene.want(), now=scene.now)
    assert exchange.next_due == scene.now + timedelta(seconds=5)


def test_text_that_is_no_utf8_is_replaced_and_never_refused(scene: Scene) -> None:
    run = scene.accept()
    scene.settle(scene.claim_one(), Final(), Raised("Error: \ud800 ü"))
    assert scene.get(run).error == "Error: ? ü"
    assert scene.events(run)[-1].data["reason"] == "Error: ? ü"


@pytest.mark.parametrize("outcome", [Signaled(9, True), Raised(""), Exited(255)])
def test_no_outcome_is_too_odd_to_be_recorded(scene: Scene, outcome: Signaled | Raised | Exited) -> None:
    run = scene.accept()
    scene.settle(scene.claim_one(), Final(), outcome)
    assert scene.get(run).state is RunState.FAILED
    assert scene.get(run).reason is not None


def test_an_attempt_that_its_own_worker_lost_counts_as_a_loss(scene: Scene) -> None:
    run = scene.accept()
    scene.settle(scene.claim_one(jobs={"a": JobPolicy(crash_limit=2)}), Final(), Lost("the guard died"))
    assert (scene.get(run).state, scene.get(run).losses) == (RunState.QUEUED, 1)
    scene.settle(scene.claim_one(jobs={"a": JobPolicy(crash_limit=2)}), Final(), Lost("the guard died"))
    assert (scene.get(run).state, scene.get(run).losses) == (RunState.FAILED, 2)


def test_two_racing_workers_claim_each_run_once(scene: Scene) -> None:
    """Four threads with connections of their own, settling and claiming as fast as they can."""
    count = 400
    scene.store.accept([scene.new() for _ in range(count)], by="b", now=scene.now)
    claimed: list[int] = []
    failures: list[BaseException] = []

    def work(name: str, store: Store) -> None:
        try:
            done: list[Settlement] = []
            while True:
                exchange = store.exchange(done, scene.want(3, worker=name), now=scene.now)
                assert not exchange.stale
                if not exchange.claims:
                    return
                claimed.extend(claim.run.n for claim in exchange.claims)
                done = [scene.settlement(claim, Done(), Exited(0)) for claim in exchange.claims]
        except BaseException as exc:
            failures.append(exc)

    threads = []
    for number in range(4):
        scene.register(f"racer{number}")
        threads.append(threading.Thread(target=work, args=(f"racer{number}", scene.another())))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(claimed) == len(set(claimed)) == count
    assert all(run.state is RunState.SUCCEEDED for run in scene.store.runs(RunFilter(), limit=None))


def test_settlement_and_rescue_racing_give_one_outcome(scene: Scene) -> None:
    """Whoever comes second finds the other's doing: the run is settled or given back, never both."""
    runs: list[Run] = []
    for number in range(20):
        name = f"racer{number}"
        scene.register(name)
        runs.append(scene.accept())
        claim = scene.claim_one(worker=name)
        other = scene.another()
        start = threading.Barrier(2)

        def rescue(name: str = name, other: Store = other, start: threading.Barrier = start) -> None:
            start.wait()
            other.rescue(name, cause="silent", now=scene.now)

        thread = threading.Thread(target=rescue)
        thread.start()
        start.wait()
        stale = scene.succeed(claim).stale
        thread.join()
        ended = scene.get(runs[-1])
        assert ended.state is (RunState.QUEUED if stale else RunState.SUCCEEDED)
        assert scene.types(ended).count("complete") == (0 if stale else 1)
        scene.store.revoke([ended.id], kill=False, by="b", now=scene.now)


def test_the_record_is_what_json_can_hold(scene: Scene) -> None:
    """What is shown goes through JSON; no event may hold what it can't."""
    scene.accept(expires_s=1, due_at=scene.now + timedelta(days=1))
    scene.accept()
    scene.fail(scene.claim_one())
    for event in scene.events():
        assert msgspec.json.decode(msgspec.json.encode(event.data)) == event.data


def test_of_a_batch_each_has_its_due_whatever_became_of_the_others(scene: Scene) -> None:
    """One was rescued and is somebody else's by now, one was asked to be revoked, one holds a lock; three are plain."""
    scene.register()
    scene.register("w2")
    lost = scene.accept()
    [stale] = scene.claim()
    scene.store.rescue("w1", cause="its locks are free", now=scene.now)
    scene.register()
    [again] = scene.claim(worker="w2")
    others = [scene.accept("b", **given) for given in ({}, {}, {"lock_key": "k"}, {}, {})]
    revoked, failing, locked, *plain = scene.claim()
    scene.store.revoke([revoked.run.id], kill=True, by="alice@host", now=scene.now)
    settlements = [
        scene.settlement(plain[0], Done(b"1"), Exited(0)),
        scene.settlement(stale, Done(b"late"), Exited(0)),
        scene.settlement(revoked, Final(), Exited(3)),
        scene.settlement(locked, Done(b"2"), Exited(0)),
        scene.settlement(failing, Final(), Exited(4)),
        scene.settlement(plain[1], Retry(timedelta(0), 1), Exited(5)),
    ]
    exchange = scene.store.exchange(settlements, scene.want(), now=scene.now)
    assert [settlement.token for settlement in exchange.stale] == [stale.token]
    assert [claim.run.id for claim in exchange.claims] == [plain[1].run.id]
    assert scene.get(lost).token == again.token
    states = [scene.get(run).state for run in others]
    assert states == ["revoked", "failed", "succeeded", "succeeded", "running"]
    [late] = [event for event in scene.events(lost) if event.type == "stale"]
    assert late.by == "w1"
    assert scene.store.lock_holder("k") is None
    scene.check_history()
