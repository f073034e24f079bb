"""Workers: registration, beats, requests, and the rescue of what the dead had."""

from scene import Scene

from hueyctl.model.run import RunState
from hueyctl.storage.store import JobPolicy


def test_a_registered_worker_is_read_back_as_it_registered(scene: Scene) -> None:
    worker = scene.worker("w2", host="h\udcff", jobs=("x", "y"), queues=("q",), lease_s=2.5, file="/ü/jobs.toml")
    scene.store.register(worker, now=scene.now)
    [found] = [other for other in scene.store.workers() if other.id == "w2"]
    assert (found.host, found.jobs, found.queues, found.lease_s) == ("h?", ("x", "y"), ("q",), 2.5)
    assert (found.file, found.started_at, found.beat, found.request) == ("/ü/jobs.toml", scene.now, 0, None)
    assert (scene.events()[-1].type, scene.events()[-1].worker) == ("worker-online", "w2")


def test_registering_again_is_a_reload(scene: Scene) -> None:
    scene.register("w1", jobs=("new",))
    assert scene.store.workers()[0].jobs == ("new",)
    assert [event.type for event in scene.events()] == ["worker-online", "reloaded"]


def test_a_reload_keeps_the_beats_and_a_request_that_came_in_meanwhile(scene: Scene) -> None:
    scene.store.beat("w1", running=3, now=scene.now)
    scene.store.ask("w1", "stop", by="bob", now=scene.now)
    scene.register("w1", jobs=("new",))
    [worker] = scene.store.workers()
    assert (worker.beat, worker.running, worker.request) == (1, 3, "stop")


def test_a_beat_counts_up_and_tells_the_load(scene: Scene) -> None:
    scene.pass_time(seconds=3)
    assert scene.store.beat("w1", running=3, now=scene.now)
    assert scene.store.beat("w1", running=2, now=scene.now)
    [worker] = scene.store.workers()
    assert (worker.beat, worker.beat_at, worker.running) == (2, scene.now, 2)
    assert [event.type for event in scene.events()] == ["worker-online"]


def test_a_beat_of_a_worker_that_was_rescued_says_so(scene: Scene) -> None:
    scene.store.rescue("w1", cause="silent", now=scene.now)
    assert not scene.store.beat("w1", running=0, now=scene.now)
    assert scene.store.workers() == []


def test_who_has_gone_on_since_his_silence_was_judged_is_not_rescued(scene: Scene) -> None:
    """His lease is renewed with that beat, and what he has claimed since has begun."""
    judged = scene.store.workers()[0].beat
    assert scene.store.beat("w1", running=0, now=scene.now)
    run = scene.accept()
    scene.claim_one()
    assert scene.store.rescue("w1", cause="silent", now=scene.now, beat=judged) == []
    assert [worker.id for worker in scene.store.workers()] == ["w1"]
    assert scene.get(run).state is RunState.RUNNING
    assert [each.id for each in scene.store.rescue("w1", cause="silent", now=scene.now, beat=judged + 1)] == [run.id]


def test_a_request_is_given_once(scene: Scene) -> None:
    assert scene.store.ask("w1", "reload", by="bob", now=scene.now)
    assert scene.store.workers()[0].request == "reload"
    assert scene.store.asked("w1") == ("reload", ())
    assert scene.store.asked("w1") == (None, ())


def test_a_stop_stands_until_the_worker_has_gone(scene: Scene) -> None:
    """Who looks meanwhile is to see that it takes nothing new."""
    scene.store.ask("w1", "stop", by="bob", now=scene.now)
    for _ in range(2):
        assert scene.store.asked("w1") == ("stop", ())
        assert scene.store.workers()[0].request == "stop"
    scene.store.unregister("w1", reason="asked to stop", now=scene.now)
    assert scene.store.workers() == []


def test_a_reload_does_not_take_the_place_of_a_stop(scene: Scene) -> None:
    scene.store.ask("w1", "stop", by="bob", now=scene.now)
    scene.store.ask("w1", "reload", by="bob", now=scene.now)
    assert scene.store.asked("w1") == ("stop", ())


def test_a_request_to_nobody_is_refused(scene: Scene) -> None:
    assert not scene.store.ask("w9", "stop", by="bob", now=scene.now)
    assert scene.store.asked("w9") == (None, ())


def test_asking_for_nothing_new_writes_nothing(scene: Scene) -> None:
    other = scene.another()
    other.changed()
    scene.store.asked("w1")
    assert not other.changed()


def test_only_the_attempts_of_the_worker_itself_are_to_be_stopped(scene: Scene) -> None:
    scene.register("w2")
    mine, others = scene.accept(), scene.accept()
    claim = scene.claim_one()
    scene.claim_one(worker="w2")
    scene.store.revoke([mine.id, others.id], kill=True, by="bob", now=scene.now)
    assert scene.store.asked("w1")[1] == ((claim.run.n, claim.token),)


def test_rescue_gives_everything_back_and_takes_the_worker_out(scene: Scene) -> None:
    scene.register("w2")
    runs = [scene.accept() for _ in range(3)]
    scene.claim(2)
    untouched = scene.claim_one(worker="w2")
    rescued = scene.store.rescue("w1", cause="its lock is free", now=scene.now)
    assert [run.id for run in rescued] == [run.id for run in runs[:2]]
    assert rescued == [scene.get(run) for run in runs[:2]]
    assert all((run.state, run.losses, run.worker) == (RunState.QUEUED, 1, None) for run in rescued)
    assert scene.get(untouched) == untouched.run
    assert [worker.id for worker in scene.store.workers()] == ["w2"]
    event = scene.events(runs[0])[-1]
    assert (event.type, event.attempt, event.worker) == ("lost", 1, "w1")
    assert event.data["cause"] == "its lock is free"
    assert scene.events()[-1].type == "worker-offline"


def test_rescue_twice_does_no_harm(scene: Scene) -> None:
    run = scene.accept()
    scene.claim_one()
    scene.store.rescue("w1", cause="dead", now=scene.now)
    before = scene.store.last_seq()
    assert scene.store.rescue("w1", cause="dead", now=scene.now) == []
    assert scene.get(run).losses == 1
    assert scene.store.last_seq() == before


def test_a_run_that_keeps_killing_its_worker_ends_failed(scene: Scene) -> None:
    run = scene.accept()
    for _ in range(3):
        assert scene.get(run).state is RunState.QUEUED
        scene.register("w1")
        scene.claim_one(jobs={"a": JobPolicy(crash_limit=3)})
        scene.store.rescue("w1", cause="killed", now=scene.now)
    ended = scene.get(run)
    assert (ended.state, ended.losses, ended.attempt) == (RunState.FAILED, 3, 3)
    assert "crash_limit" in (ended.reason or "")


def test_what_must_not_run_twice_fails_with_its_worker(scene: Scene) -> None:
    run = scene.accept()
    scene.claim_one(jobs={"a": JobPolicy(on_worker_lost="fail")})
    scene.store.rescue("w1", cause="killed", now=scene.now)
    assert scene.get(run).state is RunState.FAILED


def test_losses_and_retries_are_counted_apart(scene: Scene) -> None:
    run = scene.accept(retries=1)
    scene.claim_one()
    scene.store.rescue("w1", cause="killed", now=scene.now)
    scene.register("w1")
    scene.fail_for_now(scene.claim_one(), retries_left=0)
    assert (scene.get(run).losses, scene.get(run).retries_left) == (1, 0)


def test_a_worker_that_leaves_is_gone_and_says_why(scene: Scene) -> None:
    scene.store.unregister("w1", reason="stopped", now=scene.now)
    assert scene.store.workers() == []
    assert (scene.events()[-1].type, scene.events()[-1].data) == ("worker-offline", {"reason": "stopped"})


def test_a_worker_that_leaves_without_settling_leaves_nothing_stuck(scene: Scene) -> None:
    run = scene.accept()
    scene.claim_one()
    scene.store.unregister("w1", reason="stopped", now=scene.now)
    assert scene.get(run).state is RunState.QUEUED
