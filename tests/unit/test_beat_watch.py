"""When a silent worker counts as dead: by one monotonic clock, and only for time in which it could have beaten."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from hueyctl.engine.definitions import EnvFileError, read_env_file
from hueyctl.engine.keeper import BeatWatch, served_by
from hueyctl.storage.store import Worker

START = datetime(2026, 1, 1, tzinfo=UTC)


def worker(
    id: str = "a", beat: int = 0, *, jobs: tuple[str, ...] = (), queues: tuple[str, ...] | None = None
) -> Worker:
    return Worker(
        id=id,
        host="h",
        pid=1,
        version="0",
        file="f",
        concurrency=1,
        jobs=jobs,
        queues=queues,
        lease_s=30.0,
        started_at=START,
        beat=beat,
        beat_at=START,
    )


def test_who_has_beaten_since_it_was_seen_first_is_heard_of() -> None:
    watch = BeatWatch("own", pause_s=10.0)
    for turn, (beat, heard) in enumerate(((7, False), (7, False), (8, True), (8, True))):
        watch.observe([worker("own", turn), worker(beat=beat)], 10.0 * turn)
        assert watch.has_heard(worker()) == heard


def silent_at(times: list[float], beats: list[int], own: list[int] | None = None) -> list[float]:
    """The moments at which a worker with these beats is found silent, by one that beats each time, or like `own`."""
    watch = BeatWatch("own", pause_s=10.0)
    turns = zip(times, beats, own or range(len(times)), strict=True)
    return [time for time, beat, mine in turns if watch.observe([worker(beat=beat), worker("own", mine)], time)]


def test_a_worker_is_silent_after_a_whole_lease_without_a_beat() -> None:
    assert silent_at([0, 10, 20, 30, 40], [5, 5, 5, 5, 5]) == [30, 40]


def test_a_beat_starts_the_lease_anew() -> None:
    assert silent_at([0, 10, 20, 30, 40, 50], [5, 5, 5, 6, 6, 6]) == []


def test_a_gap_in_which_nobody_watched_counts_as_little() -> None:
    """The watcher was stopped, or the store locked, for ten minutes: nobody could beat, so nobody is dead."""
    assert silent_at([0, 600, 610], [5, 5, 6]) == []
    assert silent_at([0, 600], [5, 5]) == []


def test_time_in_which_the_watcher_could_not_beat_counts_as_little() -> None:
    """A full disk: it is looked at again and again, and nobody can write."""
    times = [0.0, 10, 20, 30, 40, 50, 60, 70]
    assert silent_at(times, [5, 5, 5, 5, 5, 5, 5, 6], own=[1, 1, 1, 1, 1, 1, 2, 3]) == []
    assert silent_at(times, [5] * 8, own=[1, 1, 1, 1, 2, 3, 4, 5]) == [60, 70]


def test_a_watcher_that_nobody_knows_judges_nobody_and_beats_anew() -> None:
    watch = BeatWatch("own", pause_s=10.0)
    assert [watch.observe([worker("a")], 10.0 * turn) for turn in range(5)] == [[]] * 5
    for turn, (beat, silent) in enumerate(((7, []), (8, []), (1, []), (2, [worker("a")]))):
        assert watch.observe([worker("a"), worker("own", beat)], 50.0 + 10 * turn) == silent


def test_a_worker_that_is_seen_anew_has_a_whole_lease() -> None:
    watch = BeatWatch("own", pause_s=10.0)
    for turn in range(3):
        watch.observe([worker("a"), worker("own", turn)], 10.0 * turn)
    assert watch.observe([worker("b"), worker("own", 3)], 30.0) == []
    assert watch.observe([worker("a"), worker("b"), worker("own", 4)], 40.0) == []


def test_what_is_served_is_told_by_queue() -> None:
    both = [
        worker("a", jobs=("x",), queues=("q", "r")),
        worker("b", jobs=("y",)),
        worker("c", jobs=("z",), queues=("q",)),
    ]
    assert served_by(both) == {"q": {"x", "z"}, "r": {"x"}, "*": {"y"}}
    assert served_by([]) is None


def test_an_env_file_is_read_as_systemd_and_docker_do(tmp_path: Path) -> None:
    path = tmp_path / "job.env"
    path.write_text("# a comment\n\nexport A=1\nB = two words \nC='$HOME \"x\"'\nD=\nE=a=b\n")
    assert read_env_file(path) == {"A": "1", "B": "two words", "C": '$HOME "x"', "D": "", "E": "a=b"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"novalue\n", "line 1: expected NAME=value"),
        (b"=x\n", "line 1"),
        (b"A=\xff\n", "UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_wrong_env_file_is_named_with_its_reason(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "job.env"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EnvFileError, match=expected) as caught:
        read_env_file(path)
    assert str(path) in str(caught.value)


def test_the_worker_record_travels_unchanged() -> None:
    assert msgspec.convert(msgspec.to_builtins(worker()), Worker) == worker()
