"""`[jobs.NAME]` and `[defaults]`: what each key becomes, and what is said about a wrong one."""

from __future__ import annotations

from datetime import timedelta

import pytest
from toml_file import Toml

from hueyctl.model.definition import CommandBody, Job, Param, PythonBody, RateLimit, ScriptBody

JOB = '[jobs.fetch]\ncommand = ["true"]\n'


def test_every_key_of_a_job_becomes_its_type(toml: Toml) -> None:
    project = toml.read(
        """
        [jobs.fetch]
        description = "Download"
        command = ["curl", "{url}", "{{url}}"]
        params = { url = { type = "string", required = true, description = "what" }, n = 3 }
        dir = "work"
        env = { LANG = "C" }
        env_file = ".env"
        inherit_env = false
        queue = "web"
        priority = -5
        retries = 3
        retry_delay = "5s"
        retry_backoff = 2
        retry_max_delay = "1m"
        retry_exit_codes = [75, 1]
        success_codes = [0, 3]
        timeout = "10m"
        kill_after = 0
        expires = "1h"
        max_concurrent = 2
        lock = "site-{url}"
        rate_limit = "10/1m"
        unique = "params"
        on_worker_lost = "fail"
        crash_limit = 1
        on_failure = "tell"
        on_success = "tell"
        result = "json"
        [jobs.tell]
        script = "echo"
        """,
    )
    assert project.jobs["fetch"] == Job(
        name="fetch",
        description="Download",
        body=CommandBody(argv=("curl", "{url}", "{{url}}")),
        params=(
            Param(name="url", type="string", required=True, description="what"),
            Param(name="n", type="integer", default=3),
        ),
        dir=toml.dir / "work",
        env={"LANG": "C"},
        env_file=toml.dir / ".env",
        inherit_env=False,
        queue="web",
        priority=-5,
        retries=3,
        retry_delay=timedelta(seconds=5),
        retry_backoff=2.0,
        retry_max_delay=timedelta(minutes=1),
        retry_exit_codes=frozenset({75, 1}),
        success_codes=frozenset({0, 3}),
        timeout=timedelta(minutes=10),
        kill_after=timedelta(0),
        expires=timedelta(hours=1),
        max_concurrent=2,
        lock="site-{url}",
        rate_limit=RateLimit(count=10, per=timedelta(minutes=1)),
        unique="params",
        on_worker_lost="fail",
        crash_limit=1,
        on_failure="tell",
        on_success="tell",
        result="json",
    )


def test_the_three_kinds_of_body(toml: Toml) -> None:
    jobs = toml.read(
        """
        [jobs.a]
        script = "echo"
        [jobs.b]
        script = "print()"
        shell = ["python3", "-c"]
        [jobs."c.d"]
        python = "pkg.mod:run"
        isolation = "thread"
        """,
    ).jobs
    assert jobs["a"].body == ScriptBody(text="echo", shell=("bash", "-eo", "pipefail", "-c"))
    assert jobs["b"].body == ScriptBody(text="print()", shell=("python3", "-c"))
    assert jobs["c.d"].body == PythonBody(target="pkg.mod:run", isolation="thread")
    assert [job.kind for job in jobs.values()] == ["script", "script", "python"]


def test_parameters_take_their_type_from_the_default_or_the_choices(toml: Toml) -> None:
    params = toml.read(
        """
        [jobs.a]
        script = "x"
        [jobs.a.params]
        s = "x"
        i = 1
        n = 1.5
        b = true
        a = ["x", 1]
        plain = {}
        chosen = { choices = [1, 2] }
        mode = { default = "fast", choices = ["fast", "slow"], secret = true }
        rate = { type = "number", default = 1 }
        """,
    ).jobs["a"].params  # fmt: skip
    assert {param.name: (param.type, param.default) for param in params} == {
        "s": ("string", "x"),
        "i": ("integer", 1),
        "n": ("number", 1.5),
        "b": ("boolean", True),
        "a": ("array", ["x", 1]),
        "plain": ("string", None),
        "chosen": ("integer", None),
        "mode": ("string", "fast"),
        "rate": ("number", 1),
    }
    assert params[6].choices == (1, 2)
    assert params[7].secret


def test_defaults_lie_under_every_job_and_each_job_wins(toml: Toml) -> None:
    jobs = toml.read(
        """
        [defaults]
        retries = 3
        timeout = "1m"
        shell = ["sh", "-c"]
        isolation = "thread"
        env = { A = "1", B = "1" }
        params = { x = 1, y = 1 }
        [jobs.a]
        script = "x"
        retries = 0
        env = { B = "2" }
        params = { y = "two" }
        [jobs.b]
        command = ["x", "{x}"]
        [jobs.c]
        python = "m:f"
        """,
    ).jobs
    assert (jobs["a"].retries, jobs["b"].retries) == (0, 3)
    assert jobs["a"].env == {"A": "1", "B": "2"}
    assert {param.name: param.default for param in jobs["a"].params} == {"x": 1, "y": "two"}
    assert jobs["a"].body == ScriptBody(text="x", shell=("sh", "-c"))
    assert jobs["b"].body == CommandBody(argv=("x", "{x}"))
    # What can't hold for a job in the worker's own process is not promised to it.
    assert (jobs["c"].timeout, jobs["b"].timeout) == (None, timedelta(minutes=1))


def test_a_body_in_the_defaults_is_for_the_jobs_that_have_none(toml: Toml) -> None:
    jobs = toml.read('[defaults]\ncommand = ["x"]\n[jobs.a]\nretries = 1\n[jobs.b]\nscript = "y"').jobs
    assert jobs["a"].body == CommandBody(argv=("x",))
    assert jobs["b"].kind == "script"


def test_a_placeholder_of_a_parameter_that_is_itself_wrong_is_not_wrong_for_that(toml: Toml) -> None:
    text = "[jobs.a]\ncommand = ['x', '{n}']\nparams = { n = { type = 'integer', default = 'x' } }"
    assert toml.problem(text) == 'jobs.a.params.n.default: expected an integer, got "x"'


WRONG_JOB = [
    ("retries = 'three'", 'retries: expected an integer of 0 or more, got "three"'),
    ("retries = true", "retries: expected an integer of 0 or more, got true"),
    ("retries = 1.0", "retries: expected an integer of 0 or more, got 1.0"),
    ("retries = -1", "retries: expected an integer of 0 or more, got -1"),
    ("priority = 9223372036854775808", "priority: expected an integer of 64 bits, got 9223372036854775808"),
    ("retry_backoff = 0.5", "retry_backoff: expected a number of 1 or more, got 0.5"),
    ("retry_backoff = nan", "retry_backoff: expected a number of 1 or more, got nan"),
    ("retry_backoff = inf", "retry_backoff: expected a number of 1 or more, got inf"),
    ("retry_delay = '5 parsecs'", "retry_delay: expected a duration like"),
    ("retry_delay = '-5s'", 'retry_delay: a duration can\'t be negative, got "-5s"'),
    ("timeout = 0", "timeout: expected a duration of more than 0, got 0"),
    ("expires = '0s'", "expires: expected a duration of more than 0"),
    ("retry_exit_codes = 75", "retry_exit_codes: expected a list, got 75"),
    ("retry_exit_codes = [1, 'x']", 'retry_exit_codes[1]: expected an integer from 0 to 255, got "x"'),
    ("success_codes = []", "success_codes: expected a list of one or more, got an empty one"),
    ("success_codes = [256]", "success_codes[0]: expected an integer from 0 to 255, got 256"),
    ("inherit_env = 'no'", 'inherit_env: expected true or false, got "no"'),
    ("queue = 'a b'", "queue: expected a name of letters, digits"),
    ("env = { A = 1 }", "env.A: expected text, got an integer; put it in quotes"),
    ("env = { '' = 'x' }", 'env."": no name for an environment variable'),
    ("env = { 'A=B' = 'x' }", 'env."A=B": no name for an environment variable'),
    ('env = { A = "\\u0000" }', "env.A: a NUL character"),
    ("env = { HUEYCTL_RUN_ID = 'x' }", "env.HUEYCTL_RUN_ID: hueyctl sets this variable itself"),
    ("env = { PARAM_X = 'x' }\nparams = { x = 1 }", "env.PARAM_X: hueyctl sets this variable itself"),
    ("dir = ''", 'dir: expected text, got ""'),
    ("dir = '~nobody-of-this-name/x'", 'dir: there is no home folder for "~nobody-of-this-name/x"'),
    ("max_concurrent = 0", "max_concurrent: expected an integer of 1 or more, got 0"),
    ("crash_limit = 0", "crash_limit: expected an integer of 1 or more, got 0"),
    ("unique = 'parms'", 'unique: expected "params" or "job", got "parms"; did you mean "params"?'),
    ("on_worker_lost = 'ignore'", 'on_worker_lost: expected "retry" or "fail", got "ignore"'),
    ("result = 'yaml'", 'result: expected "text" or "json", got "yaml"'),
    ("rate_limit = 10", "rate_limit: expected a limit like"),
    ("rate_limit = '0/1m'", "rate_limit: expected a limit like"),
    ("rate_limit = '10/0s'", "rate_limit: expected a limit like"),
    ("rate_limit = '10/never'", "rate_limit: expected a limit like"),
    ("lock = 'a-{tenant}'", "lock: there is no parameter for {tenant}; declare it"),
    ("lock = '{a}'\nparams = { a = [] }", "lock: {a} is an array"),
    ("concurrency = 3", 'concurrency: unknown key; did you mean "max_concurrent"?'),
    ("on_failure = 'fetsh'", 'on_failure: there is no job "fetsh"; did you mean "fetch"?'),
    ("isolation = 'thread'", "isolation: not for a command job: only Python jobs"),
    ("shell = ['sh']", "shell: not for a command job: only a script has a shell"),
    ("params = []", "params: expected a table, got a list"),
    ("params = { Url = 'x' }", "params.Url: a parameter's name is of lower-case letters"),
    ("params = { 'a-b' = 'x' }", "params.a-b: a parameter's name is of lower-case letters"),
    ("params = { x = 2026-01-01 }", "params.x: expected a default (text, a number, true, false or a list) or a table"),
    ("params = { x = { typ = 'string' } }", 'params.x.typ: unknown key; did you mean "type"?'),
    ("params = { x = { type = 'int' } }", 'params.x.type: expected "string" or "integer" or'),
    ("params = { x = { type = 'integer', default = true } }", "params.x.default: expected an integer, got true"),
    ("params = { x = { default = 1, required = true } }", "params.x: required and default exclude each other"),
    ("params = { x = { choices = [] } }", "params.x.choices: expected a list of one or more values"),
    ("params = { x = { choices = [1, 'b'] } }", 'params.x.choices[1]: expected an integer, got "b"'),
    ("params = { x = { choices = ['a'], default = 'b' } }", 'params.x.default: expected one of "a", got "b"'),
    ("params = { x = inf }", "params.x.default: expected a finite number, got inf"),
    ("params = { x = [2026-01-01] }", "params.x.default: expected an array of JSON values"),
    ("run = 'x'", 'run: unknown key; did you mean "script"?'),
    ("cwd = 'x'", 'cwd: unknown key; did you mean "dir"?'),
    ("WorkingDirectory = 'x'", 'WorkingDirectory: unknown key; did you mean "dir"?'),
    ("needs = ['x']", "needs: unknown key; did you mean the steps of a [pipelines.NAME]?"),
    ("depends = ['x']", "depends: unknown key; did you mean the steps of a [pipelines.NAME]?"),
    ("timeout-minutes = 1", 'timeout-minutes: unknown key; did you mean "timeout"?'),
    ("retry-delay = 1", 'retry-delay: unknown key; did you mean "retry_delay"?'),
    ("retrys = 1", 'retrys: unknown key; did you mean "retries"?'),
    ("OnCalendar = 'x'", 'OnCalendar: unknown key; did you mean "cron" in [schedules.NAME]?'),
    ("timezone = 'UTC'", 'timezone: unknown key; did you mean "timezone" in [schedules.NAME]?'),
    ("zzzz = 1", "zzzz: unknown key"),
    ("b.command = ['x']", "b: unknown key; a name with a dot in it stands in quotes"),
]


@pytest.mark.parametrize(("lines", "expected"), WRONG_JOB, ids=[lines.split("\n")[0] for lines, _ in WRONG_JOB])
def test_a_wrong_key_of_a_job_is_said_with_its_path(toml: Toml, lines: str, expected: str) -> None:
    problem = toml.problem(JOB + lines)
    assert problem.startswith(f"jobs.fetch.{expected}")


WRONG_BODY = [
    ("", "jobs.a: expected exactly one of command, script and python, got none"),
    (
        "command = ['x']\nscript = 'x'",
        "jobs.a: expected exactly one of command, script and python, got command and script",
    ),
    ("command = []", "jobs.a.command: expected a list of one or more, got an empty one"),
    ("command = ['']", "jobs.a.command[0]: the program's name is empty"),
    ("command = 'curl x'", 'jobs.a.command: expected a list of arguments like ["curl", "-fsSL"], got "curl x"'),
    ("command = ['sleep', 5]", 'jobs.a.command[1]: expected text, got 5; write "5"'),
    ('command = ["a\\u0000b"]', "jobs.a.command[0]: a NUL character"),
    (
        "command = ['x', '{url}']",
        "jobs.a.command[1]: there is no parameter for {url}; declare it in params, or write {{url}}",
    ),
    (
        "command = ['x', '{ulr}']\nparams = { url = 'x' }",
        "jobs.a.command[1]: there is no parameter for {ulr}; did you mean {url}?",
    ),
    ("command = ['x', 'a{l}']\nparams = { l = [] }", "jobs.a.command[1]: {l} is an array: it can only stand alone"),
    (
        "command = ['{p}']\nparams = { p = {} }",
        "jobs.a.command[0]: {p} may be absent or empty, and a command needs its program",
    ),
    ("script = ' '", 'jobs.a.script: expected text, got " "'),
    (
        "python = 'acme.images.resize'",
        'jobs.a.python: expected a function like "package.module:function", '
        'got "acme.images.resize"; did you mean "acme.images:resize"?',
    ),
    (
        "python = 'acme/images.py:resize'",
        'jobs.a.python: expected a function like "package.module:function", '
        'got "acme/images.py:resize"; did you mean "acme.images:resize"?',
    ),
    ("python = 'a:b:c'", "jobs.a.python: expected a function like"),
    ("python = 'a b:c'", "jobs.a.python: expected a function like"),
    ("python = 'm:f'\nresult = 'json'", "jobs.a.result: not for a python job: a Python job's result is"),
    ("python = 'm:f'\nisolation = 'thread'\ntimeout = 1", 'jobs.a.timeout: not with isolation = "thread"'),
]


@pytest.mark.parametrize(("lines", "expected"), WRONG_BODY, ids=[lines for lines, _ in WRONG_BODY])
def test_a_wrong_body_is_said_with_its_path(toml: Toml, lines: str, expected: str) -> None:
    problem = toml.problem(f"[jobs.a]\n{lines}")
    assert problem.startswith(expected)
