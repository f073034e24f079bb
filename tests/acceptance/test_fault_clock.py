"""A clock that is set back and forward by an hour, and a jobs.toml that is emptied, under a worker at work."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from harness import Project, eventually

JOBS = """
    [worker]
    lease = "4s"

    [jobs.gate]
    script = 'echo "started" >> marks; until [ -e "$PARAM_UNTIL" ]; do sleep 0.02; done'
    params = { until = "go" }

    [jobs.mark]
    script = 'echo "$PARAM_NAME" >> marks'
    params = { name = "x" }
    """

# The wall clock of whoever it is loaded into, shifted by the seconds that a file says; every other clock is left alone.
SHIFTED_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
    char text[32] = {0};
    const char *path = getenv("SHIFTED_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    if (read(fd, text, sizeof text - 1) < 0) text[0] = 0;
    close(fd);
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = next(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec fine;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &fine);
    now->tv_sec = fine.tv_sec, now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture
def set_clock(project: Project, tmp_path: Path) -> Callable[[int], None]:
    """Sets the clock of everything that the project runs: by seconds from the true time."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler: the clock can't be shifted")
    source, library, shift = tmp_path / "clock.c", tmp_path / "clock.so", tmp_path / "shift"
    source.write_text(SHIFTED_CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)

    def set_clock(seconds: int) -> None:
        new = tmp_path / "shift.new"
        new.write_text(str(seconds))
        new.rename(shift)

    set_clock(0)
    project.env |= {"LD_PRELOAD": str(library), "SHIFTED_CLOCK": str(shift)}
    return set_clock


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_is_set_rescues_kills_and_loses_nothing(
    project: Project, set_clock: Callable[[int], None], seconds: int
) -> None:
    project.write(JOBS)
    with project.worker("-c", "2") as worker, project.worker("-c", "2") as other:
        before = project.enqueue("gate")
        eventually(lambda: project.lines("marks") == ["started"])
        tomorrow = project.enqueue("mark", "name=tomorrow", "--delay", "1d")
        set_clock(seconds)
        after = project.enqueue("mark", "name=after")
        project.reaches(after, "succeeded")
        for _ in range(4):  # more than a lease of the true clock: both workers beat on
            _all_have_beaten(project)
        project.reaches(project.enqueue("gate", "until=jobs.toml"), "succeeded")
        assert project.run(before)["state"] == "running"
        (project.dir / "go").touch()
        assert project.reaches(before, "succeeded")["attempt"] == 1
        assert project.run(tomorrow)["state"] == "scheduled"
        assert (worker.process.poll(), other.process.poll()) == (None, None)
        project.cli("worker", "status")
        events = project.events()  # now: of two that are killed, the second sees the first one's death
    assert {event["type"] for event in events} == {"worker-online", "enqueued", "scheduled", "executing", "complete"}
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
    # It was really set: what came after is an hour away from what came before.
    times = [event["time"][:13] for event in events if event["run"] in {before, after} and event["type"] == "enqueued"]
    assert times[0] != times[1]


def test_what_is_due_by_the_clock_becomes_due_when_the_clock_passes_it(
    project: Project, set_clock: Callable[[int], None]
) -> None:
    """A time that a user gave means the wall clock, whichever way it came there."""
    project.write(JOBS)
    with project.worker():
        run = project.enqueue("mark", "--delay", "59m")
        set_clock(-3600)
        assert project.reaches(project.enqueue("mark", "name=now"), "succeeded")["attempt"] == 1
        assert project.run(run)["state"] == "scheduled"
        set_clock(3600)
        assert project.reaches(run, "succeeded")["attempt"] == 1
    assert project.lines("marks") == ["now", "x"]


def test_slots_that_a_clock_jumps_over_are_missed_and_none_is_fired_again_when_it_goes_back(
    project: Project, set_clock: Callable[[int], None]
) -> None:
    """Forward by three slots, back by six, over a restart there, and forward again."""
    ten_minutes_from_here = (int(time.time()) + 600) % 1200  # so that no slot comes by itself
    project.write(JOBS + f"[schedules.mark]\nevery = '20m'\noffset = {ten_minutes_from_here}\n")

    def runs() -> list[str]:
        return sorted(run["scheduled_at"] for run in project.runs("--schedule", "mark"))

    def nothing_new() -> None:
        """A worker decides slots before it claims a run."""
        before = runs()
        project.reaches(project.enqueue("mark", "name=now"), "succeeded")
        assert runs() == before

    with project.worker():
        set_clock(3600)
        eventually(lambda: len(runs()) == 1, what="the latest of three slots is caught up with")
        set_clock(-3600)
        nothing_new()
    with project.worker() as worker:
        nothing_new()
        assert "which is ahead of this clock; until then nothing of it is fired" in worker.log
        set_clock(3600)
        nothing_new()
        set_clock(7200)
        eventually(lambda: len(runs()) == 2, what="the latest of the next three")
    missed = [event["slot"] for event in project.events("--type", "missed")]
    every = [datetime.fromisoformat(slot) for slot in sorted(runs() + missed)]
    assert len(missed) == 4
    assert [later - slot for slot, later in pairwise(every)] == [timedelta(minutes=20)] * 5


def test_a_file_that_defines_nothing_any_more_is_refused_while_a_worker_runs(project: Project) -> None:
    """Else every run that is queued would be held, for what may be half of a save."""
    project.write(JOBS)
    with project.worker("-c", "1") as worker:
        running = project.enqueue("gate")
        eventually(lambda: project.lines("marks") == ["started"])
        behind = project.enqueue("mark", "name=behind")
        for number, text in enumerate(("", "[worker]\nconcurrency = 2\n", "[jobs.mark\n"), start=1):
            project.write(text)
            worker.signal(signal.SIGHUP)
            eventually(lambda number=number: worker.log.count("not reloaded") == number)
        assert worker.log.count("it defines no job any more") == 2
        (project.dir / "go").touch()
        project.write(JOBS)
        project.reaches(behind, "succeeded")
        project.reaches(running, "succeeded")
    assert project.events("--type", "held") == []


def _all_have_beaten(project: Project) -> None:
    # Right after a step forward the last beat looks old, until the next one.
    rows = eventually(lambda: len(rows := project.workers()) == 2 and rows)
    before = {row["id"]: row["beat_at"] for row in rows}
    eventually(lambda: len(rows := project.workers()) == 2 and all(row["beat_at"] != before[row["id"]] for row in rows))
