"""The file as a whole: its settings, its sections, and that everything wrong is said at once, safely."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from toml_file import Toml

from hueyctl.config.load import FILE, TABLES
from hueyctl.errors import ConfigError
from hueyctl.model.definition import Project, QueueSettings, Retention, WorkerSettings

JOB = '[jobs.fetch]\ncommand = ["true"]\n'


def test_an_empty_file_has_every_default(toml: Toml) -> None:
    project = toml.read("")
    assert project == Project(
        path=toml.path,
        store=str(toml.dir / ".hueyctl" / "queue.db"),
        pythonpath=(toml.dir,),
        timezone="UTC",
        worker=WorkerSettings(),
        retention=Retention(),
    )


def test_the_settings_become_their_types(toml: Toml) -> None:
    project = toml.read(
        """
        [hueyctl]
        store = "state/q.db"
        interpreter = "venv/bin/python"
        pythonpath = ["src", "/opt/lib"]
        timezone = "Europe/Berlin"
        [worker]
        concurrency = 8
        queues = ["fast", "slow"]
        lease = "1m"
        shutdown_timeout = 0
        output_max = "1.5MiB"
        result_max = 1000
        max_runs_per_child = 5
        [queues.fast]
        concurrency = 2
        [retention]
        succeeded = "1d"
        failed = "2d"
        events = "3d"
        """,
    )
    assert project.store == str(toml.dir / "state" / "q.db")
    assert project.interpreter == toml.dir / "venv/bin/python"
    assert project.pythonpath == (toml.dir / "src", Path("/opt/lib"))
    assert project.timezone == "Europe/Berlin"
    assert project.worker == WorkerSettings(
        concurrency=8,
        queues=("fast", "slow"),
        lease=timedelta(minutes=1),
        shutdown_timeout=timedelta(0),
        output_max=1_572_864,
        result_max=1000,
        max_runs_per_child=5,
    )
    assert project.queues == {"fast": QueueSettings(concurrency=2)}
    assert project.retention == Retention(
        succeeded=timedelta(days=1), failed=timedelta(days=2), events=timedelta(days=3)
    )


def test_the_store_can_be_overridden_and_home_is_expanded(toml: Toml, monkeypatch: pytest.MonkeyPatch) -> None:
    assert toml.read('[hueyctl]\nstore = "a.db"', HUEYCTL_STORE="b.db").store == str(toml.dir / "b.db")
    assert toml.read("", HUEYCTL_STORE="postgresql://u:p@h/d").store == "postgresql://u:p@h/d"
    monkeypatch.setenv("HOME", "/home/ada")
    assert toml.read('[hueyctl]\nstore = "~/a.db"').store == "/home/ada/a.db"


def test_a_bare_interpreter_is_left_to_the_path(toml: Toml) -> None:
    assert toml.read('[hueyctl]\ninterpreter = "python3.12"').interpreter == Path("python3.12")


def test_a_store_address_with_its_password_is_in_no_message(toml: Toml) -> None:
    problem = toml.problem('[hueyctl]\nstore = "mysql://u:hunter2@h/d"')
    assert problem == "hueyctl.store: expected a path, or an address that begins with postgresql://"
    with pytest.raises(ConfigError) as caught:
        toml.read("", HUEYCTL_STORE="mysql://u:hunter2@h/d")
    assert caught.value.problems[0].startswith("jobs.toml: HUEYCTL_STORE: expected a path")
    assert "hunter2" not in caught.value.message


WRONG_FILE = [
    ("jobs = 3", "jobs: expected a table, got 3"),
    ("[jobs]\na = 'x'", 'jobs.a: expected a table, got "x"'),
    ("[job.a]", 'job: unknown key; did you mean "jobs"?'),
    ("retries = 3", 'retries: unknown key; did you mean "retries" in [jobs.NAME]?'),
    ("defaults = 3", "defaults: expected a table, got 3"),
    ("[defaults]\nretrys = 3", 'defaults.retrys: unknown key; did you mean "retries"?'),
    ("[defaults]\non_failure = 'fetsh'", 'defaults.on_failure: there is no job "fetsh"; did you mean "fetch"?'),
    ("[hueyctl]\nconcurrency = 3", 'hueyctl.concurrency: unknown key; did you mean "concurrency" in [worker]?'),
    ("[jobs.'a b']\ncommand = ['x']", 'jobs."a b": expected a name of letters, digits'),
    ("[jobs.'']\ncommand = ['x']", 'jobs."": expected a name of letters, digits'),
    ("[jobs.-a]\ncommand = ['x']", "jobs.-a: expected a name of letters, digits"),
    ("[jobs.'é']\ncommand = ['x']", 'jobs."é": expected a name of letters, digits'),
    ("[jobs.last]\ncommand = ['x']", 'jobs.last: "last" means the newest run; choose another name'),
    (f"[jobs.{'a' * 101}]\ncommand = ['x']", f"jobs.{'a' * 101}: expected a name of at most 100 characters"),
    ('[jobs."a\\u001b[31m"]\ncommand = ["x"]', 'jobs."a\\x1b[31m": expected a name'),
    (
        "[hueyctl]\ntimezone = 'Europe/Berln'",
        'hueyctl.timezone: expected an IANA time zone like Europe/Berlin, got "Europe/Berln"; '
        'did you mean "Europe/Berlin"?',
    ),
    ("[hueyctl]\ntimezone = 'Europe'", "hueyctl.timezone: expected an IANA time zone"),
    ("[hueyctl]\npythonpath = 'src'", 'hueyctl.pythonpath: expected a list, got "src"'),
    ("[worker]\nworkers = 3", 'worker.workers: unknown key; did you mean "concurrency"?'),
    ("[worker]\nconcurrency = 0", "worker.concurrency: expected an integer from 1 to 1000, got 0"),
    ("[worker]\nlease = '10ms'", 'worker.lease: expected a duration of 1s or more, got "10ms"'),
    ("[worker]\nqueues = []", "worker.queues: expected a list of one or more, got an empty one"),
    (
        "[worker]\noutput_max = '10 apples'",
        'worker.output_max: expected a size like "10MiB", or a number of bytes, got "10 apples"',
    ),
    ("[worker]\nresult_max = '1GiB'", "worker.result_max: expected a size from 1 to 268435456 bytes"),
    ("[queues.a]\nlimit = 1", "queues.a.limit: unknown key"),
    ("[retention]\nevents = true", "retention.events: expected a duration like"),
]


@pytest.mark.parametrize(("text", "expected"), WRONG_FILE, ids=[text.split("\n")[0][:30] for text, _ in WRONG_FILE])
def test_a_wrong_table_is_said_with_its_path(toml: Toml, text: str, expected: str) -> None:
    problem = toml.problem(f"{text}\n{JOB}" if "[jobs]" not in text and "jobs =" not in text else text)
    assert problem.startswith(expected)


def test_everything_that_is_wrong_is_said_at_once(toml: Toml) -> None:
    found = toml.problems(
        """
        [worker]
        concurrency = "many"
        [jobs.a]
        retries = "three"
        command = ["x", "{ulr}"]
        params = { url = "x", Bad = 1 }
        dir = 5
        [jobs.b]
        [schedules.a]
        every = "soon"
        [pipelines.p]
        steps = ["a", "nowhere"]
        """,
    )
    assert [problem.split(": ")[0] for problem in found] == [
        "worker.concurrency",
        "jobs.a.retries",
        "jobs.a.params.Bad",
        "jobs.a.dir",
        "jobs.a.command[1]",
        "jobs.b",
        "pipelines.p.steps[1]",
        "schedules.a.every",
    ]


def test_a_problem_shows_what_was_found_without_control_characters_and_not_too_much_of_it(toml: Toml) -> None:
    problem = toml.problem(JOB + 'queue = "\\u001b[31m[red]\\n' + "x" * 10_000 + '"')
    assert problem.isprintable()
    assert '"\\x1b[31m[red]\\n' in problem
    assert len(problem) < 300


def test_the_value_of_a_secret_is_in_no_message(toml: Toml) -> None:
    problem = toml.problem(JOB + "params = { t = { type = 'integer', secret = true, default = 'hunter2' } }")
    assert problem == "jobs.fetch.params.t.default: expected an integer"
    problem = toml.problem(JOB + "env = { TOKEN = ['hunter2'] }")
    assert "hunter2" not in problem


VALUES = ["1", "1.5", "true", "'x'", "''", '"\\u0000"', "[]", "[[1]]", "{}", "{ a = 1 }", "{ a = {} }", "1979-05-27"]
VALUES += ["07:32:00", "1979-05-27T07:32:00Z", "nan", "-inf", "'{x}'", "['{x}']", "[{}]"]


@pytest.mark.parametrize("section", ["", *TABLES])
def test_any_value_in_any_place_is_taken_or_a_problem_and_never_breaks(toml: Toml, section: str) -> None:
    """Each known key of each section is given values of every TOML type."""
    for key in TABLES[section] if section else FILE:
        for value in VALUES:
            text = f"{section.replace('NAME', 'x')}\n{key} = {value}"
            try:
                toml.read(text)
            except ConfigError:
                assert toml.problems(text)


DOCUMENTATION = Path(__file__).parents[2] / "docs" / "jobs-toml.md"


@pytest.mark.parametrize("section", TABLES)
def test_every_key_is_documented(section: str) -> None:
    text = DOCUMENTATION.read_text()
    assert [key for key in TABLES[section] if f"`{key}`" not in text] == []


def test_the_examples_of_the_documentation_are_right(toml: Toml) -> None:
    examples = DOCUMENTATION.read_text().split("```toml\n")[1:]
    assert len(examples) == 4
    for example in examples:
        toml.read(example.split("```")[0])


@pytest.mark.parametrize(
    "store",
    [
        "postgresql:/app:s3cret@host/app",
        "postgresql:app:s3cret@host/app",
        "Postgres:x",
        "host=127.0.0.1 dbname=app password=s3cret",
        "user = app password = s3cret",
        "postgresql://app:pa@s3cret@host/db",
    ],
)
def test_what_is_nearly_an_address_is_no_file_and_not_repeated(toml: Toml, store: str) -> None:
    for text, environ in ((f"[hueyctl]\nstore = '{store}'", {}), ("", {"HUEYCTL_STORE": store})):
        problem = toml.problem(text, **environ)
        assert "address" in problem
        assert "s3cret" not in problem
