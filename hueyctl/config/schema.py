"""The JSON Schema of `jobs.toml`, for editors: made of the tables of keys by which the file is read.

It takes every file that `hueyctl check` finds right. It refuses what is wrong by its shape (unknown keys, values of a
wrong type, keys that exclude each other), and leaves to `check` what other places decide: names of jobs, placeholders,
values of parameters.

It is of draft 2020-12, and means the same when it is read by draft 7, the newest that taplo knows: so it has neither
`dependentRequired` nor `prefixItems`, and nothing beside a `$ref`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from hueyctl import __version__
from hueyctl.config.declared import PARAM, VALUE
from hueyctl.config.flows import PIPELINE, RULES, STEP
from hueyctl.config.jobs import KINDS, NOT_IN_A_THREAD, ONLY_FOR, SHELL
from hueyctl.config.load import DEFAULT_STORE, FILE, TABLES
from hueyctl.config.reading import Keys, Schema, name
from hueyctl.model.definition import (
    Job,
    Param,
    Pipeline,
    Project,
    PythonBody,
    QueueSettings,
    Retention,
    Schedule,
    WorkerSettings,
)
from hueyctl.model.duration import format_duration


def schema() -> dict[str, Any]:
    """The schema, as plain JSON values."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "jobs.toml",
        "description": f"What can be run, and under which policy: for hueyctl {__version__}.",
        "type": "object",
        "properties": {section: {"description": key.meaning, **_section(section)} for section, key in FILE.items()},
        "additionalProperties": False,
        "if": {"properties": {"defaults": _HAS_BODY}, "required": ["defaults"]},
        "else": {"properties": {"jobs": {"additionalProperties": _HAS_BODY}}},
        # What may be a table or something else: the words for tables say nothing of other values.
        "$defs": {
            "param": {**_table(PARAM, _defaults(Param)), **_PARAM, "type": ["object", *VALUE["type"]]},
            "step": {**_table(STEP, {}), **_STEP, "type": ["object", "string", "array"]},
        },
    }


def _section(section: str) -> dict[str, Any]:
    """A section that is one table, or has tables of one kind by name."""
    one, many = f"[{section}]", f"[{section}.NAME]"
    if one in TABLES:
        return _table(TABLES[one], _DEFAULTS[one])
    return {
        "type": "object",
        "propertyNames": {**name.schema, **_NAMES.get(many, {})},
        "additionalProperties": {**_table(TABLES[many], _DEFAULTS[many]), **_RULES.get(many, {})},
    }


def _table(keys: Keys, defaults: Mapping[str, object]) -> dict[str, Any]:
    """A table that may have these keys and no others."""
    properties = {key: {"description": known.meaning, **known.reader.schema} for key, known in keys.items()}
    for key, default in defaults.items():
        if key in keys:
            properties[key]["default"] = default
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _defaults(definition: type[msgspec.Struct]) -> dict[str, object]:
    """The defaults of a definition as they are written in the file, but for those that say "none"."""
    fields = msgspec.structs.fields(definition)
    return {field.encode_name: _written(field.default) for field in fields if field.default not in _NONE}


def _written(value: object) -> object:
    match value:
        case timedelta():
            return format_duration(value)
        case frozenset():
            return sorted(value)
        case _:
            return value


_NONE = (msgspec.NODEFAULT, None, "", ())

_JOB = {**_defaults(Job), **_defaults(PythonBody), "shell": list(SHELL)}
_DEFAULTS: dict[str, Mapping[str, object]] = {
    "[hueyctl]": {**_defaults(Project), "store": DEFAULT_STORE, "pythonpath": ["."]},
    "[worker]": _defaults(WorkerSettings),
    "[queues.NAME]": _defaults(QueueSettings),
    "[retention]": _defaults(Retention),
    "[defaults]": _JOB,
    "[jobs.NAME]": _JOB,
    "[pipelines.NAME]": _defaults(Pipeline),
    "[schedules.NAME]": _defaults(Schedule),
}


def _where(condition: Schema, *, then: Schema) -> Schema:
    return {"if": condition, "then": then}


def _has(*keys: str) -> Schema:
    return {"required": list(keys)}


def _has_not(keys: Iterable[str]) -> Schema:
    return {"properties": dict.fromkeys(keys, False)}


def _says(key: str, value: object) -> Schema:
    return {"properties": {key: {"const": value}}, "required": [key]}


def _foreign_to(kind: str) -> list[str]:
    """The keys that a job of this kind may not have: the bodies of the others, and what goes with those alone."""
    others = [other for other in KINDS if other != kind]
    return others + [key for key, (kinds, _) in ONLY_FOR.items() if kind not in kinds]


# [defaults] may have the body of jobs that have none.
_HAS_BODY = {"anyOf": [_has(kind) for kind in KINDS]}
_NOT_LAST: Schema = {"not": {"const": "last"}}
_NAMES = {"[jobs.NAME]": _NOT_LAST, "[pipelines.NAME]": _NOT_LAST}
_RULES: dict[str, Schema] = {
    "[jobs.NAME]": {
        "allOf": [
            *(_where(_has(kind), then=_has_not(_foreign_to(kind))) for kind in KINDS),
            _where(_says("isolation", "thread"), then=_has_not(NOT_IN_A_THREAD)),
        ]
    },
    "[pipelines.NAME]": _has("steps"),
    "[schedules.NAME]": {
        "oneOf": [_has(rule) for rule in RULES],
        "allOf": [
            _where(_has("pipeline"), then=_has_not(["job"])),
            _where(_has("offset"), then=_has("every")),
            _where(_has("at"), then=_has_not(["start", "end"])),
        ],
    },
}
_PARAM = _where(_says("required", True), then=_has_not(["default"]))
_STEP: Schema = {**name.schema, **_has("job"), **PIPELINE["steps"].reader.schema}
