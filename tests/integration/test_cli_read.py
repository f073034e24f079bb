"""`runs`, `logs`, `result`, `wait`, `inspect`, `jobs`: what happened, read back with no worker running."""

from __future__ import annotations

import json
import re
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from shell import Shell, eventually

from hueyctl.app.session import open_session, who
from hueyctl.cli.events import _follow
from hueyctl.model.outcome import Exited, NotStarted, Raised
from hueyctl.model.transition import Done, Final, Settlement
from hueyctl.storage.locks import hold
from hueyctl.storage.store import EventFilter

JOBS = """
    [jobs.fetch]
    description = "Fetch a page"
    command = ["true"]
    params = { url = "x" }

    [jobs.flaky]
    script = "exit 1"
    queue = "heavy"

    [jobs.report]
    python = "acme:report"
    timeout = "1m30s"

    [jobs.cafe]
    command = ["true"]
    """


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write(JOBS)


# -- runs -------------------------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_and_what_was_cut_is_said(shell: Shell) -> None:
    ids = [shell.enqueue("fetch") for _ in range(3)]
    listed = shell.type("runs", "-n", "2", "--json").json
    assert [run["id"] for run in listed["runs"]] == [ids[2], ids[1]]
    assert list(listed) == ["schema", "runs", "more"]
    assert list(shell.type("runs", "--json").json) == ["schema", "runs"]
    text = shell.type("runs").out.splitlines()
    assert text[0].split() == "RUN JOB STATE QUEUE PRIORITY ATTEMPT ENQUEUED TOOK REASON".split()
    assert text[1].split()[:3] == [ids[2][:8], "fetch", "queued"]


def test_runs_are_chosen_by_state_job_queue_and_time(shell: Shell) -> None:
    fetch, flaky = shell.enqueue("fetch"), shell.enqueue("flaky")
    shell.finish("flaky", code=1)

    def listed(*words: str) -> list[str]:
        return [run["id"] for run in shell.type("runs", "--json", *words).json["runs"]]

    assert listed("--state", "failed") == [flaky]
    assert listed("--state", "failed,queued") == listed("--state", "failed", "--state", "queued") == [flaky, fetch]
    assert listed("--job", "fetch") == [fetch]
    assert listed("--queue", "heavy") == [flaky]
    assert listed("--since", "1h") == [flaky, fetch]
    assert listed("--since", "2126-01-01") == listed("--until", "1h") == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["runs", "--state", "faild"], 2, 'there is no state "faild"; did you mean "failed"?'),
        (["runs", "--job", "fetsh"], 3, 'did you mean "fetch"?'),
        (["runs", "--queue", "heavi"], 3, 'did you mean "heavy"?'),
        (["runs", "--schedule", "nightly"], 3, "there is no schedule"),
        (["runs", "--since", "whenever"], 2, "--since: expected a time"),
        (["runs", "-n", "0"], 2, "--limit"),
        (["inspect", "nosuch"], 3, "there is no run or job"),
        (["inspect", "fatch"], 3, 'did you mean "fetch"?'),
        (["inspect", "abc"], 2, "too short"),
        (["inspect", "abcdef"], 3, "there is no run"),
        (["logs", "flaky"], 3, "has no runs yet"),
        (["result", "nosuch"], 3, "there is no run or job"),
        (["wait"], 2, "which run?"),
        (["wait", "nosuch"], 3, "there is no run or job"),
        (["logs", "fetch", "--attempt", "2"], 3, "it has not started yet"),
        (["events", "--type", "complet"], 2, 'there is no event type "complet"; did you mean "complete"?'),
        (["events", "--run", "nosuch"], 3, "there is no run"),
        (["events", "--job", "fetsh"], 3, 'did you mean "fetch"?'),
    ],
)
def test_what_there_isn_t_is_said_with_what_was_meant(shell: Shell, words: list[str], code: int, said: str) -> None:
    shell.enqueue("fetch")
    assert said in shell.type(*words, code=code).err
    assert said in shell.type(*words, "--json", code=code).error["message"]


def test_without_a_store_reading_says_what_makes_one(shell: Shell) -> None:
    for words in (
        ["runs"],
        ["inspect"],
        ["events"],
        ["logs", "last"],
        ["wait", "last"],
        ["revoke", "last"],
        ["resume"],
    ):
        error = shell.type(*words, "--json", code=4).error
        assert (error["code"], "hueyctl enqueue" in error["hint"]) == ("store-missing", True)
    assert not shell.place.dir.exists()


# -- naming a run -----------------------------------------------------------------------------------------------------


def test_a_run_is_its_id_the_beginning_of_it_its_jobs_newest_or_the_last(shell: Shell) -> None:
    first = shell.enqueue("fetch", "--id", "aaaa1111-0000-4000-8000-000000000000")
    second = shell.enqueue("fetch", "--id", "aaaa2222-0000-4000-8000-000000000000")
    assert shell.run(first)["id"] == shell.run(first.upper())["id"] == shell.run("aaaa1")["id"] == first
    assert shell.run("last")["id"] == second
    assert f"run {second[:8]} is still queued" in shell.type("wait", "fetch", "--timeout", "1ms", code=124).err
    ambiguous = shell.type("logs", "aaaa", code=2).err
    assert first in ambiguous
    assert second in ambiguous


def test_a_job_that_looks_like_the_beginning_of_an_id_is_the_job(shell: Shell) -> None:
    shell.enqueue("fetch", "--id", "cafe1111-0000-4000-8000-000000000000")
    mine = shell.enqueue("cafe")
    assert f"run {mine[:8]} is still queued" in shell.type("wait", "cafe", "--timeout", "1ms", code=124).err


# -- logs and result --------------------------------------------------------------------------------------------------

OUTPUT = b"one\n\x1b[31mtwo\xff\r\nthree"


def test_logs_come_out_as_the_job_wrote_them(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    shell.print_output(run, 1, stdout=OUTPUT, stderr=b"warning\n")
    shell.finish("fetch")
    assert shell.type("logs", run).raw == OUTPUT + b"warning\n"
    assert shell.type("logs", run, "--stdout").raw == OUTPUT
    assert shell.type("logs", run, "--stderr").raw == b"warning\n"
    assert shell.type("logs", run, "-n", "1").raw == b"three" + b"warning\n"
    assert shell.type("logs", run, "--attempt", "1").raw == OUTPUT + b"warning\n"
    assert shell.type("logs", run, "--json").json["logs"] == {
        "run": run,
        "attempt": 1,
        "stdout": OUTPUT.decode(errors="replace"),
        "stderr": "warning\n",
    }


def test_a_run_that_has_not_started_has_no_logs_yet(shell: Shell) -> None:
    said = shell.type("logs", shell.enqueue("fetch"))
    assert (said.out, "has not started yet" in said.err) == ("", True)
    shell.type("revoke", "last")
    assert shell.type("logs", "last").err.endswith(" never started: it is revoked\n")


def test_following_logs_shows_each_attempt_as_it_comes_and_ends_with_the_run(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    following = shell.spawn("logs", run, "-f", "--json")
    assert following.stdout

    def line() -> dict[str, object]:
        found: dict[str, object] = json.loads(following.stdout.readline())
        return found

    (claim,) = shell.claim("fetch")
    shell.print_output(run, 1, stdout=b"half")
    assert line() == {"schema": 1, "run": run, "attempt": 1, "stream": "stdout", "data": "half"}
    shell.print_output(run, 1, stdout=b" a line\n", stderr=b"oops")
    assert {(each["stream"], each["data"]) for each in (line(), line())} == {
        ("stdout", " a line\n"),
        ("stderr", "oops"),
    }
    with shell.store() as store:
        store.rescue("w1", cause="test", now=claim.run.enqueued_at)
    (again,) = shell.claim("fetch", worker="w2")
    shell.print_output(run, 2, stdout=b"second attempt\n")
    assert (line()["data"], again.run.attempt) == ("second attempt\n", 2)
    shell.settle(again)
    out, err = following.communicate(timeout=20)
    assert (following.returncode, out, err) == (0, b"", b"")


def test_following_the_last_lines_goes_on_where_they_ended(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    (claim,) = shell.claim("fetch")
    shell.print_output(run, 1, stdout=b"1\n2\n3\n")
    following = shell.spawn("logs", run, "-f", "-n", "2")
    assert following.stdout
    assert [following.stdout.readline() for _ in range(2)] == [b"2\n", b"3\n"]
    shell.print_output(run, 1, stdout=b"4\n")
    shell.settle(claim)
    assert following.communicate(timeout=20)[0] == b"4\n"


def test_a_result_is_what_the_job_returned_or_printed(shell: Shell) -> None:
    text, value, nothing = shell.enqueue("fetch"), shell.enqueue("report"), shell.enqueue("report")
    shell.finish("fetch", result=b"\xff[1]")
    shell.finish("report", result=b'{"a": [1, 2]}')
    shell.finish("report")
    assert shell.type("result", text).raw == b"\xff[1]", "what isn't text keeps its last byte"
    assert shell.type("result", text, "--json").json == {"schema": 1, "result": "\ufffd[1]"}
    assert shell.type("result", value).out == '{"a": [1, 2]}\n'
    assert shell.type("result", value, "--json").json == {"schema": 1, "result": {"a": [1, 2]}}
    assert shell.type("result", nothing, "--json").json == {"schema": 1, "result": None}


def test_without_success_there_is_no_result(shell: Shell) -> None:
    queued, failed = shell.enqueue("fetch"), shell.enqueue("flaky")
    shell.finish("flaky", code=2)
    assert "is queued" in shell.type("result", queued, code=1).err
    assert "exited with 2; hueyctl logs" in shell.type("result", failed, code=1).err
    assert shell.type("result", failed, "--json", code=1).error["code"] == "run-failed"


def test_who_looks_for_the_cause_of_what_never_began_is_not_sent_to_empty_logs(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    [claim] = shell.claim("fetch")
    shell.settle(claim, outcome=NotStarted(127, "tru: no such program"))
    line = f"run {run[:8]} of fetch failed: not started: tru: no such program; hueyctl inspect {run[:8]}"
    assert line in shell.type("wait", run, code=1).err
    said = shell.type("logs", run)
    note = f"run {run[:8]} has printed nothing; it is failed: not started: tru: no such program"
    assert (said.out, said.err) == ("", f"hueyctl: {note}\n")
    shell.print_output(run, 1, stdout=b"after all\n")
    said = shell.type("logs", run)
    assert (said.out, said.err) == ("after all\n", "")


def test_an_attempt_took_as_long_as_it_ran_however_late_that_was_recorded(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    [claim] = shell.claim("fetch")
    assert claim.run.started_at is not None
    ended_at = claim.run.started_at + timedelta(milliseconds=40)
    settlement = Settlement(
        n=claim.run.n, token=claim.token, verdict=Done(), outcome=Exited(0), ended_at=ended_at, claimed=claim.run
    )
    with shell.store() as store:
        store.exchange([settlement], None, now=claim.run.started_at + timedelta(seconds=30))
    (attempt,) = shell.type("inspect", run, "--json").json["attempts"]
    assert datetime.fromisoformat(attempt["ended_at"]) == ended_at


# -- wait -------------------------------------------------------------------------------------------------------------


def test_wait_says_how_each_run_ended_and_exits_1_if_one_did_not_succeed(shell: Shell) -> None:
    good, bad = shell.enqueue("fetch"), shell.enqueue("flaky")
    shell.finish("fetch")
    assert shell.type("wait", good).out == f"{good[:8]}  fetch  succeeded\n"
    shell.finish("flaky", code=1)
    said = shell.type("wait", bad, good, good, code=1)
    assert said.out.splitlines() == [f"{bad[:8]}  flaky  failed", f"{good[:8]}  fetch  succeeded"]
    assert said.err == f"hueyctl: run {bad[:8]} of flaky failed: exited with 1; hueyctl logs {bad[:8]}\n"
    in_json = shell.type("wait", bad, good, "--json", code=1)
    assert [run["state"] for run in in_json.json["runs"]] == ["failed", "succeeded"]


def test_of_a_run_that_never_started_there_are_no_logs_to_read(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    shell.type("revoke", run)
    said = shell.type("wait", run, code=1).err
    assert said == f"hueyctl: run {run[:8]} of fetch was revoked by {who()}; hueyctl inspect {run[:8]}\n"
    late = shell.enqueue("fetch", "--expires", "1ms")
    shell.claim("fetch")
    said = shell.type("wait", late, code=1).err
    assert said == f"hueyctl: run {late[:8]} of fetch expired: it was not started in time; hueyctl inspect {late[:8]}\n"


def test_wait_returns_at_once_when_the_bell_rings(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    waiting = shell.spawn("wait", run)
    eventually(lambda: list(shell.place.bell.iterdir()))
    shell.finish("fetch")
    assert waiting.wait(20) == 0


# -- inspect ----------------------------------------------------------------------------------------------------------


def test_the_whole_at_a_glance(shell: Shell) -> None:
    running, failed = shell.enqueue("fetch"), shell.enqueue("flaky")
    shell.finish("flaky", code=1)
    shell.claim("fetch")
    queued, later = shell.enqueue("flaky"), shell.enqueue("cafe", "--delay", "1h")
    progress = shell.place.progress(running, 1)
    progress.parent.mkdir(parents=True, exist_ok=True)
    progress.write_text("40/100 resizing\n")
    shell.type("pause", "--job", "cafe", "--note", "why not")

    found = shell.type("inspect", "--json").json
    assert list(found) == (
        "schema queues running progress next_up in_the_way next_slots recent_failures workers pauses".split()
    )
    heavy = next(queue for queue in found["queues"] if queue["name"] == "heavy")
    assert heavy == {
        "name": "heavy",
        "queued": 1,
        "scheduled": 0,
        "running": 0,
        "held": 0,
        "waiting": 0,
        "served": False,
        "paused": False,
    }
    assert [run["id"] for run in found["running"]] == [running]
    assert found["progress"] == {running: {"done": 40, "total": 100, "text": "resizing"}}
    assert [run["id"] for run in found["next_up"]] == [queued, later]
    assert [run["id"] for run in found["recent_failures"]] == [failed]
    assert [(worker["id"], worker["alive"]) for worker in found["workers"]] == [("w1", False)]
    assert [(pause["kind"], pause["name"], pause["note"]) for pause in found["pauses"]] == [("job", "cafe", "why not")]

    text = shell.type("inspect")
    for part in (r"heavy +1 +0 +0 +0 +0 +by no live worker", r"40/100 \(40%\) resizing", r"job +cafe .*why not"):
        assert re.search(part, text.out), text
    assert 'no live worker serves the queue "heavy", where 1 waits' in text.err


def test_a_store_with_nothing_in_it_is_inspected_too(shell: Shell) -> None:
    shell.type("revoke", shell.enqueue("fetch"))
    assert shell.type("inspect").code == 0


def test_all_about_a_run(shell: Shell) -> None:
    run = shell.enqueue("fetch", "url=[red]\x1b[31m")
    (claim,) = shell.claim("fetch")
    shell.print_output(run, 1, stderr=b"line 1\nline \x1b[2J2\n")
    shell.settle(claim, code=7)
    found = shell.type("inspect", run, "--json").json
    assert list(found) == ["schema", "run", "by", "hooks", "why", "progress", "expires_at", "attempts", "tail"]
    assert (found["by"], found["hooks"]) == (shell.type("events", "--run", run, "--json").lines[0]["by"], [])
    (attempt,) = found["attempts"]
    assert (attempt["attempt"], attempt["worker"], attempt["outcome"]) == (1, "w1", "error")
    assert attempt["reason"] == "exited with 7"
    assert attempt["stderr"] == {"path": str(shell.place.stderr(run, 1)), "size": 18}
    assert found["tail"]["stderr"] == "line 1\nline \x1b[2J2\n"
    text = shell.type("inspect", run).out
    assert "\x1b" not in text
    assert r"url:  [red]\x1b[31m" in text
    assert r"  line \x1b[2J2" in text
    assert run in text


def test_what_is_long_is_inspected_by_its_beginning_and_a_reason_is_said_once(shell: Shell) -> None:
    run = shell.enqueue("fetch", "url=" + "a" * 100_000)
    (claim,) = shell.claim("fetch")
    outcome = Raised("acme.Bad: no")
    settlement = Settlement(
        n=claim.run.n, token=claim.token, verdict=Final(), outcome=outcome, ended_at=datetime.now(UTC)
    )
    with shell.store() as store:
        store.exchange([settlement], None, now=datetime.now(UTC))
    text = shell.type("inspect", run).out
    assert f"url:  {'a' * 200}… (100,000 characters)\n" in text
    assert len(text) < 2000
    facts, _, _ = text.partition("attempts\n")
    assert facts.count("acme.Bad: no") == 1
    assert shell.run(run)["params"]["url"] == "a" * 100_000


def test_why_a_run_isn_t_running_is_said(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    assert "no worker is running" in shell.type("inspect", run).out
    shell.register(jobs=["fetch"])
    lock = hold(shell.place.worker_lock("w1"))
    assert lock
    try:
        assert shell.type("inspect", run, "--json").json["why"] == ["it is about to start"]
        shell.type("pause")
        assert "everything is paused" in shell.type("inspect", run).out
    finally:
        lock.release()


def test_all_about_a_job(shell: Shell) -> None:
    before_any_run = shell.type("inspect", "report", "--json").json
    assert before_any_run["job"]["timeout"] == 90
    assert before_any_run["runs"] == []
    run = shell.enqueue("fetch")
    found = shell.type("inspect", "fetch", "--json").json
    assert list(found) == ["schema", "job", "counts", "schedules", "runs"]
    assert (found["job"]["command"], found["counts"]) == (["true"], {"queued": 1})
    assert [each["id"] for each in found["runs"]] == [run]
    assert "Fetch a page" in shell.type("inspect", "fetch").out


def test_a_script_of_several_lines_is_inspected_as_it_stands_in_the_file(shell: Shell) -> None:
    shell.write("[jobs.pack]\nscript = '''\ntar -c . |\n    gzip \x09> out\n'''\n[jobs.one]\nscript = 'true'\n")
    text = shell.type("inspect", "pack").out
    assert "\nscript\n  tar -c . |\n      gzip \\t> out\n" in text
    assert "script:       true\n" in shell.type("inspect", "one").out


def test_runs_of_a_job_that_is_no_longer_defined_are_still_there(shell: Shell) -> None:
    run = shell.enqueue("fetch")
    shell.write('[jobs.other]\ncommand = ["true"]\n')
    assert shell.run(run)["job"] == shell.run("fetch")["job"] == "fetch"
    assert len(shell.type("runs", "--job", "fetch", "--json").json["runs"]) == 1


# -- jobs -------------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_with_what_they_take(shell: Shell) -> None:
    shell.write(
        """
        [jobs.b]
        command = ["true"]
        params = { must = { type = "integer", required = true }, may = 1, key = { default = "hunter2", secret = true } }
        [jobs.a]
        script = "true"
        """
    )
    listed = shell.type("jobs", "--json")
    assert [(job["name"], job["kind"]) for job in listed.json["jobs"]] == [("a", "script"), ("b", "command")]
    must, may, key = listed.json["jobs"][1]["params"]
    assert (must["name"], must["type"], must["required"]) == ("must", "integer", True)
    assert (may["default"], key["default"], key["secret"]) == (1, "***", True)
    text = shell.type("jobs").out
    assert "must [may=1] [key=***]" in text
    assert "hunter2" not in listed.out + text


# -- events -----------------------------------------------------------------------------------------------------------


def test_an_event_has_every_key_always(shell: Shell) -> None:
    shell.enqueue("fetch")
    (event,) = shell.type("events", "--json").lines
    assert list(event) == "schema seq time type state run job attempt worker schedule slot pipeline by data".split()
    assert (event["schema"], event["type"], event["state"], event["attempt"]) == (1, "enqueued", "queued", None)
    assert "@" in event["by"]


def test_events_are_chosen_and_resumed(shell: Shell) -> None:
    run, other = shell.enqueue("fetch"), shell.enqueue("flaky")
    shell.finish("flaky", code=1)
    shell.finish("fetch")
    everything = shell.type("events", "--json").lines

    def listed(*words: str) -> list[dict[str, object]]:
        return shell.type("events", "--json", *words).lines

    assert [event["type"] for event in everything if event["run"]] == (
        "enqueued enqueued executing error failed executing complete".split()
    )
    assert listed("--run", run) == [event for event in everything if event["run"] == run]
    assert listed("--job", "flaky") == [event for event in everything if event["run"] == other]
    assert listed("--type", "failed,complete") == listed("--type", "failed", "--type", "complete")
    assert [event["type"] for event in listed("--type", "failed,complete")] == ["failed", "complete"]
    assert listed("-n", "2") == everything[-2:]
    assert listed("-n", "0") == []
    seq = everything[2]["seq"]
    assert listed("--after", str(seq)) == everything[3:]
    assert listed("--after", str(seq), "-n", "2") == everything[3:5]
    assert listed("--until", "1h") == []
    text = shell.type("events", "--run", run).out.splitlines()
    assert [line.split()[3] for line in text] == ["enqueued", "executing", "complete"]


def test_events_stand_under_each_other_and_say_who_did_what_once(shell: Shell) -> None:
    for _ in range(10):
        shell.enqueue("fetch")
    shell.type("pause", "--queue", "heavy", "--note", "moving")
    shell.type("resume", "--queue", "heavy")
    shell.type("pause")
    shell.type("revoke", "last")
    lines = shell.type("events").out.splitlines()
    assert len({line.index("Z  ") for line in lines}) == 1
    me = f"by {who()}"
    *_, paused, resumed, all_paused, revoked = (line.partition("Z  ")[2] for line in lines)
    assert paused == f"paused           queue heavy  note=moving  {me}"
    assert resumed == f"resumed          queue heavy  {me}"
    assert all_paused == f"paused           everything  {me}"
    assert revoked.count(me) == 1


def test_following_events_shows_each_as_it_happens_without_gap_or_repeat(shell: Shell) -> None:
    shell.enqueue("fetch")
    following = shell.spawn("events", "-f", "--json", "-n", "1")
    assert following.stdout
    seen = [json.loads(following.stdout.readline())]
    assert seen[0]["type"] == "enqueued"
    for _ in range(5):
        shell.enqueue("fetch")
        seen.append(json.loads(following.stdout.readline()))
    rest: list[dict[str, object]] = []
    reader = threading.Thread(target=lambda: rest.extend(json.loads(line) for line in following.stdout))
    reader.start()
    lines = b'{"job": "fetch"}\n' * 1200
    shell.type("enqueue", "--batch", "-", stdin=lines)
    eventually(lambda: len(rest) == 1200)
    following.kill()
    reader.join()
    seqs = [event["seq"] for event in [*seen, *rest]]
    assert seqs == list(range(seqs[0], seqs[0] + 1206))


def test_following_waits_for_a_store_that_isn_t_there_yet(shell: Shell) -> None:
    following = shell.spawn("events", "--follow", "--type", "enqueued")
    assert following.stderr
    assert following.stdout
    assert b"there is no store yet" in following.stderr.readline()
    run = shell.enqueue("fetch")
    assert run[:8].encode() in following.stdout.readline()


def test_following_misses_nothing_of_a_store_that_comes_right_after_it_was_said_to_be_missing(shell: Shell) -> None:
    with (
        closing(open_session(shell.dir / "jobs.toml", cwd=shell.dir, environ={})) as session,
        closing(_follow(session, EventFilter(), None, 0, fresh=True)) as answers,
    ):
        assert "there is no store yet" in next(answers).notes[0]
        run = shell.enqueue("fetch")
        assert [document["run"] for document in next(answers).documents] == [run]


def test_following_by_type_passes_over_what_doesn_t_match(shell: Shell) -> None:
    shell.enqueue("fetch")
    following = shell.spawn("events", "-f", "--json", "--type", "complete", "--after", "0")
    assert following.stdout
    shell.type("enqueue", "--batch", "-", stdin=b'{"job": "flaky"}\n' * 600)
    run = shell.finish("fetch")
    assert json.loads(following.stdout.readline())["run"] == run.id
