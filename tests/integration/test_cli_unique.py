"""`unique`: one live run, whoever enqueues, however often, from wherever."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from shell import Shell

from hueyctl import open_queue
from hueyctl.model.run import RunState
from hueyctl.storage.store import RunFilter

JOBS = """
    [jobs.sync]
    script = "true"
    params = { tenant = "acme" }
    unique = "params"

    [jobs.all]
    script = "true"
    params = { tenant = "acme" }
    unique = "job"
    """


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write(JOBS)
    shell.register()


def test_the_id_of_the_run_that_stands_is_printed_and_json_says_that_it_stood(shell: Shell) -> None:
    first = shell.type("enqueue", "sync", "--json").json
    assert "existing" not in first
    assert shell.enqueue("sync", "tenant=acme") == first["run"]["id"]
    again = shell.type("enqueue", "sync", "--json")
    assert (again.json["run"]["id"], again.json["existing"]) == (first["run"]["id"], True)
    assert not again.err
    said = shell.type("enqueue", "sync", "--priority", "5")
    assert f"run {said.out[:8]} was there already (queued): nothing was added" in said.err
    assert shell.enqueue("sync", "tenant=b") != first["run"]["id"]


def test_it_is_free_again_when_the_run_has_ended_and_not_while_it_runs(shell: Shell) -> None:
    first = shell.enqueue("all")
    [claim] = shell.claim("all")
    assert shell.enqueue("all", "tenant=b") == first
    shell.settle(claim)
    assert shell.enqueue("all") != first


def test_a_batch_meets_itself_and_what_stands(shell: Shell) -> None:
    standing = shell.enqueue("sync")
    lines = [{"job": "sync"}, {"job": "sync", "params": {"tenant": "b"}}, {"job": "sync", "params": {"tenant": "b"}}]
    stdin = "\n".join(map(json.dumps, lines)).encode()
    runs = shell.type("enqueue", "--batch", "-", "--json", stdin=stdin).json["runs"]
    assert [run["id"] for run in runs] == [standing, runs[1]["id"], runs[1]["id"]]
    assert [run.get("existing") for run in runs] == [True, None, True]
    said = shell.type("enqueue", "--batch", "-", stdin=stdin)
    assert "3 of 3 were there already: nothing was added for them" in said.err


def test_the_python_api_returns_the_run_that_stands(shell: Shell) -> None:
    standing = shell.enqueue("sync")
    with open_queue(shell.dir / "jobs.toml") as queue:
        assert queue.enqueue("sync", tenant="acme").id == standing
        assert queue.enqueue("sync", tenant="b").id != standing


def test_processes_that_race_get_one_run(shell: Shell) -> None:
    """Eight processes, twenty times each, as fast as they can."""
    code = (
        "import sys\n"
        "from hueyctl import open_queue\n"
        "with open_queue(sys.argv[1]) as queue:\n"
        "    sys.stdin.read()\n"
        "    print(*(queue.enqueue('all', tenant=str(n)).id for n in range(20)))\n"
    )
    argv = [sys.executable, "-c", code, str(shell.dir / "jobs.toml")]
    racers = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=shell.env(), text=True)
        for _ in range(8)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
        racer.stdin = None
    ids = {id for racer in racers for id in racer.communicate(timeout=60)[0].split()}
    assert all(racer.returncode == 0 for racer in racers)
    assert len(ids) == 1
    with shell.store() as store:
        assert [run.id for run in store.runs(RunFilter(states=(RunState.QUEUED,)), limit=None)] == list(ids)
