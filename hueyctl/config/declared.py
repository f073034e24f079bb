"""Declared parameters: `name = default`, or a table that says more."""

from __future__ import annotations

from typing import Any

from hueyctl.config.keys import read
from hueyctl.config.reading import At, Key, Keys, flag, one_of, table, takes, text, unread
from hueyctl.model.definition import Param, ParamType
from hueyctl.model.params import checked
from hueyctl.model.wording import shown

_EXPECTED_NAME = "a parameter's name is of lower-case letters, digits and _, and begins with no digit"
_NAMES = {"pattern": "^[a-z_][a-z0-9_]*$"}

VALUE = {"type": ["string", "number", "boolean", "array"]}
"""The JSON Schema of what a parameter can be."""


PARAM: Keys = {
    "type": Key(
        one_of("string", "integer", "number", "boolean", "array"),
        "What its values are; otherwise what the default is, or the first of the choices, or a string.",
    ),
    "default": Key(unread(VALUE), "What a run gets that names no value; without one, an optional parameter is absent."),
    "required": Key(flag, "Whether every run must name a value; excludes a default."),
    "choices": Key(unread({"type": "array", "items": VALUE, "minItems": 1}), "The values that are allowed."),
    "secret": Key(flag, "Masked in everything that hueyctl shows."),
    "description": Key(text, "What it is for."),
}


@takes({"type": "object", "propertyNames": _NAMES, "additionalProperties": {"$ref": "#/$defs/param"}})
def params(at: At, value: object) -> tuple[Param, ...] | None:
    """The parameters that a `params` table declares."""
    found = table(at, value)
    if found is None:
        return None
    declared = [_param(at / name, name, item) for name, item in found.items()]
    return tuple(param for param in declared if param is not None)


@takes({"type": "object", "propertyNames": _NAMES, "additionalProperties": VALUE})
def given(at: At, value: object) -> dict[str, Any] | None:
    """Values for declared parameters: they are checked with the declarations."""
    return table(at, value)


def _param(at: At, name: str, value: object) -> Param | None:
    if not (name.isascii() and name.isidentifier() and name == name.lower()):
        at.wrong(_EXPECTED_NAME)
        return None
    if not isinstance(value, dict):
        kind = _type_of(value)
        if kind is None:
            at.wrong(f"expected a default (text, a number, true, false or a list) or a table, got {shown(value)}")
            return None
        value = {"default": value}
    count = len(at.problems)
    found = read(at, value, PARAM)
    if len(at.problems) > count:
        return None
    return _checked(at, name, found)


def _checked(at: At, name: str, found: dict[str, Any]) -> Param | None:
    """The parameter, if its type, default and choices agree."""
    default, choices = found.pop("default", None), found.pop("choices", None)
    sample = default if default is not None else choices[0] if isinstance(choices, list) and choices else ""
    kind: ParamType | None = found.pop("type", None) or _type_of(sample)
    if kind is None:
        at.wrong(f"a default can't be {shown(sample)}: expected text, a number, true, false or a list")
        return None
    count = len(at.problems)
    bare = Param(name=name, type=kind, **found)
    if choices is not None:
        choices = _choices(at / "choices", bare, choices)
    param = Param(name=name, type=kind, choices=choices, **found)
    if default is not None:
        default = _value(at / "default", param, default)
        if param.required:
            at.wrong("required and default exclude each other")
    return Param(name=name, type=kind, choices=choices, default=default, **found) if len(at.problems) == count else None


def _choices(at: At, bare: Param, value: object) -> tuple[Any, ...] | None:
    if not isinstance(value, list) or not value:
        at.wrong(f"expected a list of one or more values, got {shown(value)}")
        return None
    return tuple(_value(at[index], bare, item) for index, item in enumerate(value))


def _value(at: At, param: Param, value: object) -> Any:
    try:
        return checked(param, value)
    except ValueError as exc:
        at.wrong(str(exc))
        return None


def _type_of(value: object) -> ParamType | None:
    match value:
        case str():
            return "string"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case list():
            return "array"
        case _:
            return None
