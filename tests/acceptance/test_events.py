"""The event log is followed as it is written, without a gap and without a repeat."""

from __future__ import annotations

import json
import os
import threading

from harness import Project, eventually

JOBS = """
    [jobs.mark]
    script = 'echo "$PARAM_NAME" >> marks'
    params = { name = "x" }
    """


def test_the_event_log_is_followed_as_it_is_written(project: Project) -> None:
    project.write(JOBS)
    follower = None
    with project.worker():
        try:
            follower = project.popen("events", "--follow", "--json", "-n", "0", "--type", "enqueued,complete")
            assert follower.stdout is not None
            eventually(lambda: _listens(project, follower.pid))
            for _ in range(3):
                run = project.enqueue("mark")
                lines = [follower.stdout.readline() for _ in range(2)]
                assert [run in line.decode() for line in lines] == [True, True]
                assert [b'"enqueued"' in lines[0], b'"complete"' in lines[1]] == [True, True]
        finally:
            if follower:
                follower.kill()
                follower.communicate()


def test_reading_the_event_log_goes_on_where_it_stopped(project: Project) -> None:
    project.write(JOBS)
    for _ in range(5):
        project.enqueue("mark")
    everything = project.events()
    middle = everything[2]["seq"]
    assert project.events("--after", str(middle)) == everything[3:]
    last = project.cli("events", "--json", "-n", "2").json_lines
    assert last == everything[-2:]


def test_a_follower_misses_and_repeats_nothing_while_many_write(project: Project) -> None:
    project.write(JOBS + '\n[jobs.quick]\ncommand = ["true"]\n')
    project.enqueue("mark")
    last = project.events()[-1]["seq"]
    follower = project.popen("events", "--follow", "--json", "--after", str(last))
    assert follower.stdout is not None
    seen: list[dict[str, object]] = []
    reader = threading.Thread(target=lambda out: seen.extend(json.loads(line) for line in out), args=(follower.stdout,))
    reader.start()
    try:
        with project.worker(), project.worker():
            for _ in range(5):
                project.cli("enqueue", "--batch", "-", stdin='{"job": "quick"}\n' * 60)
            eventually(lambda: len(project.runs("--state", "succeeded")) == 301)
        written = project.events("--after", str(last))
        eventually(lambda: len(seen) >= len(written), what=f"{len(seen)} of {len(written)} events were followed")
    finally:
        follower.kill()
        follower.wait()
        reader.join()
        follower.communicate()
    assert seen == written


def test_a_follower_goes_on_when_what_it_has_read_is_pruned(project: Project) -> None:
    project.write(JOBS + '\n[worker]\nlease = "1s"\n[retention]\nevents = "1s"\nsucceeded = "1s"\nfailed = "1s"\n')
    follower = None
    with project.worker():
        try:
            first = project.enqueue("mark")
            follower = project.popen("events", "--follow", "--json", "-n", "0", "--type", "complete")
            assert follower.stdout is not None
            eventually(lambda: _listens(project, follower.pid))
            eventually(lambda: first not in {run["id"] for run in project.runs()}, what="the run is pruned")
            second = project.enqueue("mark")
            assert json.loads(follower.stdout.readline())["run"] == second
            eventually(lambda: not (project.store.parent / "output" / first).exists())
        finally:
            if follower:
                follower.kill()
                follower.communicate()


def test_events_are_chosen_by_type_job_run_and_time(project: Project) -> None:
    project.write(JOBS + '\n[jobs.other]\ncommand = ["true"]\n')
    one, other = project.enqueue("mark"), project.enqueue("other")
    project.burst()
    assert {event["run"] for event in project.events("--job", "mark")} == {one}
    assert {event["run"] for event in project.events("--run", other[:8])} == {other}
    types = {event["type"] for event in project.events("--type", "executing", "--type", "complete")}
    assert types == {"executing", "complete"}
    assert len(project.events("--since", "1h")) == len(project.events())
    assert project.events("--until", "1h") == []


def _listens(project: Project, pid: int) -> bool:
    bells = project.store.parent / "bell"
    return any(str(pid) in name for name in os.listdir(bells)) or len(os.listdir(bells)) >= 2
