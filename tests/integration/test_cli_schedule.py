"""`hueyctl schedule`, and what other commands say of schedules: with no worker running."""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from shell import Shell

from hueyctl.app.schedules import schedules
from hueyctl.app.session import open_session
from hueyctl.model.definition import Schedule
from hueyctl.model.instant import iso
from hueyctl.model.order import run_of
from hueyctl.model.schedule import definition_hash
from hueyctl.storage.sqlite import SqliteStore
from hueyctl.storage.store import Firing, ScheduleDefinition

JOBS = """
    [hueyctl]
    timezone = "Europe/Berlin"

    [jobs.tick]
    command = ["true"]
    params = { token = { type = "string", secret = true }, mode = "fast" }
    expires = "1h"

    [jobs.pack]
    command = ["true"]
    queue = "heavy"

    [schedules.nightly]
    job = "tick"
    cron = "30 2 * * *"
    params = { token = "hunter2-hunter2" }

    [schedules.pack]
    every = "1h"
    priority = 5

    [schedules.beside]
    job = "pack"
    every = "1d"
    overlap = "allow"

    [schedules.once]
    job = "tick"
    at = 2030-12-24T18:00:00

    [schedules.off]
    job = "tick"
    every = "1m"
    enabled = false
    """
SPRING = ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write(JOBS)


def decide(shell: Shell, name: str, *slots: datetime, missed: str | None = None) -> list[str | None]:
    """What a worker does at these slots; the ids of the runs."""
    from hueyctl.config import load

    project = load(shell.dir / "jobs.toml", environ={})
    schedule: Schedule = project.schedules[name]
    definition = definition_hash(schedule)
    with shell.store() as store:
        store.define_schedules({name: ScheduleDefinition("r", definition)}, file="f", now=slots[0] - HOUR)
        firings = [
            Firing(
                schedule=name,
                definition=definition,
                slot=slot,
                run=None if missed else run_of(project, schedule, slot, "schedule", None),
                overlap=schedule.overlap,
                reason=missed,
            )
            for slot in slots
        ]
        return [fired.run for fired in store.fire(firings, now=slots[-1])]


def hours_ago(count: int) -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - count * HOUR


# -- next -------------------------------------------------------------------------------------------------------------


def test_next_shows_local_times_with_their_offset_and_marks_those_that_the_clock_moved(shell: Shell) -> None:
    words = ["schedule", "next", "nightly", "-n", "3", "--from", "2026-03-28"]
    assert shell.type(*words, "--json").json == {
        "schema": 1,
        "schedule": "nightly",
        "times": SPRING,
        "moved": [SPRING[1]],
    }
    assert shell.type(*words).out.splitlines() == [SPRING[0], f"{SPRING[1]}  moved by the clock change", SPRING[2]]


def test_next_has_no_other_keys_where_nothing_is_moved(shell: Shell) -> None:
    found = shell.type("schedule", "next", "nightly", "-n", "1", "--from", "2026-07-01", "--json").json
    assert found == {"schema": 1, "schedule": "nightly", "times": ["2026-07-01T02:30:00+02:00"]}


def test_next_is_strictly_after(shell: Shell) -> None:
    found = shell.type("schedule", "next", "nightly", "-n", "1", "--from", "2026-07-01T02:30", "--json").json
    assert found["times"] == ["2026-07-02T02:30:00+02:00"]


def test_next_shows_the_same_instants_in_another_zone(shell: Shell) -> None:
    words = ["schedule", "next", "nightly", "-n", "2", "--from", "2026-07-01T00:00+02:00", "--json"]
    assert shell.type(*words, "--timezone", "UTC").json["times"] == ["2026-07-01T00:30:00Z", "2026-07-02T00:30:00Z"]
    assert shell.type(*words, "--timezone", "Asia/Kathmandu").json["times"][0] == "2026-07-01T06:15:00+05:45"


def test_an_expression_can_be_tried_without_any_file(shell: Shell) -> None:
    (shell.dir / "jobs.toml").unlink()
    words = ["schedule", "next", "-n", "3", "--from", "2026-03-28", "--json", "--cron"]
    found = shell.type(*words, "30 2 * * *", "--timezone", "Europe/Berlin").json
    assert found == {"schema": 1, "schedule": None, "times": SPRING, "moved": [SPRING[1]]}
    assert shell.type(*words, "@monthly").json["times"][0] == "2026-04-01T00:00:00Z"


def test_an_expression_is_tried_in_the_zone_of_the_file_at_hand(shell: Shell) -> None:
    words = ["schedule", "next", "--cron", "30 2 * * *", "-n", "3", "--from", "2026-03-28", "--json"]
    assert shell.type(*words).json["times"] == SPRING
    shell.write("[jobs.a]\nnope = 1")  # a file that is wrong is no reason not to try an expression
    assert shell.type(*words).json["times"][0] == "2026-03-28T02:30:00Z"


def test_what_never_fires_again_is_said(shell: Shell) -> None:
    said = shell.type("schedule", "next", "once", "--from", "2030-01-01")
    assert said.out.splitlines() == ["2030-12-24T18:00:00+01:00"]
    assert "never fires again" in said.err
    said = shell.type("schedule", "next", "once", "--from", "2031-01-01")
    assert said.out == ""
    assert "never fires after that" in said.err


def test_the_times_of_a_disabled_schedule_come_with_a_word(shell: Shell) -> None:
    assert "off is disabled: none of these will fire" in shell.type("schedule", "next", "off", "-n", "1").err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["next"], 2, "expected a schedule's name, or --cron"),
        (["next", "nightly", "--cron", "* * * * *"], 2, "expected a schedule's name, or --cron"),
        (["next", "nihgtly"], 3, 'did you mean "nightly"?'),
        (["next", "--cron", "61 * * * *"], 2, 'minute "61": expected 0 to 59'),
        (["next", "--cron", "0 0 30 2 *"], 2, "a date that never comes"),
        (["next", "nightly", "--timezone", "Europe/Berln"], 2, 'did you mean "Europe/Berlin"?'),
        (["next", "nightly", "--from", "whenever"], 2, "--from: expected a time"),
        (["next", "nightly", "-n", "0"], 2, "--limit"),
        (["trigger", "nihgtly"], 3, 'did you mean "nightly"?'),
        (["trigger", "nightly", "--at", "whenever"], 2, "--at: expected a time"),
        (["trigger"], 2, "NAME"),
        (["backfill", "nihgtly", "--from", "2h"], 3, 'did you mean "nightly"?'),
        (["backfill", "nightly"], 2, "--from"),
        (["backfill", "nightly", "--from", "1d", "--to", "tomorrow"], 2, "not over yet"),
        (["backfill", "nightly", "--from", "1d", "--to", "2d"], 2, "after from"),
        (["backfill", "nightly", "--from", "1d", "--overlap", "alow"], 2, 'did you mean "allow"?'),
        (["lsit"], 2, 'there is no schedule command "lsit"; did you mean "list"?'),
    ],
)
def test_what_is_wrong_is_said(shell: Shell, words: list[str], code: int, said: str) -> None:
    assert said in shell.type("schedule", *words, code=code).err


# -- list and inspect -------------------------------------------------------------------------------------------------


def test_list_shows_each_schedule_with_its_next_slot_before_any_worker_was_there(shell: Shell) -> None:
    listed = shell.type("schedule", "list", "--json").json
    assert list(listed) == ["schema", "schedules"]
    by_name = {each["name"]: each for each in listed["schedules"]}
    assert list(by_name) == ["beside", "nightly", "off", "once", "pack"]
    assert by_name["once"]["next"] == "2030-12-24T17:00:00Z"
    assert by_name["off"]["next"] is None
    assert by_name["pack"]["next"] == iso(hours_ago(-1))
    assert by_name["nightly"]["params"] == {"token": "***"}
    assert all(each["last"] is None and each["paused"] is None for each in by_name.values())
    text = shell.type("schedule", "list").out
    assert "hunter2" not in text
    assert re.search(r"nightly +tick +30 2 \* \* \* in Europe/Berlin .* on", text)
    assert re.search(r"off +tick +every 1m +disabled", text)
    assert re.search(r"once .* 2030-12-24T18:00:00\+01:00 +on", text), "people read it as `next` and `inspect` show it"


def test_listing_costs_in_proportion_to_the_schedules(shell: Shell) -> None:
    """And not to their square, which made it half a minute for some thousands."""

    def steps(count: int) -> int:
        shell.write("[jobs.a]\nscript = 'true'\n" + "".join(
            f"[schedules.s{n}]\njob = 'a'\nevery = '1h'\n" for n in range(count)
        ))  # fmt: skip
        session = open_session(shell.dir / "jobs.toml", cwd=shell.dir, environ={})
        definitions = {f"s{n}": ScheduleDefinition("r", "d") for n in range(count)}
        session.creator().define_schedules(definitions, file="f", now=hours_ago(1))
        taken = 0

        def step() -> None:
            nonlocal taken
            taken += 1

        store = session.reader()
        assert isinstance(store, SqliteStore)
        store.database.connection.set_progress_handler(step, 1)
        assert len(schedules(session, now=hours_ago(0))) == count
        session.close()
        return taken

    few = steps(30)
    assert steps(300) < few * 15


def test_list_shows_what_came_of_the_last_slot(shell: Shell) -> None:
    (id,) = decide(shell, "pack", hours_ago(2))
    assert id is not None

    def last() -> dict[str, object]:
        (found,) = (each for each in shell.type("schedule", "list", "--json").json["schedules"] if each["last"])
        return dict(found["last"])

    assert last() == {"slot": iso(hours_ago(2)), "outcome": "fired", "run": id, "state": "queued", "reason": None}
    shell.finish("pack", code=1)
    assert last()["state"] == "failed"
    decide(shell, "pack", hours_ago(1), missed="too late")
    assert last() == {
        "slot": iso(hours_ago(1)),
        "outcome": "missed",
        "run": None,
        "state": None,
        "reason": "too late",
    }


def test_a_pause_is_shown_with_who_and_why_and_outlives_a_reload(shell: Shell) -> None:
    said = shell.type("pause", "--schedule", "pack", "--note", "disk swap")
    assert "paused schedule pack (disk swap): it fires nothing; 0 runs of it go on" in said.out
    (found,) = (each for each in shell.type("schedule", "list", "--json").json["schedules"] if each["paused"])
    assert (found["name"], found["paused"]["note"]) == ("pack", "disk swap")
    assert re.search(r"pack .*paused by \S+ \(disk swap\)", shell.type("schedule", "list").out)
    (slot,) = (each for each in shell.type("inspect", "--json").json["next_slots"] if each["paused"])
    assert slot["schedule"] == "pack"
    shell.type("resume", "--schedule", "pack")
    assert not any(each["paused"] for each in shell.type("schedule", "list", "--json").json["schedules"])


def test_pausing_says_how_many_runs_of_the_schedule_go_on(shell: Shell) -> None:
    decide(shell, "beside", hours_ago(3), hours_ago(2))
    shell.claim("pack")
    (paused,) = shell.type("pause", "--schedule", "beside", "--json").json["paused"]
    assert (paused["running"], paused["waiting"]) == (1, 1)


def test_inspect_shows_all_about_a_schedule(shell: Shell) -> None:
    (id,) = decide(shell, "nightly", hours_ago(2))
    found = shell.type("inspect", "nightly", "--json").json
    assert list(found) == ["schema", "schedule", "next", "slots", "runs"]
    assert len(found["next"]) == 3
    assert found["next"][0] == found["schedule"]["next"]
    assert [(each["run"], each["state"]) for each in found["slots"]] == [(id, "queued")]
    assert [run["id"] for run in found["runs"]] == [id]
    text = shell.type("inspect", "nightly").out
    assert "hunter2" not in text
    assert re.search(r"^catches up: +the latest slot, up to 1h late; in time within 1m$", text, re.MULTILINE)


def test_inspect_shows_a_job_with_its_schedules_and_the_slots_of_its_own(shell: Shell) -> None:
    decide(shell, "pack", hours_ago(2))
    found = shell.type("inspect", "pack", "--json").json
    assert [each["name"] for each in found["schedules"]] == ["beside", "pack"]
    text = shell.type("inspect", "pack").out
    assert text.index("schedules\n") < text.index("next slots\n") < text.index("last slots\n")


def test_inspect_without_a_name_shows_the_next_slots_the_soonest_first(shell: Shell) -> None:
    with shell.store():
        pass
    slots = shell.type("inspect", "--json").json["next_slots"]
    assert {each["schedule"] for each in slots} == {"nightly", "pack", "beside", "once"}
    assert [each["slot"] for each in slots] == sorted(each["slot"] for each in slots)
    assert "next slots\nSCHEDULE" in shell.type("inspect").out


def test_a_run_shows_its_slot_and_its_trigger(shell: Shell) -> None:
    (id,) = decide(shell, "pack", hours_ago(2))
    assert id is not None
    run = shell.run(id)
    assert (run["schedule"], run["scheduled_at"], run["trigger"]) == ("pack", iso(hours_ago(2)), "schedule")
    assert run["priority"] == 5
    assert re.search(rf"^slot: +{iso(hours_ago(2))}", shell.type("inspect", id).out, re.MULTILINE)
    assert [each["id"] for each in shell.type("runs", "--schedule", "pack", "--json").json["runs"]] == [id]


def test_events_in_text_name_the_slot(shell: Shell) -> None:
    decide(shell, "pack", hours_ago(2), missed="too late")
    assert f"missed           pack {iso(hours_ago(2))}  too late" in shell.type("events").out


def test_a_schedule_that_is_gone_from_the_file_still_has_its_runs(shell: Shell) -> None:
    (id,) = decide(shell, "beside", hours_ago(2))
    shell.write(JOBS.replace("schedules.beside", "schedules.other"))
    assert [run["id"] for run in shell.type("runs", "--schedule", "beside", "--json").json["runs"]] == [id]
    assert 'did you mean "other"?' in shell.type("runs", "--schedule", "othr", code=3).err


# -- trigger ----------------------------------------------------------------------------------------------------------


def test_trigger_prints_the_id_of_a_run_by_hand_that_has_no_slot(shell: Shell) -> None:
    said = shell.type("schedule", "trigger", "nightly")
    run = shell.run(said.out.strip())
    assert (run["trigger"], run["schedule"], run["scheduled_at"]) == ("manual", "nightly", None)
    assert (run["job"], run["params"], run["state"]) == ("tick", {"token": "***", "mode": "fast"}, "queued")
    assert "no worker is running" in said.err
    assert [each["name"] for each in shell.type("schedule", "list", "--json").json["schedules"] if each["last"]] == []


def test_trigger_at_a_time_is_in_the_zone_of_the_schedule(shell: Shell) -> None:
    run = shell.type("schedule", "trigger", "nightly", "--at", "2030-07-01T02:30", "--json").json["run"]
    assert (run["state"], run["due_at"]) == ("scheduled", "2030-07-01T00:30:00Z")


def test_enqueueing_a_schedule_leads_to_trigger(shell: Shell) -> None:
    said = shell.type("enqueue", "nightly", code=3)
    assert "hueyctl schedule trigger nightly" in said.err
    shell.type("schedule", "trigger", "pack")
    assert '"nightly" is a schedule, and no run' in shell.type("logs", "nightly", code=3).err


# -- backfill ---------------------------------------------------------------------------------------------------------


def test_backfill_fires_each_slot_of_the_time_both_ends_included_and_prints_the_ids(shell: Shell) -> None:
    start, end = hours_ago(4), hours_ago(2)
    said = shell.type("schedule", "backfill", "pack", "--from", iso(start), "--to", iso(end))
    ids = said.out.split()
    runs = [shell.run(id) for id in ids]
    assert [run["scheduled_at"] for run in runs] == [iso(hours_ago(n)) for n in (4, 3, 2)]
    assert {run["trigger"] for run in runs} == {"backfill"}


def test_backfill_passes_over_what_has_fired_and_takes_what_was_missed(shell: Shell) -> None:
    (fired,) = decide(shell, "pack", hours_ago(4))
    decide(shell, "pack", hours_ago(3), missed="no worker")
    words = ["schedule", "backfill", "pack", "--from", iso(hours_ago(4)), "--to", iso(hours_ago(3)), "--json"]
    first, second = shell.type(*words).json["slots"]
    assert (first["outcome"], first["run"]) == ("past", fired)
    assert second["outcome"] == "fired"
    assert {each["outcome"] for each in shell.type(*words).json["slots"]} == {"past"}
    assert "2 slots had fired before" in shell.type(*words[:-1]).err


def test_the_runs_of_a_backfill_go_one_after_the_other(shell: Shell) -> None:
    said = shell.type("schedule", "backfill", "pack", "--from", iso(hours_ago(3)), "--to", iso(hours_ago(1)))
    ids = said.out.split()
    turn = f"it waits for its turn: run {ids[0][:8]} of its schedule is queued"
    assert turn in shell.type("inspect", ids[1]).out
    assert turn in shell.type("inspect", ids[2]).out
    done = []
    while claims := shell.claim("pack", limit=10):
        (claim,) = claims
        done.append(claim.run.id)
        shell.settle(claim)
    assert done == ids


def test_a_run_by_hand_is_waited_for_although_it_came_later(shell: Shell) -> None:
    said = shell.type("schedule", "backfill", "pack", "--from", iso(hours_ago(3)), "--to", iso(hours_ago(2)))
    _, second = said.out.split()
    by_hand = shell.type("schedule", "trigger", "pack").out.strip()
    shell.finish("pack")
    assert f"run {by_hand[:8]} of its schedule is queued" in shell.type("inspect", second).out


@pytest.mark.parametrize(("name", "words"), [("beside", []), ("pack", ["--overlap", "allow"])])
def test_or_side_by_side_where_that_is_allowed(shell: Shell, name: str, words: list[str]) -> None:
    said = shell.type("schedule", "backfill", name, "--from", iso(hours_ago(80)), "--to", iso(hours_ago(1)), *words)
    assert len(shell.claim("pack", limit=1000)) == len(said.out.split()) > 1


def test_a_backfill_that_skips_says_so(shell: Shell) -> None:
    words = ["--from", iso(hours_ago(3)), "--to", iso(hours_ago(2)), "--overlap", "skip"]
    said = shell.type("schedule", "backfill", "pack", *words)
    assert len(said.out.split()) == 1
    assert f"{iso(hours_ago(2))} was skipped: overlap" in said.err


def test_a_large_backfill_wants_to_be_confirmed_and_a_huge_one_is_refused(shell: Shell) -> None:
    shell.write(JOBS.replace('every = "1d"', 'every = "1m"'))
    said = shell.type("schedule", "backfill", "beside", "--from", "17h", code=1)
    assert re.search(r"these are 10(19|20|21) slots; nothing was enqueued", said.err)
    assert "--yes" in said.err
    assert len(shell.type("schedule", "backfill", "beside", "--from", "17h", "--yes").out.split()) > 1000
    said = shell.type("schedule", "backfill", "beside", "--from", "8d", "--yes", code=1)
    assert "more than 10000 slots" in said.err
    assert "take it in parts" in said.err


def test_a_time_without_slots_is_no_error(shell: Shell) -> None:
    said = shell.type("schedule", "backfill", "once", "--from", "1d")
    assert (said.out, "there is no slot between these times" in said.err) == ("", True)


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_counts_schedules_and_doubts_on_stderr_what_is_probably_not_meant(shell: Shell) -> None:
    shell.write(
        """
        [jobs.tick]
        command = ["true"]

        [schedules.uneven]
        job = "tick"
        cron = "*/7 * * * *"

        [schedules.friday-13]
        job = "tick"
        cron = "0 0 13 * 5"

        [schedules.gap]
        job = "tick"
        cron = "30 2 * * *"
        timezone = "Europe/Berlin"
        """
    )
    said = shell.type("check")
    assert said.out == "jobs.toml: 1 job, 3 schedules, ok\n"
    for part in ("schedules.uneven.cron: minute", "schedules.friday-13.cron: fires on day of month", "skips 02:30"):
        assert part in said.err
    found = shell.type("check", "--json").json["check"]
    assert found["schedules"] == 3
    assert len(found["warnings"]) >= 3


def test_every_id_that_is_printed_is_one(shell: Shell) -> None:
    out = shell.type("schedule", "trigger", "pack").out
    assert str(uuid.UUID(out.strip())) == out.strip()
    assert json.loads(shell.type("schedule", "trigger", "pack", "--json").out)["run"]["trigger"] == "manual"


# -- init --crontab ---------------------------------------------------------------------------------------------------


def test_a_crontab_becomes_a_file_that_passes_check(shell: Shell) -> None:
    (shell.dir / "jobs.toml").unlink()
    tab = b"MAILTO=ops\n# Make room\n30 2 * * * find /nowhere -delete\n0~9 * * * * random\n"
    said = shell.type("init", "--crontab", "-", stdin=tab)
    assert said.out == "wrote jobs.toml: 1 job\n"
    assert "stdin: line 1: MAILTO means nothing here" in said.err
    assert "\nstdin: line 4: not carried over: ~ is a time at random" in said.err
    assert shell.type("check").out == "jobs.toml: 1 job, 1 schedule, ok\n"
    assert shell.type("jobs", "--json").json["jobs"][0]["description"] == "Make room"


def test_a_crontab_is_read_from_a_file_and_as_json_its_notes_are_data(shell: Shell) -> None:
    (shell.dir / "jobs.toml").unlink()
    shell.write("0 1 * * * root /opt/a\n", "tab")
    found = shell.type("init", "--crontab", "tab", "--system", "--json").json
    assert found["file"] == str(shell.dir / "jobs.toml")
    assert found["jobs"] == 1
    assert shell.type("schedule", "list", "--json").json["schedules"][0]["name"] == "a"


@pytest.mark.parametrize(
    ("words", "tab", "code", "said"),
    [
        (["--crontab", "tab"], "0 1 * * * a\n", 1, "jobs.toml is there already"),
        (["--crontab", "nope"], "", 2, '"nope" can\'t be read: No such file'),
        (["--crontab", "tab", "--file", "new.toml"], "# nothing\n", 1, "no line that could be carried over"),
        (["--system"], "", 2, "--system goes with --crontab"),
    ],
)
def test_what_is_wrong_with_a_crontab_is_said_and_nothing_written(
    shell: Shell, words: list[str], tab: str, code: int, said: str
) -> None:
    shell.write(tab, "tab")
    before = (shell.dir / "jobs.toml").read_text()
    assert said in shell.type("init", *words, code=code).err
    assert (shell.dir / "jobs.toml").read_text() == before
    assert not (shell.dir / "new.toml").exists()
