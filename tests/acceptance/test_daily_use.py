"""How a user uses it: `worker start`, `enqueue fetch --priority 10`, `events --follow`, in the repository's example."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import Project, eventually

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def example(project: Project) -> Project:
    """The repository's own jobs.toml and what it runs, copied to a folder elsewhere."""
    shutil.copy(REPOSITORY / "jobs.toml", project.dir)
    shutil.copytree(REPOSITORY / "examples", project.dir / "examples")
    shutil.copy(REPOSITORY / "README.md", project.dir)
    return project


def test_three_commands_are_all_that_a_user_needs(example: Project) -> None:
    with example.worker() as worker:
        follower = example.popen("events", "--follow")
        eventually(lambda: len(list(example.store.with_name("bell").iterdir())) == 2)  # the worker listens, and it
        run = example.enqueue("fetch", "--priority", "10")
        example.reaches(run, "succeeded")
        assert (example.dir / "build" / "page.html").read_text() == (example.dir / "examples" / "page.html").read_text()
        assert example.run(run)["priority"] == 10
        follower.send_signal(signal.SIGINT)
        out, _ = follower.communicate(timeout=20)
        lines = [line for line in out.decode().splitlines() if run[:8] in line]
        assert [word for line in lines for word in line.split() if word in {"enqueued", "executing", "complete"}] == [
            "enqueued",
            "executing",
            "complete",
        ]
        assert follower.returncode == 130
        assert str(example.store) in worker.log


def test_every_job_of_the_example_runs_without_parameters(example: Project) -> None:
    names = [job["name"] for job in example.cli("jobs", "--json").json["jobs"]]
    assert set(names) == {"fetch", "words", "archive", "flaky", "slow", "heartbeat", "report"}
    runs = {name: example.enqueue(name) for name in names if name != "slow"}
    runs["slow"] = example.enqueue("slow", "steps=1")
    with example.worker():
        for run in runs.values():
            example.reaches(run, "succeeded")
    assert example.run(runs["flaky"])["attempt"] == 3
    assert example.run(runs["words"])["result"]["words"] > 0


def test_the_pipeline_of_the_example_hands_its_results_on(example: Project) -> None:
    with example.worker():
        example.cli("enqueue", "survey", "out=build/s", "--wait")
    words, packed = json.loads((example.dir / "build" / "s.json").read_text())
    assert words["words"] > 0
    assert packed.startswith("packed examples: ")


def test_check_finds_nothing_wrong_with_the_example(example: Project) -> None:
    result = example.cli("check")
    assert len(result.out.splitlines()) == 1, result
    assert not result.err, result


def test_what_init_writes_is_right_and_its_jobs_run(project: Project) -> None:
    project.cli("init")
    project.cli("check")
    names = [job["name"] for job in project.cli("jobs", "--json").json["jobs"]]
    assert names
    with project.worker():
        for name in names:
            project.reaches(project.enqueue(name), "succeeded")


def test_the_schema_needs_nothing_and_is_a_file_for_editors(project: Project) -> None:
    said = project.cli("schema")
    assert said.json["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"jobs", "pipelines", "schedules"} <= said.json["properties"].keys()
    assert said.raw.endswith(b"\n}\n"), "a document with line ends, for people to read"
    assert said.raw.isascii()
    assert not said.err
    assert project.cli("schema", "--json").raw == said.raw
    assert list(project.dir.iterdir()) == []


def test_init_leaves_a_file_alone_that_is_there(project: Project) -> None:
    project.write("# mine\n")
    result = project.cli("init", code=1)
    assert "jobs.toml" in result.err
    assert (project.dir / "jobs.toml").read_text() == "# mine\n"


def test_the_demo_plays_to_its_end(installed: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [installed / "python", REPOSITORY / "examples" / "demo.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 60
    assert "$ hueyctl enqueue fetch" in done.stdout
    assert "retrying" in done.stdout
    assert "revoked" in done.stdout
    assert "2027-03-28T03:00:00+02:00  moved by the clock change" in done.stdout
    assert "by schedule heartbeat" in done.stdout
    assert "├─" in done.stdout


def test_the_example_has_a_heartbeat_a_night_in_a_time_zone_and_a_single_time(example: Project) -> None:
    listed = {each["name"]: each for each in example.cli("schedule", "list", "--json").json["schedules"]}
    assert listed["heartbeat"]["every"] == 15
    nightly = listed["nightly"]
    assert (nightly["cron"], nightly["timezone"], nightly["catch_up"]) == ("30 4 * * *", "Europe/Berlin", "latest")
    assert listed["new-decade"]["next"] == "2030-01-01T08:00:00Z"


def test_the_file_is_found_from_a_folder_below_it(example: Project) -> None:
    below = example.dir / "some" / "where"
    below.mkdir(parents=True)
    run = example.cli("enqueue", "fetch", cwd=below).out.strip()
    example.burst()
    assert example.run(run)["state"] == "succeeded"
    assert example.store.exists()


def test_a_file_elsewhere_is_named_by_option_or_variable(example: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = str(example.dir / "jobs.toml")
    by_option = example.cli("--file", path, "enqueue", "fetch", cwd=elsewhere).out.strip()
    by_variable = example.cli("enqueue", "fetch", cwd=elsewhere, env={"HUEYCTL_FILE": path}).out.strip()
    assert {run["id"] for run in example.runs() if run["schedule"] is None} == {by_option, by_variable}


def test_the_store_can_lie_elsewhere(example: Project, tmp_path: Path) -> None:
    store = tmp_path / "stores" / "mine.db"
    run = example.cli("enqueue", "fetch", env={"HUEYCTL_STORE": str(store)}).out.strip()
    assert store.exists()
    assert not example.store.exists()
    listed = example.cli("runs", "--json", env={"HUEYCTL_STORE": str(store)}).json["runs"]
    assert [row["id"] for row in listed] == [run]


def test_the_store_is_for_its_owner_alone_and_out_of_version_control(example: Project) -> None:
    example.enqueue("fetch")
    assert example.store.parent.stat().st_mode & 0o777 == 0o700
    assert (example.store.parent / ".gitignore").read_text().strip() == "*"


def test_the_worker_says_where_its_store_is_and_whether_it_is_new(example: Project) -> None:
    first = example.burst()
    assert str(example.store) in first
    assert "new" in first
    second = example.burst()
    assert str(example.store) in second
    assert "new" not in second


def test_a_run_in_json_has_exactly_these_keys(example: Project) -> None:
    run = example.enqueue("words", "top=1")
    example.burst()
    found = example.run(run)
    assert (
        list(found)
        == (
            "id job state priority queue attempt retries_left losses params result result_error exit_code error reason "
            "trigger schedule scheduled_at pipeline worker enqueued_at due_at started_at finished_at"
        ).split()
    )
    assert found["id"] == run
    assert found["params"] == {"path": "README.md", "top": 1}
    assert found["enqueued_at"].endswith("Z")
    assert found["schedule"] is None


def test_an_event_in_json_has_exactly_these_keys(example: Project) -> None:
    run = example.enqueue("fetch")
    (event,) = example.events("--run", run)
    assert list(event) == ("schema seq time type state run job attempt worker schedule slot pipeline by data".split())
    assert (event["schema"], event["type"], event["state"]) == (1, "enqueued", "queued")
    assert "@" in event["by"]


def test_a_run_is_named_by_prefix_by_job_or_as_the_last(example: Project) -> None:
    first = example.enqueue("fetch")
    last = example.enqueue("archive")
    assert example.run(first[:8])["id"] == first
    assert example.run(first[:4])["id"] == first
    assert example.run("last")["id"] == last
    example.cli("revoke", "fetch")
    assert example.run(first)["state"] == "revoked"
    assert example.run(last)["state"] == "queued"


def test_a_batch_is_taken_in_whole_or_not_at_all(example: Project) -> None:
    good = '{"job": "fetch", "params": {"out": "a"}, "priority": 5}\n{"job": "words"}\n'
    ids = example.cli("enqueue", "--batch", "-", stdin=good).out.split()
    assert [example.run(id)["job"] for id in ids] == ["fetch", "words"]
    assert example.run(ids[0])["priority"] == 5
    bad = example.cli("enqueue", "--batch", "-", stdin=good + '{"job": "fetsh"}\n', code=3)
    assert "3" in bad.err
    assert "fetsh" in bad.err
    broken = example.cli("enqueue", "--batch", "-", stdin=good + '{"job": "fetch", "params": {"colour": 1}}\n', code=2)
    assert "colour" in broken.err
    assert len(example.runs()) == 2


def test_an_id_given_twice_means_one_run(example: Project) -> None:
    id = "0c5b9ac8-6e0b-4b1e-9a3e-6a3f6a2f9d11"
    assert example.enqueue("fetch", "--id", id) == id
    assert example.enqueue("fetch", "--id", id) == id
    assert len(example.runs()) == 1
    example.cli("enqueue", "fetch", "out=other", "--id", id, code=1)
    example.cli("enqueue", "words", "--id", id, code=1)
    assert len(example.runs()) == 1


def test_logs_and_result_give_what_a_run_printed_and_returned(project: Project) -> None:
    project.write(
        """
        [jobs.two]
        script = "echo out $HUEYCTL_ATTEMPT; echo err $HUEYCTL_ATTEMPT >&2; [ $HUEYCTL_ATTEMPT = 2 ]"
        retries = 1
        [jobs.json]
        command = ["printf", '{"a": [1, 2]}']
        result = "json"
        """
    )
    run, document = project.enqueue("two"), project.enqueue("json")
    project.burst()
    last = project.cli("logs", run)
    assert "out 2" in last.out
    assert "out 2" in project.cli("logs", run, "--attempt", "2").out
    first = project.cli("logs", run, "--attempt", "1")
    assert "out 1" in first.out
    assert "err 1" in first.out + first.err
    assert project.cli("result", run).out == "out 2\n"
    assert project.run(run)["result"] == "out 2"
    assert project.run(document)["result"] == {"a": [1, 2]}
    assert json.loads(project.cli("result", document).out) == {"a": [1, 2]}


def test_logs_follow_a_run_until_it_ends(project: Project) -> None:
    project.write(
        """
        [jobs.steps]
        script = "echo one; until [ -e go ]; do sleep 0.05; done; echo two"
        """
    )
    with project.worker():
        run = project.enqueue("steps")
        eventually(lambda: "one" in project.cli("logs", run).out)
        follower = project.popen("logs", run, "-f")
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"one\n"
        (project.dir / "go").touch()
        assert follower.stdout.read() == b"two\n"
        assert follower.wait(20) == 0
        follower.communicate()


def test_logs_of_what_still_runs_hold_back_what_may_be_half_of_a_secret(project: Project) -> None:
    project.write(
        """
        [jobs.half]
        script = 'printf "so far ${PARAM_TOKEN:0:5}"; until [ -e go ]; do sleep 0.05; done; printf "${PARAM_TOKEN:5}"'
        params = { token = { type = "string", secret = true, required = true } }
        """
    )
    with project.worker():
        run = project.enqueue("half", "token=abcdefghij")
        eventually(lambda: "so far" in project.cli("logs", run).out)
        assert project.cli("logs", run).out == "so far "
        assert project.cli("logs", run, "-n", "1").out == "so far "
        (project.dir / "go").touch()
        project.reaches(run, "succeeded")
    assert project.cli("logs", run).out == project.cli("logs", run, "-n", "1").out == "so far ***"


def test_progress_is_seen_while_a_run_goes_on(project: Project) -> None:
    project.write(
        """
        [jobs.steps]
        params = { token = { secret = true, default = "sesame" } }
        script = 'echo "40/100 resizing by $PARAM_TOKEN" > $HUEYCTL_PROGRESS; until [ -e go ]; do sleep 0.05; done'
        """
    )
    with project.worker():
        run = project.enqueue("steps")
        eventually(lambda: "40/100 (40%) resizing by ***" in project.cli("inspect", run).out)
        assert "40/100 (40%) resizing by ***" in project.cli("inspect").out
        progress = project.cli("inspect", run, "--json").json["progress"]
        assert progress == {"done": 40, "total": 100, "text": "resizing by ***"}
        (project.dir / "go").touch()
        project.reaches(run, "succeeded")


def test_pausing_a_job_a_queue_or_all_holds_back_what_is_new_and_nothing_else(project: Project) -> None:
    project.write(
        """
        [jobs.one]
        command = ["true"]
        [jobs.two]
        command = ["true"]
        queue = "other"
        """
    )
    with project.worker():
        project.cli("pause", "--job", "one", "--note", "until monday")
        held, free = project.enqueue("one"), project.enqueue("two")
        project.reaches(free, "succeeded")
        assert project.run(held)["state"] == "queued"
        assert "until monday" in project.cli("inspect", held).out
        assert "until monday" in project.cli("inspect").out
        project.cli("resume", "--job", "one")
        project.reaches(held, "succeeded")

        project.cli("pause", "--queue", "other")
        held, free = project.enqueue("two"), project.enqueue("one")
        project.reaches(free, "succeeded")
        assert project.run(held)["state"] == "queued"
        project.cli("resume", "--queue", "other")
        project.reaches(held, "succeeded")

        project.cli("pause")
        first, second = project.enqueue("one"), project.enqueue("two")
        assert project.run(first)["state"] == "queued"
        project.cli("resume")
        project.reaches(first, "succeeded")
        project.reaches(second, "succeeded")
    types = [event["type"] for event in project.events() if event["type"] in {"paused", "resumed"}]
    assert types == ["paused", "resumed"] * 3


def test_a_run_here_and_now_leaves_nothing_behind(project: Project) -> None:
    project.write(
        """
        [jobs.greet]
        command = ["echo", "hello {name}"]
        params = { name = "world" }
        """
    )
    result = project.cli("run", "greet", "name=you")
    assert result.out == "hello you\n"
    assert len(result.err.splitlines()) == 1, result
    assert not project.store.exists()
