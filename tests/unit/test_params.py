"""Parameters against their declarations: every problem is named, and nothing secret is."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hueyctl.errors import UsageError
from hueyctl.model.definition import CommandBody, Job, Param, ParamType
from hueyctl.model.params import completed, environment, from_text, masked, misfit, resolve

URL = Param(name="url", type="string", required=True)
COUNT = Param(name="count", type="integer", default=3)
MODE = Param(name="mode", type="string", choices=("fast", "slow"))
TOKEN = Param(name="token", type="string", secret=True)


def problem(params: tuple[Param, ...], given: dict[str, object]) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(params, given, what="fetch")
    return caught.value.message


def job(*params: Param) -> Job:
    return Job(name="fetch", body=CommandBody(argv=("true",)), dir=Path("/"), params=params)


def test_defaults_fill_in_what_is_not_given_and_an_optional_one_without_default_is_left_out() -> None:
    assert resolve((URL, COUNT, MODE), {"url": "x"}, what="fetch") == {"url": "x", "count": 3}


def test_a_default_that_is_an_array_is_not_shared_between_runs() -> None:
    param = Param(name="a", type="array", default=[1])
    resolve((param,), {}, what="x")["a"].append(2)
    assert resolve((param,), {}, what="x") == {"a": [1]}


def test_every_problem_is_named_at_once() -> None:
    assert problem((URL, COUNT, MODE), {"ulr": "x", "count": "many", "mode": "fats"}) == (
        'fetch: parameter "url" is required; parameter "count": expected an integer, got "many"; '
        'parameter "mode": expected one of "fast", "slow", got "fats"; did you mean "fast"?; '
        'there is no parameter "ulr"; did you mean "url"?'
    )


def test_a_job_without_parameters_says_that_it_takes_none() -> None:
    assert problem((), {"x": 1}) == 'fetch: there is no parameter "x" (it takes none)'


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("string", 1, "expected text, got 1"),
        ("string", None, "expected text, got null"),
        ("string", "a\0b", "without NUL"),
        ("string", "a\ud800b", "valid UTF-8"),
        ("integer", True, "expected an integer, got true"),
        ("integer", 1.0, "expected an integer, got 1.0"),
        ("integer", 2**63, "an integer of 64 bits"),
        ("integer", -(2**63) - 1, "an integer of 64 bits"),
        ("integer", 10**100, "got a huge integer"),
        ("number", False, "expected a number, got false"),
        ("number", "1", 'expected a number, got "1"'),
        ("number", float("nan"), "a finite number"),
        ("number", float("inf"), "a finite number"),
        ("number", 2**64, "a number of 64 bits"),
        ("boolean", 1, "expected true or false, got 1"),
        ("array", "a", 'expected an array, got "a"'),
        ("array", {"a": 1}, "expected an array, got a table"),
        ("array", ["a\ud800"], "valid UTF-8"),
        ("array", [float("nan")], "a finite number"),
        ("array", [datetime(2026, 1, 1)], "a date or time is none"),
        ("array", [b"x"], "bytes is none"),
    ],
)
def test_a_value_of_another_type_is_refused(kind: ParamType, value: object, expected: str) -> None:
    assert expected in problem((Param(name="p", type=kind),), {"p": value})


def test_an_array_that_holds_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert "nested at most" in problem((Param(name="p", type="array"),), {"p": endless})


def test_what_users_wrote_is_quoted_and_cut_in_a_message() -> None:
    message = problem((COUNT,), {"count": "\x1b[31m\n" + "x" * 500})
    assert "\x1b" not in message
    assert "\n" not in message
    assert len(message) < 200


def test_values_come_out_as_plain_json_types() -> None:
    class Level(StrEnum):
        HIGH = "high"

    class Number(IntEnum):
        ONE = 1

    params = (Param(name="s", type="string"), Param(name="i", type="integer"), Param(name="a", type="array"))
    values = resolve(params, {"s": Level.HIGH, "i": Number.ONE, "a": (Level.HIGH, (1,))}, what="x")
    assert values == {"s": "high", "i": 1, "a": ["high", [1]]}
    assert [type(value) for value in values.values()] == [str, int, list]
    assert type(values["a"][0]) is str


@pytest.mark.parametrize("kind", ["string", "integer", "number", "boolean", "array"])
def test_no_message_repeats_the_value_of_a_secret(kind: ParamType) -> None:
    secret = Param(name="p", type=kind, secret=True, choices=("other", 1))
    for value in ("hunter2", ["hunter2"], "hunter2\0"):
        assert "hunter2" not in problem((secret,), {"p": value})
        assert "other" not in problem((secret,), {"p": value})
        assert "hunter2" not in str(misfit(job(secret), {"p": value}))
    if kind != "string":
        with pytest.raises(UsageError) as caught:
            from_text(secret, "hunter2")
        assert "hunter2" not in caught.value.message
    assert "hunter2" not in problem((Param(name="p", type="array", secret=True),), {"p": [{"hunter2"}]})


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "", ""),
        ("string", "[1]", "[1]"),
        ("string", "007", "007"),
        ("integer", "-7", -7),
        ("integer", "+7", 7),
        ("number", "7", 7),
        ("number", "1.5", 1.5),
        ("number", ".5e-3", 0.0005),
        ("boolean", "true", True),
        ("boolean", "No", False),
        ("boolean", "1", True),
        ("boolean", "off", False),
        ("array", '["a", 1, [true, null]]', ["a", 1, [True, None]]),
        ("array", "[]", []),
    ],
)
def test_text_becomes_a_value_of_the_declared_type(kind: ParamType, text: str, value: object) -> None:
    found = from_text(Param(name="p", type=kind), text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("string", "a\udcffb"),
        ("integer", "1.0"),
        ("integer", "1_000"),
        ("integer", " 1"),
        ("integer", "٣"),
        ("integer", "0x10"),
        ("integer", "9" * 5000),
        ("integer", "9223372036854775808"),
        ("number", "nan"),
        ("number", "inf"),
        ("number", "1e999"),
        ("number", "."),
        ("boolean", "maybe"),
        ("boolean", ""),
        ("array", "a,b"),
        ("array", '{"a": 1}'),
        ("array", '"a"'),
        ("array", "[1"),
        ("array", "[NaN]"),
        ("array", '["\\ud800"]'),
        ("array", "[" * 20_000),
        ("array", "[" * 100 + "]" * 100),
        ("array", "\udcff"),
    ],
)
def test_text_that_means_nothing_of_the_type_is_a_usage_error(kind: ParamType, text: str) -> None:
    with pytest.raises(UsageError, match='parameter "p": expected'):
        from_text(Param(name="p", type=kind), text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(st.lists(json_values, max_size=5))
def test_any_json_array_is_taken_unchanged_from_text_and_as_a_value(value: list[Any]) -> None:
    param = Param(name="p", type="array")
    assert resolve((param,), {"p": value}, what="x") == {"p": value}
    assert from_text(param, msgspec.json.encode(value).decode()) == value


@given(st.dictionaries(st.sampled_from(["url", "count", "mode", "x"]), json_values))
def test_parameters_are_taken_whole_or_refused_and_what_is_taken_fits(given_params: dict[str, object]) -> None:
    try:
        values = resolve((URL, COUNT, MODE), given_params, what="fetch")
    except UsageError:
        return
    assert misfit(job(URL, COUNT, MODE), values) is None
    assert msgspec.json.decode(msgspec.json.encode(values)) == values


def test_stored_parameters_fit_until_the_definition_asks_for_something_else() -> None:
    stored: dict[str, Any] = {"url": "x", "count": 3}
    assert misfit(job(URL, COUNT), stored) is None
    assert misfit(job(URL, COUNT, MODE), stored) is None
    assert misfit(job(URL), stored) == 'there is no parameter "count"'
    assert misfit(job(URL, Param(name="count", type="string")), stored) == 'parameter "count": expected text, got 3'
    assert misfit(job(URL, COUNT, Param(name="new", type="string", required=True)), stored) == (
        'parameter "new" is required now'
    )
    assert misfit(job(URL, Param(name="count", type="integer", choices=(1, 2))), stored) == (
        'parameter "count": expected one of 1, 2, got 3'
    )


def test_a_parameter_declared_after_acceptance_gets_its_default_and_no_other_changes() -> None:
    since = Param(name="since", type="string", default="always")
    assert completed((URL, COUNT, MODE, since), {"url": "x", "count": 7}) == {"url": "x", "count": 7, "since": "always"}


def test_the_environment_has_each_parameter_in_capitals_and_as_text() -> None:
    params = {"url": "a\nb $(x)", "n": 1, "x": 1.0, "y": 1e-7, "flag": False, "files": ["é", 1, True]}
    assert environment(params) == {
        "PARAM_URL": "a\nb $(x)",
        "PARAM_N": "1",
        "PARAM_X": "1",
        "PARAM_Y": "1e-07",
        "PARAM_FLAG": "false",
        "PARAM_FILES": '["é",1,true]',
    }


def test_secrets_are_masked_whatever_their_type() -> None:
    assert masked({"token": "hunter2", "pin": 1234, "url": "x"}, ["token", "pin"]) == {
        "token": "***",
        "pin": "***",
        "url": "x",
    }
