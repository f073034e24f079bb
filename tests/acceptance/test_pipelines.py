"""Pipelines with real workers: results are handed on, branches meet, and what failed is taken up where it failed."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from harness import Project, eventually

JOBS = """
    [worker]
    result_max = "64KB"

    [jobs.fetch]
    command = ["echo", "{number}"]
    params = { number = { type = "integer", required = true } }

    [jobs.double]
    python = "mine:double"
    params = { by = 2 }

    [jobs.quick]
    python = "mine:double"
    isolation = "thread"

    [jobs.check]
    script = 'read -r number; echo "checked $number"'

    [jobs.gate]
    script = 'cat; test -e open'

    [jobs.slow]
    script = 'echo started >> slow; while test ! -e go; do sleep 0.05; done'

    [jobs.big]
    script = 'head -c 100000 /dev/zero | tr "\\\\0" x'

    [jobs.count]
    script = 'wc -c'

    [jobs.store]
    script = 'cat > stored; echo "$HUEYCTL_TRIGGER ${HUEYCTL_SCHEDULED_AT:-none}"'

    [pipelines.line]
    params = { number = 5, by = 3 }
    steps = [
        { job = "fetch", params = { number = "{number}" } },
        { job = "double", params = { by = "{by}" } },
        "quick",
        "store",
    ]

    [pipelines.fan]
    steps = [{ job = "fetch", params = { number = 7 } }, ["check", ["double", "quick"], "gate"], "store"]

    [pipelines.stop]
    steps = [["slow", "slow"], "store"]

    [pipelines.large]
    steps = ["big", "count"]

    [schedules.line]
    every = "1h"
    params = { number = 40 }
    """
MINE = """
    def double(input, by=2):
        number = input["is"] if isinstance(input, dict) else int(input)
        return {"is": number * by}
    """


@pytest.fixture(autouse=True)
def _jobs(project: Project) -> None:
    project.write(JOBS)
    project.file("mine.py", MINE)


def steps(project: Project, run: str) -> list[dict[str, Any]]:
    return [step["run"] for step in project.cli("inspect", run, "--json").json["steps"]]


def states(project: Project, run: str) -> list[str]:
    return [step["state"] for step in steps(project, run)]


def test_results_go_from_a_command_through_python_to_a_script_typed_and_whole(project: Project) -> None:
    """A command's text is `input`, a function's value is the next one's (in a child and in a thread alike), and JSON on
    a script's stdin."""
    with project.worker():
        id = project.cli("enqueue", "line", "number=10", "--wait").out.strip()
        assert states(project, id) == ["succeeded"] * 4
        assert json.loads((project.dir / "stored").read_text()) == {"is": 60}
        assert project.cli("result", id).out == "manual none\n"
        assert [run["result"] for run in steps(project, id)] == ["10", {"is": 30}, {"is": 60}, "manual none"]


def test_branches_run_side_by_side_and_meet_with_their_results_in_the_order_of_the_steps(project: Project) -> None:
    (project.dir / "open").touch()
    id = project.enqueue("fan")
    project.burst()
    assert project.run(id)["state"] == "succeeded"
    assert json.loads((project.dir / "stored").read_text()) == ["checked 7", {"is": 28}, "7"]
    executing = [event["job"] for event in project.events("--run", id, "--type", "executing")]
    assert sorted(executing) == sorted(["fan", "fetch", "check", "double", "quick", "gate", "store"])
    assert executing[-1] == "store"


def test_a_step_that_fails_skips_what_waits_for_it_and_a_retry_goes_on_from_there(project: Project) -> None:
    with project.worker():
        failed = project.cli("enqueue", "fan", "--wait", code=1)
        id = failed.out.strip()
        assert states(project, id) == ["succeeded"] * 4 + ["failed", "skipped"]
        gate, store = steps(project, id)[-2:]
        line = f"run {id[:8]} of fan failed: step 5 (gate) failed: exited with 1; hueyctl logs {gate['id'][:8]}"
        assert failed.err.splitlines()[-1] == f"hueyctl: {line}"
        assert store["reason"] == "step 5 (gate) failed: exited with 1"
        assert not (project.dir / "stored").exists()

        (project.dir / "open").touch()
        project.cli("retry", id)
        project.cli("wait", id, "--timeout", "20s")
        assert states(project, id) == ["succeeded"] * 6
        assert [run["attempt"] for run in steps(project, id)] == [1, 1, 1, 1, 2, 1]
        assert json.loads((project.dir / "stored").read_text()) == ["checked 7", {"is": 28}, "7"]


def test_revoking_a_pipeline_stops_what_runs_of_it_and_starts_nothing_more(project: Project) -> None:
    with project.worker():
        id = project.enqueue("stop")
        eventually(lambda: len(project.lines("slow")) == 2)
        assert project.run(id)["state"] == "running"
        refused = project.cli("revoke", id, code=1)
        assert f"hueyctl revoke --kill {id[:8]}" in refused.err
        assert project.cli("revoke", id, "--kill", "--timeout", "20s").out == f"revoked {id[:8]} stop\n"
        assert states(project, id) == ["revoked"] * 3
        assert project.run(id)["state"] == "revoked"
    assert not (project.dir / "stored").exists()


def test_what_is_too_large_to_hand_on_fails_at_the_receiver_and_says_so(project: Project) -> None:
    id = project.enqueue("large")
    project.burst()
    big, count = steps(project, id)
    assert (big["state"], big["result"], count["state"], count["attempt"]) == ("succeeded", None, "failed", 0)
    assert "the result of step 1 (big) can't be handed on" in count["reason"]
    assert project.run(id)["state"] == "failed"


def test_a_schedule_starts_a_pipeline_whose_steps_know_their_slot(project: Project) -> None:
    id = project.cli(
        "schedule", "backfill", "line", "--from", "2026-03-01T10:00Z", "--to", "2026-03-01T10:00Z"
    ).out.strip()
    project.burst()
    whole = project.run(id)
    assert (whole["state"], whole["schedule"], whole["scheduled_at"]) == ("succeeded", "line", "2026-03-01T10:00:00Z")
    assert project.cli("result", id).out == "backfill 2026-03-01T10:00:00Z\n"
    assert json.loads((project.dir / "stored").read_text()) == {"is": 240}


def test_a_pipeline_is_enqueued_and_waited_for_from_python(project: Project, installed: Any) -> None:
    code = """
        import hueyctl
        queue = hueyctl.open_queue()
        assert queue.pipelines == ("line", "fan", "stop", "large")
        ended = queue.run("line", number=2, wait_timeout=20)
        assert (ended.is_pipeline, ended.result) == (True, "manual none"), ended
        try:
            queue.run("large", wait_timeout=20)
        except hueyctl.HueyctlError as error:
            print(error.message)
        print(queue.get("large").state)
        """
    script = project.file("use.py", code)
    with project.worker():
        done = subprocess.run(
            [installed / "python", script],
            cwd=project.dir,
            env=project.env,
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr.decode()
    failed, state = done.stdout.decode().splitlines()
    assert "of large failed: step 2 (count) failed: the result of step 1 (big) can't be handed on" in failed
    assert state == "failed"
