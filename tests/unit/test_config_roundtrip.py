"""A law: what is written as TOML is read as exactly those definitions, whatever the text in it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from toml_file import Toml

from hueyctl.model.command import placeholders
from hueyctl.model.definition import Body, CommandBody, Job, Param, PythonBody, ScriptBody
from hueyctl.model.duration import LONGEST, format_duration

# tomli_w can't write surrogates, and no text in jobs.toml may hold NUL.
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
filled = texts.filter(lambda text: bool(text.strip()))
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}", fullmatch=True).filter(lambda name: name != "last")
param_names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
durations = st.timedeltas(min_value=timedelta(0), max_value=LONGEST)
counts = st.integers(0, 2**63 - 1)
codes = st.frozensets(st.integers(0, 255), min_size=1)

defaults = st.one_of(
    texts,
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(texts, max_size=3),
)

jobs = st.fixed_dictionaries(
    {},
    optional={
        "description": texts,
        "params": st.dictionaries(param_names, defaults, max_size=4),
        "env": st.dictionaries(st.from_regex(r"E_[A-Z]{0,5}", fullmatch=True), texts, max_size=3),
        "inherit_env": st.booleans(),
        "queue": names,
        "priority": st.integers(-(2**63), 2**63 - 1),
        "retries": counts,
        "retry_delay": durations,
        "retry_backoff": st.floats(1, 1e6),
        "success_codes": codes,
        "retry_exit_codes": codes,
        "kill_after": durations,
        "crash_limit": st.integers(1, 2**63 - 1),
        "on_worker_lost": st.sampled_from(["retry", "fail"]),
        "lock": filled.filter(lambda text: not placeholders([text])),
    },
)
bodies = st.one_of(
    st.fixed_dictionaries(
        {"command": st.lists(texts.filter(lambda text: not placeholders([text])), min_size=1)}
    ).filter(lambda body: bool(body["command"][0].strip())),
    st.fixed_dictionaries({"script": filled}),
    st.just({"python": "package.module:function"}),
)


def written(value: Any) -> Any:
    """The value as a person would write it."""
    if isinstance(value, timedelta):
        return format_duration(value)
    return sorted(value) if isinstance(value, frozenset) else value


def types(params: dict[str, Any]) -> tuple[Param, ...]:
    kinds: dict[type, Any] = {str: "string", int: "integer", bool: "boolean", float: "number", list: "array"}
    return tuple(Param(name=name, type=kinds[type(value)], default=value) for name, value in params.items())


def made(path: Path, name: str, values: dict[str, Any], body: dict[str, Any]) -> Job:
    """The same definition, without any TOML."""
    made_body: Body
    if "command" in body:
        made_body = CommandBody(argv=tuple(body["command"]))
    elif "script" in body:
        made_body = ScriptBody(text=body["script"], shell=("bash", "-eo", "pipefail", "-c"))
    else:
        made_body = PythonBody(target=body["python"])
    values = {**values, "params": types(values.get("params", {}))}
    return Job(**{"name": name, "body": made_body, "dir": path.parent, **values})


@given(name=names, values=jobs, body=bodies)
def test_a_definition_written_as_toml_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, name: str, values: dict[str, Any], body: dict[str, Any]
) -> None:
    # In a folder of its own: lying above those of all tests, the file would be found by each that has none.
    folder = tmp_path_factory.getbasetemp() / "roundtrip"
    folder.mkdir(exist_ok=True)
    toml = Toml(folder / "jobs.toml")
    text = tomli_w.dumps({"jobs": {name: {key: written(value) for key, value in (values | body).items()}}})
    assert toml.read(text).jobs == {name: made(toml.path, name, values, body)}
