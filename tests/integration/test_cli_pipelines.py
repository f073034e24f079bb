"""Pipelines from the shell: enqueued, read back, followed, changed and drawn, with a test in a worker's place."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from shell import Said, Shell, eventually

from hueyctl.app.session import who
from hueyctl.model.outcome import Raised
from hueyctl.model.transition import Final, Settlement
from hueyctl.storage.locks import hold

JOBS = """
    [jobs.fetch]
    command = ["true", "{url}"]
    params = { url = "x" }
    queue = "net"
    priority = 3

    [jobs.check]
    command = ["true"]
    description = "Look at it"

    [jobs.double]
    python = "acme:double"
    params = { by = 2 }

    [jobs.shrink]
    script = "gzip"

    [jobs.store]
    command = ["true", "{token}"]
    params = { token = { type = "string", default = "" } }

    [pipelines.etl]
    description = "All of it"
    steps = [
        { job = "fetch", params = { url = "{url}" } },
        ["check", [{ job = "double", params = { by = "{by}" } }, "shrink"]],
        { job = "store", params = { token = "{token}" } },
    ]

    [pipelines.etl.params]
    url = { required = true }
    by = 2
    token = { type = "string", secret = true, default = "hunter22" }

    [pipelines.fan]
    steps = [["fetch", "double"]]

    [schedules.etl]
    params = { url = "s" }
    every = "1h"
    priority = 9
    """
STEPS = ["fetch", "check", "double", "shrink", "store"]


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write(JOBS)


def plain(said: Said) -> list[str]:
    """What was printed, with single spaces."""
    return [re.sub(r"\s+", " ", line).strip() for line in said.out.splitlines()]


def steps_of(shell: Shell, run: str) -> list[dict[str, Any]]:
    return list(shell.type("inspect", run, "--json").json["steps"])


def states(shell: Shell, run: str) -> list[str]:
    return [step["run"]["state"] for step in steps_of(shell, run)]


def finish_all(shell: Shell, *jobs: str) -> None:
    """Let each of these jobs, one after the other, have its next run succeed."""
    for job in jobs:
        shell.finish(job, result=b'"of ' + job.encode() + b'"')


def test_a_pipeline_of_many_steps_does_not_flood_the_list_of_them(shell: Shell) -> None:
    shell.write(f"{JOBS}\n    [pipelines.long]\n    steps = {['check'] * 500}\n")
    assert max(map(len, plain(shell.type("jobs")))) < 300
    assert len(shell.type("jobs", "--json").json["pipelines"][2]["steps"]) == 500


# -- enqueued ---------------------------------------------------------------------------------------------------------


def test_enqueueing_a_pipeline_prints_the_id_of_the_whole_and_its_steps_are_there(shell: Shell) -> None:
    id = shell.enqueue("etl", "url=u", "by=4")
    whole = shell.run(id)
    assert (whole["id"], whole["job"], whole["pipeline"], whole["state"]) == (id, "etl", id, "waiting")
    assert whole["params"] == {"url": "u", "by": 4, "token": "***"}
    assert shell.type("inspect", id, "--json").json["by"] == who()
    assert f"by: {who()}" in plain(shell.type("inspect", id))
    steps = steps_of(shell, id)
    assert [(each["position"], each["job"], each["after"]) for each in steps] == [
        (0, "fetch", []),
        (1, "check", [0]),
        (2, "double", [0]),
        (3, "shrink", [2]),
        (4, "store", [1, 3]),
    ]
    assert [each["run"]["pipeline"] for each in steps] == [id] * 5
    assert [each["run"]["params"] for each in steps] == [{"url": "u"}, {}, {"by": 4}, {}, {"token": "***"}]
    assert [(each["run"]["queue"], each["run"]["priority"]) for each in steps[:2]] == [("net", 3), ("default", 0)]


def test_what_is_asked_for_a_pipeline_is_asked_for_its_steps(shell: Shell) -> None:
    steps = steps_of(shell, shell.enqueue("etl", "url=u", "--queue", "q", "--priority", "-1", "--delay", "1h"))
    assert [(each["run"]["queue"], each["run"]["priority"]) for each in steps] == [("q", -1)] * 5
    assert [each["run"]["state"] for each in steps] == ["scheduled"] + ["waiting"] * 4


def test_an_id_given_again_gives_the_pipeline_that_stands(shell: Shell) -> None:
    words = ["etl", "url=u", "--id", "7c1e2f6a-90d4-4c5b-8f3e-2a1b0c9d8e7f"]
    assert shell.enqueue(*words) == shell.enqueue(*words) == words[-1]
    assert len(shell.type("runs", "--json").json["runs"]) == 6
    assert "other parameters" in shell.type("enqueue", "etl", "url=v", *words[2:], code=1).err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["enqueue", "etl"], 2, 'etl: parameter "url" is required'),
        (["enqueue", "etl", "url=u", "ulr=v"], 2, 'there is no parameter "ulr"; did you mean "url"?'),
        (["enqueue", "etl", "url=u", "by=two"], 2, 'parameter "by": expected an integer'),
        (["enqueue", "etl", "url"], 2, "etl takes url, by, token"),
        (["enqueue", "etl", "url=u", "--retries", "3"], 2, "retries: a pipeline has none of its own"),
        (["enqueue", "etl", "url=u", "--timeout", "3s"], 2, "timeout: a pipeline has none of its own"),
        (["enqueue", "elt"], 3, 'there is no job "elt"; did you mean "etl"?'),
        (["run", "etl", "url=u"], 125, '"etl" is a pipeline, and no job'),
        (["inspect", "etll"], 3, 'there is no run or job "etll"; did you mean "etl"?'),
        (["logs", "etl"], 3, 'the pipeline "etl" has no runs yet'),
        (["pause", "--job", "etl"], 2, '"etl" is a pipeline, and has no switch of its own'),
        (["graph", "check"], 3, 'the job "check" has no runs yet'),
        (["runs", "--pipeline", "check"], 3, 'the job "check" has no runs yet'),
    ],
)
def test_what_cannot_be_done_with_a_pipeline_is_said(shell: Shell, words: list[str], code: int, said: str) -> None:
    shell.enqueue("fan")
    shell.type("revoke", "fan")
    if "check" not in words:
        assert said in shell.type(*words, code=code).err
    else:
        assert said in shell.type(*words, code=code).err
        assert shell.enqueue("check")
        assert "is no pipeline's" in shell.type(*words, code=3).err


def test_a_batch_takes_pipelines_among_jobs(shell: Shell) -> None:
    lines = b'{"job": "check"}\n{"job": "etl", "params": {"url": "u"}, "priority": 5}\n{"job": "fan"}\n'
    ids = shell.type("enqueue", "--batch", "-", stdin=lines).out.split()
    assert [shell.run(id)["job"] for id in ids] == ["check", "etl", "fan"]
    assert {step["run"]["priority"] for step in steps_of(shell, ids[1])} == {5}
    wrong = shell.type("enqueue", "--batch", "-", stdin=lines + b'{"job": "etl"}\n', code=2)
    assert 'line 4: etl: parameter "url" is required' in wrong.err
    assert len(shell.type("runs", "--json").json["runs"]) == 10, "nothing of it was enqueued"


def test_a_pipeline_that_nobody_will_run_is_warned_of_by_its_steps(shell: Shell) -> None:
    shell.register("w9", jobs=STEPS, queues=("default",))
    lock = hold(shell.place.worker_lock("w9"))
    said = shell.type("enqueue", "etl", "url=u").err
    lock.release()
    assert said.count("hueyctl:") == 1
    assert 'no live worker serves the queue "net"' in said


# -- read back --------------------------------------------------------------------------------------------------------


def test_last_and_the_name_of_a_pipeline_are_its_own_newest_run(shell: Shell) -> None:
    id = shell.enqueue("etl", "url=u")
    assert shell.run("last")["id"] == shell.run(id[:8])["id"] == id
    assert (
        shell.type("wait", "etl", "--timeout", "0.1", code=124)
        .err.splitlines()[1]
        .startswith(f"hueyctl: run {id[:8]} is still waiting")
    )
    assert shell.type("logs", "store", "--json").json["logs"]["run"] == steps_of(shell, id)[4]["run"]["id"]


def test_runs_say_which_pipeline_each_step_belongs_to(shell: Shell) -> None:
    alone = shell.enqueue("check")
    assert "PIPELINE" not in shell.type("runs").out
    id = shell.enqueue("etl", "url=u")
    lines = plain(shell.type("runs"))
    assert lines[0] == "RUN PIPELINE JOB STATE QUEUE PRIORITY ATTEMPT ENQUEUED TOOK REASON"
    steps = [each["run"]["id"] for each in steps_of(shell, id)]
    assert [line.split()[:3] for line in lines[1:]] == [
        *([run[:8], id[:8], job] for run, job in reversed(list(zip(steps, STEPS, strict=True)))),
        [id[:8], id[:8], "etl"],
        [alone[:8], "check", "queued"],
    ]
    for named in (id, steps[2]):
        listed = shell.type("runs", "--pipeline", named, "--json").json["runs"]
        assert [run["id"] for run in listed] == [*reversed(steps), id]
    waiting = shell.type("runs", "--pipeline", id, "--state", "waiting", "--json").json["runs"]
    assert [run["job"] for run in waiting] == ["store", "shrink", "double", "check", "etl"]


def test_a_waiting_step_says_what_it_waits_for_and_a_pipeline_which_step_keeps_it(shell: Shell) -> None:
    id = shell.enqueue("etl", "url=u")
    fetch, check, double, shrink, store = (each["run"]["id"] for each in steps_of(shell, id))

    def why(run: str) -> list[str]:
        return list(shell.type("inspect", run, "--json").json["why"])

    assert why(id) == [f"step fetch, {fetch[:8]}: no worker is running: `hueyctl worker start` starts one"]
    assert why(check) == [f"waiting for step fetch, {fetch[:8]}, which is queued"]
    assert why(store) == [
        f"waiting for step check, {check[:8]}, which waits itself",
        f"waiting for step shrink, {shrink[:8]}, which waits itself",
    ]
    assert f"pipeline: {id[:8]}: step 5 of 5 of etl" in plain(shell.type("inspect", store))
    (claim,) = shell.claim("fetch")
    assert why(double) == [f"waiting for step fetch, {fetch[:8]}, which is running"]
    shell.settle(claim)
    shell.finish("check")
    assert why(store) == [f"waiting for step shrink, {shrink[:8]}, which waits itself"]


def test_the_whole_of_a_pipelines_run_is_drawn_with_states(shell: Shell) -> None:
    id = shell.enqueue("etl", "url=u")
    finish_all(shell, "fetch", "check")
    shell.finish("double", code=3)
    runs = [each["run"]["id"][:8] for each in steps_of(shell, id)]
    lines = plain(shell.type("inspect", id))
    assert f"run: {id}" in lines
    assert {"pipeline: etl", "state: failed", "reason: step 3 (double) failed: exited with 3"} <= set(lines)
    tree = [re.sub(r" \d+ms", "", line) for line in lines[lines.index("steps") + 1 :]]
    reason = "step 3 (double) failed: exited with 3"
    assert tree == [
        "STEP RUN STATE ATTEMPT TOOK REASON",
        f"etl {id[:8]} failed {reason}",
        f"├─ fetch {runs[0]} succeeded 1",
        "├─ side by side",
        f"│ ├─ check {runs[1]} succeeded 1",
        "│ └─ one after the other",
        f"│ ├─ double {runs[2]} failed 1 exited with 3",
        f"│ └─ shrink {runs[3]} skipped 0 {reason}",
        f"└─ store {runs[4]} skipped 0 {reason}",
    ]
    for named in (id, "etl", runs[3]):
        drawn = plain(shell.type("graph", named))
        if named != "etl":  # the name means the definition
            assert [re.sub(r" \d+ms", "", line) for line in drawn] == tree


def test_a_definition_is_inspected_listed_checked_and_drawn(shell: Shell) -> None:
    shell.write("def double(input, by): ...\n", "acme.py")
    assert shell.type("check", "--json").json["check"]["pipelines"] == 2
    assert "5 jobs, 2 pipelines, 1 schedule, ok" in shell.type("check").out
    listed = plain(shell.type("jobs"))
    steps = "fetch → (check | double → shrink) → store"
    assert f"etl {steps} url [by=2] [token=***] All of it" in listed
    etl, fan = shell.type("jobs", "--json").json["pipelines"]
    assert (etl["name"], fan["steps"]) == ("etl", [[{"job": "fetch", "params": {}}, {"job": "double", "params": {}}]])
    assert [param["default"] for param in etl["params"]] == [None, 2, "***"]

    drawn = plain(shell.type("graph", "etl"))
    assert drawn[:3] == ["STEP PARAMS DESCRIPTION", "etl", "├─ fetch url={url}"]
    assert drawn[4] == "│ ├─ check Look at it"
    inspected = shell.type("inspect", "etl")
    assert set(drawn) <= set(plain(inspected))
    assert "every 1h" in inspected.out
    id = shell.enqueue("etl", "url=u")
    found = shell.type("inspect", "etl", "--json").json
    assert (found["pipeline"], [run["id"] for run in found["runs"]]) == (etl, [id])
    assert [each["name"] for each in found["schedules"]] == ["etl"]
    assert id[:8] in shell.type("inspect", "etl").out


@pytest.mark.parametrize("words", [["jobs"], ["enqueue", "p"], ["graph", "p"]])
def test_lists_may_be_nested_as_deep_as_a_file_can_be_read(shell: Shell, words: list[str]) -> None:
    deep = '["check", ' * 480 + '"check"' + "]" * 480
    shell.write(f'[jobs.check]\nscript = "true"\n[pipelines.p]\nsteps = {deep}\n')
    process = shell.spawn(*words, "--json")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    if words[0] == "graph":
        steps = json.loads(out)["graph"]["steps"]
        assert (len(steps), len({tuple(step["after"]) for step in steps})) == (481, 241)


def test_a_run_of_a_pipeline_is_drawn_although_the_definition_has_gone_or_changed(shell: Shell) -> None:
    id = shell.enqueue("etl", "url=u")
    before = shell.type("graph", id, "--json").json
    shell.write(
        JOBS.replace('["check", [{', "[[{")
        .replace("[schedules.etl]", "[schedules.etl]\njob = 'check'\n")
        .replace("pipelines.etl", "pipelines.other")
        .replace('params = { url = "s" }', "")
    )
    assert shell.type("graph", id, "--json").json == before
    assert shell.type("graph", "etl", "--json").json == before


def test_a_mermaid_flowchart_has_the_steps_their_edges_and_states(shell: Shell) -> None:
    assert shell.type("graph", "etl", "--mermaid").out.splitlines() == [
        "flowchart TD",
        *(f'    s{n}["{job}"]' for n, job in enumerate(STEPS)),
        *(f"    {edge}" for edge in ("s0 --> s1", "s0 --> s2", "s2 --> s3", "s1 --> s4", "s3 --> s4")),
    ]
    shell.enqueue("etl", "url=u")
    shell.finish("fetch")
    lines = shell.type("graph", "last", "--mermaid").out.splitlines()
    assert lines[1:3] == ['    s0["fetch<br/>succeeded"]:::succeeded', '    s1["check<br/>queued"]']
    assert lines[-1].startswith("    classDef succeeded fill:")


def test_events_of_a_pipeline_are_its_own_and_those_of_its_steps(shell: Shell) -> None:
    shell.enqueue("check")
    id = shell.enqueue("fan")
    shell.finish("fetch")
    events = shell.type("events", "--run", id, "--json").lines
    assert {event["pipeline"] for event in events} == {id}
    assert {event["job"] for event in events} == {"fan", "fetch", "double"}
    assert [event["type"] for event in events if event["run"] == id] == ["enqueued", "executing"]
    step = steps_of(shell, id)[0]["run"]["id"]
    assert {event["run"] for event in shell.type("events", "--run", step, "--json").lines} == {step}
    assert {event["run"] for event in shell.type("events", "-n", "100", "--job", "fan", "--json").lines} == {id}


def test_a_pipeline_is_not_counted_as_a_run_under_way(shell: Shell) -> None:
    shell.enqueue("fan")
    (claim,) = shell.claim("fetch")
    seen = shell.type("inspect", "--json").json
    assert [run["job"] for run in seen["running"]] == ["fetch"]
    assert [(queue["name"], queue["running"], queue["queued"]) for queue in seen["queues"]] == [
        ("default", 0, 1),
        ("net", 1, 0),
    ]
    shell.enqueue("etl", "url=u")
    assert [line for line in plain(shell.type("inspect")) if line.startswith("default ")] == [
        "default 1 0 4 0 0 by no live worker"
    ]
    shell.type("revoke", "etl")
    shell.settle(claim, code=1)
    finish_all(shell, "double")
    # One thing has failed, and one line says so.
    assert [run["job"] for run in shell.type("inspect", "--json").json["recent_failures"]] == ["fetch"]


# -- logs, results and waits ------------------------------------------------------------------------------------------


def test_the_logs_of_a_pipeline_are_those_of_its_steps_in_their_order(shell: Shell) -> None:
    id = shell.enqueue("etl", "url=u")
    finish_all(shell, "fetch", "check")
    shell.finish("double", code=3)
    fetch, check, double, shrink, store = (each["run"]["id"] for each in steps_of(shell, id))
    shell.print_output(fetch, 1, stdout=b"page\n")
    shell.print_output(check, 1, stdout=b"\xe2\x82", stderr=b"hm\n")
    shell.print_output(double, 1, stdout=b"a\nb\nc")
    said = shell.type("logs", id)
    assert said.raw == b"page\n\xe2\x82hm\na\nb\nc"
    assert said.err.splitlines() == [
        f"hueyctl: step 1 (fetch), run {fetch[:8]}: succeeded",
        f"hueyctl: step 2 (check), run {check[:8]}: succeeded",
        f"hueyctl: step 3 (double), run {double[:8]}: failed",
        f"hueyctl: step 4 (shrink), run {shrink[:8]}: skipped",
        f"hueyctl: step 5 (store), run {store[:8]}: skipped",
    ]
    assert shell.type("logs", "etl", "-n", "1", "--stdout").raw == b"page\n\xe2\x82c"
    logs = shell.type("logs", id, "--json").json["logs"]
    assert logs["run"] == id
    assert [(each["run"], each["attempt"], each["stdout"]) for each in logs["steps"][2:4]] == [
        (double, 1, "a\nb\nc"),
        (shrink, None, ""),
    ]
    assert "--attempt goes with one run" in shell.type("logs", id, "--attempt", "1", code=2).err


def test_following_the_logs_of_a_pipeline_goes_from_step_to_step_until_its_end(shell: Shell) -> None:
    id = shell.enqueue("fan")
    first, second = (each["run"]["id"] for each in steps_of(shell, id))
    followed: list[Said] = []
    thread = threading.Thread(target=lambda: followed.append(_followed(shell, id)))
    thread.start()
    shell.print_output(second, 1, stdout=b"from the second\n")
    shell.finish("double")
    shell.print_output(first, 1, stdout=b"from the first\n")
    shell.finish("fetch")
    thread.join(20)
    assert followed[0].raw == b"from the first\nfrom the second\n"


def _followed(shell: Shell, run: str) -> Said:
    process = shell.spawn("logs", run, "-f")
    out, err = process.communicate(timeout=20)
    return Said(process.returncode, out, err)


def test_the_result_of_a_pipeline_is_its_last_steps(shell: Shell) -> None:
    id = shell.enqueue("etl", "url=u")
    assert "has no result yet" in shell.type("result", id, code=1).err
    finish_all(shell, "fetch", "check", "double", "shrink")
    shell.finish("store", result=b"got it with hunter22\n")
    assert shell.type("result", id).raw == b"got it with ***\n"
    assert shell.type("result", id, "--json").json["result"] == "got it with ***\n"
    assert shell.run(id)["result"] == "got it with ***\n"


def test_the_result_of_a_pipeline_that_ends_side_by_side_is_a_list_in_the_order_of_its_steps(shell: Shell) -> None:
    id = shell.enqueue("fan")
    shell.finish("double", result=b'{"a": 1}')
    shell.finish("fetch", result=b"text")
    assert shell.type("result", id).json == shell.run(id)["result"] == ["text", {"a": 1}]
    shell.enqueue("fan")
    shell.finish("double", result=b"4")
    shell.finish("fetch")
    assert shell.type("result", "last").json == [None, 4]


def test_a_wait_that_ends_badly_names_the_step_and_where_to_read_on(shell: Shell) -> None:
    process = shell.spawn("enqueue", "etl", "url=u", "--wait")
    eventually(lambda: shell.place.path.exists() and shell.type("runs", "--json").json["runs"])
    finish_all(shell, "fetch")
    shell.finish("double", code=3)
    (failed,) = (run["id"][:8] for run in shell.type("runs", "--state", "failed", "--json").json["runs"])
    finish_all(shell, "check")
    out, err = process.communicate(timeout=20)
    id = out.decode().strip()
    assert process.returncode == 1
    line = f"hueyctl: run {id[:8]} of etl failed: step 3 (double) failed: exited with 3; hueyctl logs {failed}"
    assert err.decode().splitlines()[-1] == line
    assert line in shell.type("wait", id, code=1).err
    assert line in shell.type("result", id, code=1).err


def test_what_is_secret_in_one_step_is_masked_in_all_that_follow_from_it(shell: Shell) -> None:
    """What a step prints is the next one's input, and why it failed the reason of others."""
    shell.write(
        """
        [jobs.login]
        command = ["true"]
        params = { password = { required = true, secret = true } }
        [jobs.use]
        script = "cat"
        [pipelines.p]
        steps = [{ job = "login", params = { password = "correct horse" } }, "use", "use"]
        """
    )
    id = shell.enqueue("p")
    shell.finish("login", result=b"correct horse")
    (claim,) = shell.claim("use")
    with shell.store() as store:
        outcome = Raised("ValueError: correct horse")
        settlement = Settlement(
            n=claim.run.n, token=claim.token, verdict=Final(), outcome=outcome, ended_at=datetime.now(UTC)
        )
        store.exchange([settlement], None, now=datetime.now(UTC))
    first, second, third = (step["run"]["id"] for step in steps_of(shell, id))
    shell.print_output(second, 1, stdout=b"got correct horse\n")
    for words in (
        ["inspect", id],
        ["inspect", third],
        ["runs"],
        ["logs", id],
        ["logs", second],
        ["events"],
        ["inspect"],
    ):
        for said in (shell.type(*words), shell.type(*words, "--json")):
            assert "horse" not in said.out + said.err, words
            assert "***" in said.out, words
    assert "horse" not in shell.type("wait", id, code=1).err
    for words in (["graph", "p"], ["jobs"], ["inspect", "p"]):
        for said in (shell.type(*words), shell.type(*words, "--json")):
            assert "horse" not in said.out, words
    assert first in shell.type("runs", "--json").out


# -- changes ----------------------------------------------------------------------------------------------------------


def test_revoking_a_pipeline_takes_all_of_it_and_a_running_step_needs_kill(shell: Shell) -> None:
    id = shell.enqueue("etl", "url=u")
    assert shell.type("revoke", id).out == f"revoked {id[:8]} etl\n"
    assert states(shell, id) == ["revoked"] * 5
    assert shell.type("revoke", "etl").out == f"{id[:8]} etl had been revoked before\n"

    id = shell.enqueue("etl", "url=u")
    (claim,) = shell.claim("fetch")
    refused = shell.type("revoke", id, code=1)
    assert f"run {id[:8]} of etl is running; nothing more of it starts" in refused.err
    assert states(shell, id) == ["running"] + ["revoked"] * 4
    assert f"hueyctl revoke --kill {id[:8]}" in refused.err
    # The worker of the step is dead: who revokes gives its run back, for nobody else may be alive to do it.
    assert shell.type("revoke", id, "--kill", "--timeout", "20s").out == f"revoked {id[:8]} etl\n"
    assert states(shell, id) == ["revoked"] * 5
    shell.settle(claim)
    assert states(shell, id) == ["revoked"] * 5


def test_a_selection_takes_steps_and_each_pipeline_goes_with_its_own(shell: Shell) -> None:
    first, second = shell.enqueue("fan"), shell.enqueue("fan")
    revoked = shell.type("revoke", "--since", "1h", "--json").json
    assert [run["job"] for run in revoked["runs"]] == ["double", "fetch"] * 2
    assert (shell.run(first)["state"], shell.run(second)["state"]) == ("revoked", "revoked")
    retried = shell.type("retry", "--state", "revoked", "--json").json
    assert (len(retried["runs"]), retried["refused"]) == (4, [])
    assert shell.run(first)["state"] == "waiting"
    # By its name, the pipeline is meant.
    assert [run["id"] for run in shell.type("revoke", "--job", "fan", "--json").json["runs"]] == [second, first]
    assert states(shell, first) == ["revoked"] * 2


@pytest.mark.parametrize("named", ["the pipeline", "its failed step", "failed runs"])
def test_a_retry_goes_on_from_what_failed(shell: Shell, named: str) -> None:
    id = shell.enqueue("etl", "url=u")
    finish_all(shell, "fetch", "check")
    shell.finish("double", code=3)
    failed = steps_of(shell, id)[2]["run"]["id"]
    words = {"the pipeline": [id], "its failed step": [failed], "failed runs": ["--state", "failed"]}[named]
    said = shell.type("retry", *words)
    back = id if named == "the pipeline" else failed
    assert re.fullmatch(rf"retried {back[:8]} (etl|double)\n", said.out)
    assert states(shell, id) == ["succeeded", "succeeded", "queued", "waiting", "waiting"]
    finish_all(shell, "double", "shrink", "store")
    assert shell.run(id)["state"] == "succeeded"
    attempts = [step["run"]["attempt"] for step in steps_of(shell, id)]
    assert attempts == [1, 1, 2, 1, 1], "what had succeeded is not done again"
    refused = shell.type("retry", id, code=1).err
    assert f"hueyctl retry --again {id[:8]}" in refused


def test_a_step_is_retried_while_others_of_its_pipeline_go_on(shell: Shell) -> None:
    id = shell.enqueue("fan")
    shell.finish("fetch", code=1)
    failed = steps_of(shell, id)[0]["run"]["id"]
    refused = shell.type("retry", id, code=1).err
    assert "has not ended: it is running" in refused
    assert f"hueyctl retry {failed[:8]}" in refused
    assert shell.type("retry", failed).out == f"retried {failed[:8]} fetch\n"
    finish_all(shell, "double", "fetch")
    assert shell.run(id)["state"] == "succeeded"


def test_a_copy_of_a_pipeline_has_all_of_its_steps_and_a_step_alone_has_none(shell: Shell) -> None:
    id = shell.enqueue("etl", "url=u", "--priority", "4", "--queue", "q")
    finish_all(shell, *STEPS)
    copy = shell.type("retry", "--again", id).out.strip()
    assert copy != id
    assert [(step["run"]["priority"], step["run"]["queue"]) for step in steps_of(shell, copy)] == [(4, "q")] * 5
    assert shell.run(copy)["params"]["url"] == "u"
    step = steps_of(shell, id)[2]["run"]["id"]
    refused = shell.type("retry", "--again", step, code=1).err
    assert f"is a step of pipeline {id[:8]}" in refused
    assert f"`hueyctl retry --again {id[:8]}` enqueues a copy of the whole" in shell.type("retry", step, code=1).err
    finish_all(shell, *STEPS)
    shell.type("retry", "--again", shell.enqueue("fan"), code=1)


# -- schedules --------------------------------------------------------------------------------------------------------


def test_a_schedule_of_a_pipeline_is_triggered_and_backfilled(shell: Shell) -> None:
    id = shell.type("schedule", "trigger", "etl").out.strip()
    whole = shell.run(id)
    assert (whole["job"], whole["schedule"], whole["params"]["url"]) == ("etl", "etl", "s")
    assert {step["run"]["priority"] for step in steps_of(shell, id)} == {9}
    shell.type("revoke", id)
    times = ["--from", "2026-03-01T10:00:00Z", "--to", "2026-03-01T11:00:00Z"]
    first, second = shell.type("schedule", "backfill", "etl", *times).out.split()
    assert shell.run(first)["scheduled_at"] == "2026-03-01T10:00:00Z"
    # One after the other: no step of the second starts before the first has ended.
    assert states(shell, second) == ["waiting"] * 5
    why = shell.type("inspect", second, "--json").json["why"]
    assert why == [f"it waits for its turn: run {first[:8]} of its schedule is waiting"]
    assert why == shell.type("inspect", steps_of(shell, second)[0]["run"]["id"], "--json").json["why"]
    assert {run["job"] for run in shell.type("runs", "--schedule", "etl", "--json").json["runs"]} == {"etl"}
    finish_all(shell, *STEPS)
    assert states(shell, second)[0] == "queued"
    assert shell.type("schedule", "list", "--json").json["schedules"][0]["pipeline"] == "etl"
    assert shell.type("inspect", "--json").json["next_slots"][0]["pipeline"] == "etl"
