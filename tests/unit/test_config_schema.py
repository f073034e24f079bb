"""The JSON Schema of `jobs.toml`: all that the reader knows, nothing else, and no right file underlined.

That no editor underlines what is right is also tried on every file that another unit test reads: see `toml_file`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from editor import DRAFTS, underlined
from toml_file import Toml

from hueyctl.config import starter
from hueyctl.config.declared import PARAM
from hueyctl.config.flows import STEP
from hueyctl.config.load import FILE, TABLES
from hueyctl.config.reading import Keys
from hueyctl.config.schema import schema

ROOT = Path(__file__).parents[2]
JOB = '[jobs.fetch]\ncommand = ["true"]\n'
COMMON_WORDS = set(
    "$schema $ref $defs title description default type enum const properties required additionalProperties "
    "propertyNames items minItems pattern maxLength minimum maximum allOf anyOf oneOf not if then else".split()
)


def table(written: str) -> dict[str, Any]:
    """The schema of a table, as `[worker]`, `[jobs.NAME]`, `param` or `step`."""
    section, _, name = written.strip("[]").partition(".")
    found: dict[str, Any] = schema()["$defs"].get(written) or schema()["properties"][section]
    return found["additionalProperties"] if name else found


ALL: dict[str, Keys] = {**TABLES, "param": PARAM, "step": STEP}


def test_the_schema_has_every_section_and_no_other() -> None:
    found = schema()
    assert list(found["properties"]) == list(FILE)
    assert {written.strip("[]").partition(".")[0] for written in TABLES} == set(FILE)
    assert found["additionalProperties"] is False


@pytest.mark.parametrize("written", ALL)
def test_the_schema_has_every_key_of_a_table_with_its_meaning_and_no_other(written: str) -> None:
    found = table(written)
    assert list(found["properties"]) == list(ALL[written])
    assert found["additionalProperties"] is False
    for described in found["properties"].values():
        meaning = described["description"]
        assert meaning.isascii()
        assert meaning.endswith(".")


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_schema_is_one(draft: Any) -> None:
    draft.check_schema(schema())


def test_the_schema_means_the_same_in_draft_7() -> None:
    """Which passes over newer words, and over all that stands beside a `$ref`."""
    for node in nodes(schema()):
        assert node.keys() <= COMMON_WORDS
        assert "$ref" not in node or len(node) == 1
        assert isinstance(node.get("items", {}), dict)


def nodes(found: object) -> Iterator[dict[str, Any]]:
    """Each schema within a schema, itself included."""
    if not isinstance(found, dict):
        return
    yield found
    for word, value in found.items():
        if word in ("properties", "$defs"):
            inner = list(value.values())
        else:
            inner = value if word in ("allOf", "anyOf", "oneOf") else [value] if word != "default" else []
        for each in inner:
            yield from nodes(each)


@pytest.mark.parametrize("text", [
    (ROOT / "jobs.toml").read_text(),
    (ROOT / "examples/tutorial/jobs.toml").read_text(),
    starter("Europe/Berlin"),
    "",
], ids=["repository", "tutorial", "init", "empty"])  # fmt: skip
def test_what_is_right_is_not_underlined(text: str) -> None:
    assert underlined(text) == []


WRONG = [
    ("[job.a]", "$"),
    ("jobs = 3", "$.jobs"),
    ("retries = 3", "$"),
    ("[worker]\nworkers = 3", "$.worker"),
    ("[worker]\nconcurrency = 0", "$.worker.concurrency"),
    ("[worker]\nconcurrency = true", "$.worker.concurrency"),
    ("[worker]\nlease = 0.5", "$.worker.lease"),
    ("[worker]\nqueues = []", "$.worker.queues"),
    ("[worker]\nresult_max = '10 apples'", "$.worker.result_max"),
    ("[worker]\nresult_max = 300_000_000", "$.worker.result_max"),
    ("[queues.a]\nlimit = 1", "$.queues.a"),
    ("[queues.'a b']", "$.queues"),
    ("[retention]\nevents = true", "$.retention.events"),
    ("[hueyctl]\nstore = ' '", "$.hueyctl.store"),
    ("[hueyctl]\npythonpath = 'src'", "$.hueyctl.pythonpath"),
    ("[defaults]\nretrys = 3", "$.defaults"),
    ("[defaults]\nunique = 'jobs'", "$.defaults.unique"),
    ("[jobs.last]\nscript = 'x'", "$.jobs"),
    ("[jobs.-a]\nscript = 'x'", "$.jobs"),
    (f"[jobs.{'a' * 101}]\nscript = 'x'", "$.jobs"),
    ("[jobs.a]", "$.jobs.a"),
    ("[jobs.a]\nretries = 1", "$.jobs.a"),
    ("[jobs.a]\ncommand = ['x']\nscript = 'x'", "$.jobs.a"),
    ("[defaults]\nscript = 'x'\n[jobs.a]\ncommand = ['x']\npython = 'a:b'", "$.jobs.a"),
    ("[jobs.a]\ncommand = 'x'", "$.jobs.a.command"),
    ("[jobs.a]\ncommand = []", "$.jobs.a.command"),
    ("[jobs.a]\ncommand = ['x', 1]", "$.jobs.a.command[1]"),
    ("[jobs.a]\npython = 'a.b.c'", "$.jobs.a.python"),
    ("[jobs.a]\nscript = 'x'\nisolation = 'thread'", "$.jobs.a"),
    ("[jobs.a]\npython = 'a:b'\nshell = ['sh']", "$.jobs.a"),
    ("[jobs.a]\npython = 'a:b'\nresult = 'json'", "$.jobs.a"),
    ("[jobs.a]\npython = 'a:b'\nisolation = 'thread'\ntimeout = 1", "$.jobs.a"),
    (JOB + "retries = 'three'", "$.jobs.fetch.retries"),
    (JOB + "retries = -1", "$.jobs.fetch.retries"),
    (JOB + "retries = 1.5", "$.jobs.fetch.retries"),
    (JOB + "retry_backoff = 0.5", "$.jobs.fetch.retry_backoff"),
    (JOB + "retry_delay = -1", "$.jobs.fetch.retry_delay"),
    (JOB + "retry_delay = '5m 1h'", "$.jobs.fetch.retry_delay"),
    (JOB + "timeout = 0", "$.jobs.fetch.timeout"),
    (JOB + "timeout = [1]", "$.jobs.fetch.timeout"),
    (JOB + "success_codes = [256]", "$.jobs.fetch.success_codes[0]"),
    (JOB + "success_codes = []", "$.jobs.fetch.success_codes"),
    (JOB + "rate_limit = 10", "$.jobs.fetch.rate_limit"),
    (JOB + "rate_limit = '10'", "$.jobs.fetch.rate_limit"),
    (JOB + "inherit_env = 'yes'", "$.jobs.fetch.inherit_env"),
    (JOB + "env = { A = 1 }", "$.jobs.fetch.env.A"),
    (JOB + "env = { 'A=B' = 'x' }", "$.jobs.fetch.env"),
    (JOB + "on_failure = 'a b'", "$.jobs.fetch.on_failure"),
    (JOB + "params = ['a']", "$.jobs.fetch.params"),
    (JOB + "params = { Big = 1 }", "$.jobs.fetch.params"),
    (JOB + "params = { a = 1979-05-27, b = { type = 'text' } }", "$.jobs.fetch.params.b.type"),
    (JOB + "params = { a = { typ = 'string' } }", "$.jobs.fetch.params.a"),
    (JOB + "params = { a = { default = {} } }", "$.jobs.fetch.params.a.default"),
    (JOB + "params = { a = { default = 'x', required = true } }", "$.jobs.fetch.params.a"),
    (JOB + "params = { a = { choices = [] } }", "$.jobs.fetch.params.a.choices"),
    (JOB + "[pipelines.p]", "$.pipelines.p"),
    (JOB + "[pipelines.last]\nsteps = ['fetch']", "$.pipelines"),
    (JOB + "[pipelines.p]\nsteps = 'fetch'", "$.pipelines.p.steps"),
    (JOB + "[pipelines.p]\nsteps = ['fetch', []]", "$.pipelines.p.steps[1]"),
    (JOB + "[pipelines.p]\nsteps = ['fetch', ['fetch', 1]]", "$.pipelines.p.steps[1][1]"),
    (JOB + "[pipelines.p]\nsteps = [{ params = {} }]", "$.pipelines.p.steps[0]"),
    (JOB + "[pipelines.p]\nsteps = [[{ job = 'fetch', parms = {} }]]", "$.pipelines.p.steps[0][0]"),
    (JOB + "[schedules.fetch]", "$.schedules.fetch"),
    (JOB + "[schedules.fetch]\nevery = 1\ncron = '* * * * *'", "$.schedules.fetch"),
    (JOB + "[schedules.fetch]\nevery = 0.05", "$.schedules.fetch.every"),
    (JOB + "[schedules.fetch]\ncron = '5 5'", "$.schedules.fetch.cron"),
    (JOB + "[schedules.fetch]\nat = 'soon'", "$.schedules.fetch.at"),
    (JOB + "[schedules.fetch]\nat = 07:32:00", "$.schedules.fetch.at"),
    (JOB + "[schedules.fetch]\nat = 2030-01-01\nend = 2031-01-01", "$.schedules.fetch"),
    (JOB + "[schedules.fetch]\ncron = '* * * * *'\noffset = 1", "$.schedules.fetch"),
    (JOB + "[schedules.s]\nevery = 1\njob = 'fetch'\npipeline = 'fetch'", "$.schedules.s"),
    (JOB + "[schedules.fetch]\nevery = 1\noverlap = 'kill'", "$.schedules.fetch.overlap"),
    (JOB + "[schedules.fetch]\nevery = 1\ncatch_up_max = 0", "$.schedules.fetch.catch_up_max"),
]


@pytest.mark.parametrize(("text", "place"), WRONG, ids=[text.removeprefix(JOB)[:40] for text, _ in WRONG])
def test_what_the_reader_refuses_for_its_shape_is_underlined_there(toml: Toml, text: str, place: str) -> None:
    assert toml.problems(text)
    assert {found.split(": ")[0] for found in underlined(text)} == {place}


def test_a_job_may_have_its_body_from_the_defaults(toml: Toml) -> None:
    toml.read("[defaults]\nscript = 'x'\n[jobs.a]\n[jobs.b]\ncommand = ['x']")
    toml.read("[defaults]\nscript = 'x'\n[jobs.a]\nshell = ['sh']")


DEFAULTS = [
    (written, key, found["default"])
    for written in TABLES
    for key, found in table(written)["properties"].items()
    if "default" in found
]


@pytest.mark.parametrize(("written", "key", "default"), DEFAULTS)
def test_a_default_that_is_written_changes_nothing(toml: Toml, written: str, key: str, default: object) -> None:
    assert toml.read(with_values(written, key, {})) == toml.read(with_values(written, key, {key: default}))


def with_values(written: str, key: str, values: dict[str, object]) -> str:
    """A right file with these values in a table of that kind, where the key means something."""
    body = {"shell": {"script": "x"}, "isolation": {"python": "a:b"}}.get(key, {"command": ["x"]})
    document: dict[str, Any] = {"jobs": {"x": body}, "schedules": {"x": {"every": "1h"}}}
    section, _, name = written.strip("[]").partition(".")
    found = document.setdefault(section, {})
    (found.setdefault("x", {}) if name else found).update(values)
    return tomli_w.dumps(document)


def test_defaults_are_written_as_people_write_them() -> None:
    found = {(written, key): default for written, key, default in DEFAULTS}
    assert found["[hueyctl]", "store"] == ".hueyctl/queue.db"
    assert found["[retention]", "failed"] == "30d"
    assert found["[jobs.NAME]", "success_codes"] == [0]
    assert found["[defaults]", "shell"] == ["bash", "-eo", "pipefail", "-c"]
    assert found["[schedules.NAME]", "overlap"] == "skip"
    # "None" is no value that could be written.
    assert not found.keys() & {("[jobs.NAME]", "timeout"), ("[jobs.NAME]", "description"), ("[worker]", "queues")}
