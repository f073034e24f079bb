"""`[schedules.NAME]` and `[pipelines.NAME]`: validated whole, though what they do comes later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from toml_file import Toml

from hueyctl.model.definition import Schedule, Step

JOB = '[jobs.fetch]\ncommand = ["true"]\n'


def schedule(toml: Toml, lines: str, more: str = "") -> Schedule:
    return toml.read(f"[hueyctl]\ntimezone = 'Europe/Berlin'\n{JOB}{more}\n[schedules.fetch]\n{lines}").schedules[
        "fetch"
    ]


def test_a_schedule_has_the_job_of_its_name_and_the_files_time_zone(toml: Toml) -> None:
    assert schedule(toml, "every = '15s'") == Schedule(
        name="fetch", target="fetch", target_kind="job", timezone="Europe/Berlin", every=timedelta(seconds=15)
    )


def test_every_key_of_a_schedule_becomes_its_type(toml: Toml) -> None:
    found = toml.read(
        """
        [jobs.fetch]
        command = ["{url}"]
        params = { url = { required = true } }
        [schedules.nightly]
        job = "fetch"
        params = { url = "{literal}" }
        priority = 5
        queue = "night"
        cron = "30 2 * * MON-FRI"
        timezone = "America/New_York"
        start = 2026-01-01
        end = "2027-01-01T00:00:00Z"
        enabled = false
        jitter = "1m"
        overlap = "replace"
        catch_up = "all"
        catch_up_window = "2h"
        catch_up_max = 3
        grace = 5
        """,
    ).schedules["nightly"]
    assert found == Schedule(
        name="nightly",
        target="fetch",
        target_kind="job",
        params={"url": "{literal}"},
        priority=5,
        queue="night",
        cron="30 2 * * MON-FRI",
        timezone="America/New_York",
        start=datetime(2026, 1, 1, 5, tzinfo=UTC),
        end=datetime(2027, 1, 1, tzinfo=UTC),
        enabled=False,
        jitter=timedelta(minutes=1),
        overlap="replace",
        catch_up="all",
        catch_up_window=timedelta(hours=2),
        catch_up_max=3,
        grace=timedelta(seconds=5),
    )


@pytest.mark.parametrize("at", ["2026-07-01T12:00:00", "'2026-07-01T12:00'", "2026-07-01T10:00:00Z"])
def test_a_time_without_offset_is_local_to_the_schedule(toml: Toml, at: str) -> None:
    assert schedule(toml, f"at = {at}").at == datetime(2026, 7, 1, 10, tzinfo=UTC)


def test_a_time_that_comes_twice_is_its_first(toml: Toml) -> None:
    assert schedule(toml, "at = 2026-10-25T02:30:00").at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_a_schedule_whose_times_are_all_past_is_no_mistake(toml: Toml) -> None:
    assert schedule(toml, "at = 1999-01-01").at == datetime(1998, 12, 31, 23, tzinfo=UTC)
    assert schedule(toml, "cron = '@yearly'\nstart = 1999-01-01\nend = 1999-01-02").end is not None


@pytest.mark.parametrize("cron", ["* * * * *", "*/5 * * * * *", "@Daily", "0 0 L * *", "0 0 * * 5L", "0 0 * * MON#2"])
def test_cron_expressions_are_kept_as_they_are_written(toml: Toml, cron: str) -> None:
    assert schedule(toml, f"cron = '{cron}'").cron == cron


WRONG_SCHEDULE = [
    ("", ": expected exactly one of cron, every and at, got none"),
    ("cron = '* * * * *'\nevery = 5", ": expected exactly one of cron, every and at, got cron and every"),
    (
        "cron = '61 * * * *'",
        '.cron: expected a cron expression like "30 2 * * *", got "61 * * * *": minute "61": expected 0 to 59',
    ),
    ("cron = '* * * *'", '.cron: expected a cron expression like "30 2 * * *", got "* * * *": expected 5 fields'),
    ("cron = '0 0 30 2 *'", '.cron: expected a cron expression like "30 2 * * *", got "0 0 30 2 *": a date that never'),
    ("cron = '@dayly'", '.cron: expected a cron expression like "30 2 * * *", got "@dayly": there is no "@dayly"; did'),
    ("cron = '@reboot'", ".cron: expected a cron expression"),
    (f"cron = '{'9' * 5000} * * * *'", ".cron: expected a cron expression"),
    ("every = 0", ".every: expected a duration of 100ms or more, got 0"),
    ("every = '15us'", '.every: expected a duration of 100ms or more, got "15us"'),
    ("at = 2026-01-01\nend = 2027-01-01", ".end: end goes with cron or every; at is a single time"),
    ("at = 2027-01-01\nstart = 2026-01-01", ".start: start goes with cron or every; at is a single time"),
    (
        "timezone = 'Europe/Berlin'\nat = 2026-03-29T02:30:00",
        ".at: the clock in Europe/Berlin skips 02:30 on 2026-03-29; write a time that it shows, or UTC",
    ),
    (
        "cron = '@yearly'\nstart = 2026-01-01T00:00:01\nend = 2026-12-31",
        ".end: there is no time to fire between start and end",
    ),
    ("every = 5\noffset = 5", ".offset: expected an offset shorter than every"),
    ("cron = '* * * * *'\noffset = 5", ".offset: an offset goes with every"),
    ("at = 12:00:00", ".at: expected a date and time like"),
    ("at = 'tomorrow'", ".at: expected a date and time like"),
    ("at = 9999-12-31T23:59:59-05:00", ".at: a time before the year 1 or after the year 9999"),
    ("every = 5\nstart = 2026-02-01\nend = 2026-01-01", ".end: expected an end after the start"),
    ("every = 5\njob = 'fetsh'", '.job: there is no job "fetsh"; did you mean "fetch"?'),
    ("every = 5\npipeline = 'fetch'", '.pipeline: there is no pipeline "fetch"; it is a job'),
    ("every = 5\njob = 'fetch'\npipeline = 'x'", ": expected job or pipeline, got both"),
    ("every = 5\nparams = { x = 1 }", ".params.x: there is no such parameter"),
    ("every = 5\ntimezone = 'x/y'", ".timezone: expected an IANA time zone"),
    ("every = 5\noverlap = 'kill'", ".overlap: expected"),
    ("every = 5\ncatch_up_max = 0", ".catch_up_max: expected an integer of 1 or more"),
    ("every = 5\nPersistent = true", '.Persistent: unknown key; did you mean "catch_up"?'),
    ("every = 5\ncrontab = 'x'", '.crontab: unknown key; did you mean "cron"?'),
]


@pytest.mark.parametrize(("lines", "expected"), WRONG_SCHEDULE, ids=[lines[:40] for lines, _ in WRONG_SCHEDULE])
def test_a_wrong_schedule_is_said_with_its_path(toml: Toml, lines: str, expected: str) -> None:
    problem = toml.problem(f"{JOB}[schedules.fetch]\n{lines}")
    assert problem.startswith(f"schedules.fetch{expected}")


def test_a_schedule_without_job_whose_name_no_job_has_is_an_error(toml: Toml) -> None:
    problem = toml.problem(f"{JOB}[schedules.fetsh]\nevery = 5")
    assert problem == (
        "schedules.fetsh: expected job or pipeline, got neither, and there is no job "
        '"fetsh"; did you mean "fetch"?'
    )  # fmt: skip


def test_a_schedule_must_give_what_its_job_requires(toml: Toml) -> None:
    text = "[jobs.a]\nscript = 'x'\nparams = { url = { required = true }, n = 1 }\n[schedules.a]\nevery = 5\n"
    assert toml.problems(text) == ["schedules.a.params.url: this parameter is required"]
    assert toml.problems(text + "params = { url = 5, n = 'x' }") == [
        "schedules.a.params.url: expected text, got 5",
        'schedules.a.params.n: expected an integer, got "x"',
    ]


JOBS = """
[jobs.a]
script = "x"
[jobs.b]
script = "x"
params = { mode = { required = true }, n = 1, list = [] }
"""


def test_the_steps_of_a_pipeline_are_lines_and_groups_by_turns(toml: Toml) -> None:
    pipeline = toml.read(
        JOBS
        + """
        [pipelines.etl]
        description = "all"
        params = { how = "fast" }
        steps = ["a", ["a", { job = "b", params = { mode = "x-{how}" } }, ["a", "a"]], { job = "a" }]
        [schedules.etl]
        every = 5
        """,
    )
    a = Step(job="a")
    assert pipeline.pipelines["etl"].steps == (a, (a, Step(job="b", params={"mode": "x-{how}"}), (a, a)), a)
    assert (pipeline.schedules["etl"].target, pipeline.schedules["etl"].target_kind) == ("etl", "pipeline")


WRONG_PIPELINE: list[tuple[str, str]] = [
    ("", "steps: expected a list of one or more steps, got none"),
    ("steps = []", "steps: expected a list of one or more steps, got none"),
    ("steps = 'a'", 'steps: expected a list of one or more steps, got "a"'),
    ("steps = ['a', []]", "steps[1]: expected a list of one or more steps, got none"),
    ("steps = ['a', 5]", "steps[1]: expected a job's name"),
    ("steps = ['a', ['x']]", 'steps[1][0]: there is no job "x"'),
    ("steps = [{ params = {} }]", "steps[0]: a step needs its job"),
    ("steps = [{ job = 'c' }]", 'steps[0].job: there is no job "c"'),
    ("steps = [{ job = 'a', with = {} }]", "steps[0].with: unknown key"),
    ("steps = ['b']", "steps[0].params.mode: this parameter is required"),
    ("steps = [{ job = 'a', params = { x = 1 } }]", "steps[0].params.x: there is no such parameter"),
    ("steps = [{ job = 'b', params = { mode = 1 } }]", "steps[0].params.mode: expected text, got 1"),
    (
        "steps = [{ job = 'b', params = { mode = '{how}' } }]",
        'steps[0].params.mode: the pipeline has no parameter "how"',
    ),
    (
        "params = { x = 1 }\nsteps = [{ job = 'b', params = { mode = '{x}' } }]",
        "steps[0].params.mode: expected a parameter of type string, and {x} is of type integer",
    ),
    (
        "params = { x = 1 }\nsteps = [{ job = 'b', params = { mode = 'm', n = '1{x}' } }]",
        "steps[0].params.n: {x} inside text makes text",
    ),
    (
        "params = { x = ['a'] }\nsteps = [{ job = 'b', params = { mode = 'm-{x}' } }]",
        "steps[0].params.mode: {x} inside text makes text, and is of type array",
    ),
    (
        "params = { x = 'a' }\nsteps = [{ job = 'b', params = { mode = ['{x}'] } }]",
        "steps[0].params.mode: expected a value of type string, got a list",
    ),
    (
        "steps = [{ job = 'b', params = { mode = 'm', list = ['{x}'] } }]",
        'steps[0].params.list: the pipeline has no parameter "x"',
    ),
    (
        "params = { x = { type = 'string' } }\nsteps = [{ job = 'b', params = { mode = '{x}' } }]",
        "steps[0].params.mode: this parameter is required, and {x} may be absent: make it required, or give it a de",
    ),
    ("steps = [['a', 'p']]", 'steps[0][1]: "p" is a pipeline; a step is a job, or a list of steps'),
]


@pytest.mark.parametrize(("lines", "expected"), WRONG_PIPELINE, ids=[lines for lines, _ in WRONG_PIPELINE])
def test_a_wrong_pipeline_is_said_with_its_path(toml: Toml, lines: str, expected: str) -> None:
    problem = toml.problem(f"{JOBS}[pipelines.p]\n{lines}")
    assert problem.startswith(f"pipelines.p.{expected}")


@pytest.mark.parametrize(
    "given", ["'{text}'", "'{{text}}'", "'{text}-{count}'", "'m', n = '{count}'", "'m', list = ['{list}', '{text}', 1]"]
)
def test_a_step_takes_what_its_pipeline_has_where_the_types_agree(toml: Toml, given: str) -> None:
    params = "params = { text = { required = true }, count = 1, list = ['a'] }"
    assert (
        "p"
        in toml.read(
            f"{JOBS}[pipelines.p]\n{params}\nsteps = [{{ job = 'b', params = {{ mode = {given} }} }}]"
        ).pipelines
    )


def test_jobs_and_pipelines_share_their_names(toml: Toml) -> None:
    problem = toml.problem(JOBS + "[pipelines.a]\nsteps = ['a']")
    assert problem == "pipelines.a: there is a job of this name; jobs and pipelines share their names"


def test_what_refers_to_a_job_that_is_itself_wrong_is_not_wrong_for_that(toml: Toml) -> None:
    text = "[jobs.a]\nscript = 5\n[jobs.b]\nscript = 'x'\non_failure = 'a'\n"
    text += "[schedules.a]\nevery = 5\n[pipelines.p]\nsteps = ['a']"
    assert toml.problems(text) == ['jobs.a.script: expected text, got 5; write "5"']
