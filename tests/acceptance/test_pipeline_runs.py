"""Pipelines with real workers: what steps hand to each other, and that a kill at any point of one loses nothing."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from harness import Project

STEPS = """
    def double(input): return input * 2
    def join(input): return "+".join(input)
    def ignore(): return {"n": 1}
    """


def result(project: Project, run: str) -> bytes:
    return project.cli("result", run).raw


def steps(project: Project, pipeline: str) -> list[dict[str, Any]]:
    """The runs of a pipeline's steps, in the order in which they were accepted."""
    return [run for run in project.runs()[::-1] if run["pipeline"] == pipeline and run["id"] != pipeline]


def test_results_go_from_step_to_step_as_what_they_are(project: Project) -> None:
    project.file("acme.py", STEPS)
    project.write("""
        [jobs.number]
        script = "echo 21"
        result = "json"

        [jobs.double]
        python = "acme:double"

        [jobs.double_here]
        python = "acme:double"
        isolation = "thread"

        [jobs.ignore]
        python = "acme:ignore"

        [jobs.read_it]
        script = 'read -r line; echo "$line, $HUEYCTL_SCHEDULE"'

        [jobs.bytes]
        script = 'printf "\\\\377\\\\0\\\\n"'

        [jobs.dump]
        script = "od -An -tx1"

        [jobs.nothing]
        command = ["true"]

        [jobs.count]
        command = ["wc", "-c"]

        [jobs.list]
        command = ["cat"]

        [pipelines.values]
        steps = ["number", "double", "double_here", "read_it"]

        [pipelines.exact]
        steps = ["bytes", "dump"]

        [pipelines.empty]
        steps = ["nothing", "count"]

        [pipelines.several]
        steps = ["number", ["ignore", "read_it", "nothing"], "list"]

        [schedules.nightly]
        pipeline = "values"
        every = "1000d"
        """)
    values, exact, empty, several = map(project.enqueue, ("values", "exact", "empty", "several"))
    scheduled = project.cli("schedule", "trigger", "nightly").out.strip()
    project.burst()
    assert result(project, values) == b"84, \n"
    assert result(project, scheduled) == b"84, nightly\n"
    assert result(project, exact) == b" ff 00 0a\n"
    assert result(project, empty) == b"0\n"
    assert json.loads(result(project, several)) == [{"n": 1}, "21, ", ""]
    assert not list(project.store.parent.rglob("*.in"))


def test_what_is_too_large_to_be_handed_on_fails_who_needs_it_with_that_reason(project: Project) -> None:
    project.write("""
        [worker]
        result_max = 1000

        [jobs.large]
        script = "head -c 2000 /dev/zero"

        [jobs.take]
        command = ["cat"]

        [pipelines.etl]
        steps = ["large", "take", "take"]
        """)
    pipeline = project.enqueue("etl")
    project.burst()
    large, take, after = steps(project, pipeline)
    reason = "the result of step 1 (large) can't be handed on: the result has 2000 bytes, more than result_max (1000)"
    assert (large["state"], take["state"], take["attempt"], take["reason"]) == ("succeeded", "failed", 0, reason)
    assert (after["state"], after["reason"]) == ("skipped", f"step 2 (take) failed: {reason}")
    assert project.run(pipeline)["reason"] == f"step 2 (take) failed: {reason}"


# Each of these kills a worker, the first before anything was done and the last right after something was.
POINTS = ("claim.before", "claim.after", "rescue.before", "rescue.after", "settle.before", "settle.after")


@pytest.mark.timeout(300)
def test_a_kill_at_every_point_of_a_fan_in_loses_nothing_and_repeats_nothing_that_was_recorded(
    project: Project,
) -> None:
    """Worker after worker is killed, at each point once for every step that ends, until the pipeline has succeeded."""
    project.file("acme.py", STEPS)
    project.write("""
        [defaults]
        crash_limit = 100

        [jobs.first]
        script = 'echo "$HUEYCTL_RUN_ID" >> marks; echo 1'

        [jobs.side]
        script = 'echo "$HUEYCTL_RUN_ID" >> marks; read -r n; echo "$n-$PARAM_NAME"'
        params = { name = "" }

        [jobs.join]
        python = "acme:join"

        [pipelines.fan]
        steps = ["first", [
            { job = "side", params = { name = "a" } },
            { job = "side", params = { name = "b" } },
        ], "join"]
        """)
    pipeline = project.enqueue("fan")
    kills = Counter[str]()
    while project.run(pipeline)["state"] != "succeeded":
        assert kills["settle.after"] < 4, "each of these workers has brought a step to its end"
        for point in POINTS:
            worker = project.start("--burst", "-c", "2", env={"HUEYCTL_FAILPOINTS": f"{point}=kill@1"})
            worker.ended()
            kills[point] += f"failpoint {point}: kill" in worker.log
    project.burst()
    assert min(kills[point] for point in POINTS) >= 3, kills
    assert result(project, pipeline) == b'"1-a+1-b"\n'
    assert Counter(event["run"] for event in project.events("--type", "complete")) == Counter(
        [pipeline, *(run["id"] for run in steps(project, pipeline))]
    )
    started = Counter(project.lines("marks"))
    lost = Counter(event["run"] for event in project.events("--type", "lost"))
    for run in steps(project, pipeline):
        assert run["attempt"] == 1 + lost[run["id"]]
        assert started[run["id"]] <= run["attempt"]
