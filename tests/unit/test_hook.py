"""What a hook is given: what its job declares, as the types it declares, and no secret of the run that it follows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from toml_file import Toml

from hueyctl.errors import UsageError
from hueyctl.model.definition import Project
from hueyctl.model.hook import TEXT_MAX, Occasion, hook_run
from hueyctl.model.mask import Mask
from hueyctl.model.run import Message, NewRun, Run, RunState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = Run(
    n=7,
    id="7c1e2f6a-90d4-4c5b-8f3e-2a1b0c9d8e7f",
    job="fetch",
    state=RunState.FAILED,
    queue="default",
    priority=0,
    message=Message(params={"token": "hunter22", "n": 5}, secrets=("token",)),
    attempt=2,
    enqueued_at=NOW,
    due_at=NOW,
    exit_code=3,
    reason="exited with 3: no hunter22",
)
ALERT = """
[jobs.fetch]
script = "x"
on_failure = "alert"
params = { token = { required = true, secret = true }, n = 1 }
[jobs.alert]
script = "x"
queue = "alerts"
priority = 9
expires = "1h"
lock = "alert-{job}"
"""


def project(toml: Toml, params: str) -> Project:
    return toml.read(f"{ALERT}params = {{ {params} }}\n" if params else ALERT.replace("-{job}", ""))


def made(toml: Toml, params: str, run: Run | None = RUN, output: str | None = "bye\n", **occasion: Any) -> NewRun:
    if run is not None:
        occasion = {"job": run.job, "state": run.state.value, "reason": run.reason, "run": run, **occasion}
        occasion["mask"] = Mask.of(run)
    return hook_run(project(toml, params), "alert", Occasion(**occasion), output, "i" * 36)


EVERYTHING = 'run = "", job = "", state = "", error = "", exit_code = 0, output = ""'


def test_it_is_given_all_that_it_declares_without_the_secrets(toml: Toml) -> None:
    new = made(toml, EVERYTHING)
    assert new.message.params == {
        "run": RUN.id,
        "job": "fetch",
        "state": "failed",
        "error": "exited with 3: no ***",
        "exit_code": 3,
        "output": "bye\n",
    }
    assert (new.id, new.trigger, new.queue, new.priority, new.expires_s) == ("i" * 36, "hook", "alerts", 9, 3600)
    assert new.lock_key == "alert-fetch"


def test_it_is_given_nothing_that_it_does_not_declare(toml: Toml) -> None:
    assert made(toml, "").message.params == {}
    new = made(toml, 'job = { required = true }, channel = "#ops"')
    assert new.message.params == {"job": "fetch", "channel": "#ops"}


@pytest.mark.parametrize(("type", "value"), [("integer", 3), ("number", 3), ("string", "3")])
def test_the_exit_code_is_of_the_type_that_is_declared(toml: Toml, type: str, value: object) -> None:
    params = made(toml, f'job = "", exit_code = {{ type = "{type}" }}').message.params
    assert params["exit_code"] == value
    assert type == "number" or isinstance(params["exit_code"], str if type == "string" else int)


def test_what_is_not_known_is_the_default_or_absent_or_where_it_is_required_empty(toml: Toml) -> None:
    """A slot that was missed has no run, and what expired no exit code and no output."""
    declared = """run = { required = true }, job = "", exit_code = -1, output = { type = "string" },
        state = "none", error = { required = true }""".replace("\n", "")
    missed = made(toml, declared, None, None, job="fetch", state="missed", reason="late", schedule="s", slot=NOW)
    assert missed.message.params == {"run": "", "job": "fetch", "exit_code": -1, "state": "missed", "error": "late"}
    succeeded = msgspec.structs.replace(RUN, state=RunState.SUCCEEDED, reason=None, exit_code=None)
    new = made(toml, declared, succeeded)
    assert new.message.params["error"] == ""
    assert (new.message.params["exit_code"], new.message.params["output"]) == (-1, "bye\n")


def test_long_errors_are_cut_and_what_no_parameter_can_hold_is_replaced(toml: Toml) -> None:
    params = made(toml, EVERYTHING, output="a\0b", reason="x" * 2 * TEXT_MAX).message.params
    assert params["error"] == "x" * TEXT_MAX
    assert params["output"] == "a\N{REPLACEMENT CHARACTER}b"
    assert made(toml, EVERYTHING, reason="no such file: caf\udce9").message.params["error"] == "no such file: caf?"


def test_what_does_not_fit_is_an_error(toml: Toml) -> None:
    with pytest.raises(UsageError, match='alert: parameter "state"'):
        made(toml, 'job = "", state = { choices = ["expired"] }')


def test_what_is_not_defined_any_more_has_the_hook_of_the_defaults(toml: Toml) -> None:
    assert project(toml, "").on_failure is None
    assert toml.read('[defaults]\non_failure = "alert"\n[jobs.alert]\nscript = "x"').on_failure == "alert"


UNFIT = [
    (
        "channel = { required = true }",
        'requires the parameter "channel", and a hook gives run, job, state, error, exit_code, output alone; '
        "give it a default",
    ),
    ("run = 5", 'has a parameter "run" of type integer, and a hook gives string'),
    ("exit_code = true", 'has a parameter "exit_code" of type boolean, and a hook gives integer or number or string'),
    (
        'exit_code = { type = "integer", required = true }',
        'requires the parameter "exit_code", which not every end has; give it a default',
    ),
]


@pytest.mark.parametrize(("params", "problem"), UNFIT, ids=[params for params, _ in UNFIT])
def test_a_hook_whose_job_needs_what_none_gives_is_wrong(toml: Toml, params: str, problem: str) -> None:
    text = ALERT.replace("-{job}", "")
    found = toml.problem(f"{text}params = {{ {params} }}\n")
    assert found == f'jobs.fetch.on_failure: the job "alert" {problem}'


def test_a_hook_is_a_job_and_no_pipeline(toml: Toml) -> None:
    text = "[jobs.a]\nscript = 'x'\non_success = 'p'\n[pipelines.p]\nsteps = ['a']\n"
    assert toml.problem(text) == 'jobs.a.on_success: there is no job "p"; it is a pipeline'


def test_a_default_hook_that_is_wrong_is_said_once(toml: Toml) -> None:
    text = "[defaults]\non_success = 'tell'\n[jobs.a]\nscript = 'x'\n[jobs.tell]\nscript = 'x'\nparams = { run = 1 }\n"
    assert toml.problem(text).startswith('defaults.on_success: the job "tell" has a parameter "run"')
