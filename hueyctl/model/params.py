"""Parameters: checked against their declarations, filled with defaults, and masked where they are secret.

What comes out is plain JSON (text, 64-bit integers, finite numbers, booleans, arrays) which every process can be given:
no NUL, which ends an argument, and no lone surrogate, which has no bytes. No message repeats the value of a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from hueyctl.errors import UsageError
from hueyctl.model.definition import Job, Param, ParamType
from hueyctl.model.wording import did_you_mean, kind_of, quoted, shown

DEEPEST = 32
"""How deep arrays may be nested: far beyond use, and far below what a JSON reader's stack holds."""

_INTEGER = r"[+-]?[0-9]{1,30}"
_NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?"
_BOOLEANS = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}

LONGEST_VARIABLE = 128 * 1024  # bytes, its name and what ends it included


def resolve(params: Sequence[Param], given: Mapping[str, object], *, what: str) -> dict[str, Any]:
    """The values that a run gets: those given, checked, and the defaults of the rest.

    An optional parameter without a default that isn't given is left out.

    Raises:
        UsageError: something is missing, undeclared or wrong; the message names all of it, after `what` (`fetch`).
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    taken = 0
    for param in params:
        name = param.name
        if name in given:
            taken += 1
            try:
                values[name] = checked(param, given[name])
            except ValueError as exc:
                problems.append(f"parameter {quoted(name)}: {exc}")
        elif param.required:
            problems.append(f"parameter {quoted(name)} is required")
        elif param.default is not None:
            values[name] = _default(param)
    if taken < len(given):
        problems += _undeclared(params, given)
    if problems:
        raise UsageError(f"{what}: {'; '.join(problems)}", hint=taken_by(what, params))
    return values


def taken_by(what: str, params: Sequence[Param]) -> str:
    """`fetch takes url, out`: what may be given, for a hint."""
    return f"{what} takes {', '.join(param.name for param in params) or 'no parameters'}"


def from_text(param: Param, text: str) -> Any:
    """The value that a command line's text means: arrays as JSON, booleans also as yes/no, on/off and 1/0.

    Raises:
        UsageError: it means none of the parameter's type.
    """
    value: object = text
    match param.type:
        case "integer" if re.fullmatch(_INTEGER, text):
            value = int(text)
        case "number" if re.fullmatch(_INTEGER, text):
            value = int(text)
        case "number" if re.fullmatch(_NUMBER, text):
            value = float(text)
        case "boolean":
            value = _BOOLEANS.get(text.lower(), text)
        case "array":
            value = _json_array(text)
    try:
        return _TYPES[param.type](value)
    except ValueError as exc:
        shape = ' as JSON, like ["a", "b"]' if param.type == "array" else ""
        raise UsageError(f"parameter {quoted(param.name)}: {exc}{shape}{_got(param, text)}") from exc


def misfit(job: Job, params: Mapping[str, Any]) -> str | None:
    """Why these stored parameters don't fit this definition of the job (None: they fit).

    One declared since with a default fits: `completed` fills it in.
    """
    taken = 0
    for param in job.params:
        if param.name in params:
            taken += 1
            try:
                checked(param, params[param.name])
            except ValueError as exc:
                return f"parameter {quoted(param.name)}: {exc}"
        elif param.required:
            return f"parameter {quoted(param.name)} is required now"
    return _undeclared(job.params, params)[0] if taken < len(params) else None


def completed(params: Sequence[Param], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored parameters with the defaults of those that were declared after the run was accepted."""
    defaults = {param.name: _default(param) for param in params if param.default is not None and not param.required}
    return {**defaults, **stored}


def environment(params: Mapping[str, Any]) -> dict[str, str]:
    """The PARAM_<NAME> variables: text as it is, arrays as JSON, booleans `true`/`false`, numbers at their shortest."""
    return {f"PARAM_{name.upper()}": as_text(value) for name, value in params.items()}


def unpassable(params: Mapping[str, Any]) -> str | None:
    """Which of these parameters no program can be given, as it is too long for that; None: none of them.

    Source: MAX_ARG_STRLEN, of an argument and of a variable of the environment, where each parameter is one.
    """
    for name, value in params.items():
        if isinstance(value, str | list):
            size = len(f"PARAM_{name}=") + len(as_text(value).encode(errors="replace")) + 1
            if size > LONGEST_VARIABLE:
                return (
                    f"parameter {quoted(name)}: {size:,} bytes are more than a program can be given "
                    f"({LONGEST_VARIABLE:,}): hand it over in a file, or to a Python function"
                )
    return None


def masked(params: Mapping[str, Any], secrets: Collection[str]) -> dict[str, Any]:
    """The same parameters with `***` in the place of secret ones."""
    return {name: "***" if name in secrets else value for name, value in params.items()}


def as_text(value: object) -> str:
    """A parameter as a program gets it: in an argument or an environment variable."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return msgspec.json.encode(value).decode()


def checked(param: Param, value: object) -> Any:
    """The value as plain JSON, if it is of the declared type and among the choices.

    Raises:
        ValueError: it isn't; the message has what was expected, and what was found unless it is secret.
    """
    try:
        plain = _TYPES[param.type](value)
    except ValueError as exc:
        raise ValueError(f"{exc}{_got(param, value)}") from None
    if param.choices is not None and plain not in param.choices:
        if param.secret:
            raise ValueError("expected one of its choices")
        choices = ", ".join(shown(choice) for choice in param.choices[:20])
        meant = did_you_mean(plain, map(str, param.choices)) if isinstance(plain, str) else ""
        raise ValueError(f"expected one of {choices}{_got(param, plain)}{meant}")
    return plain


def _got(param: Param, value: object) -> str:
    return "" if param.secret else f", got {shown(value)}"


def _undeclared(params: Sequence[Param], given: Mapping[str, object]) -> list[str]:
    declared = [param.name for param in params]
    none = "" if declared else " (it takes none)"
    return [
        f"there is no parameter {quoted(name)}{none}{did_you_mean(name, declared)}"
        for name in given
        if name not in declared
    ]


def _default(param: Param) -> Any:
    return list(param.default) if isinstance(param.default, list) else param.default


def _json_array(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    # RecursionError: nested deeper than the reader's stack; UnicodeEncodeError is a ValueError.
    except (msgspec.DecodeError, ValueError, RecursionError):
        return text


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    if "\0" in value:
        raise ValueError("expected text without NUL characters")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("expected text in valid UTF-8") from None
    return value if type(value) is str else str.__str__(value)


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("expected an integer")
    if not -(2**63) <= value < 2**63:
        raise ValueError("expected an integer of 64 bits")
    return int(value)


def _number(value: object) -> int | float:
    if not isinstance(value, float):
        try:
            return _integer(value)
        except ValueError as exc:
            raise ValueError(str(exc).replace("an integer", "a number", 1)) from None
    if not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _array(value: object) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError("expected an array")
    return [_element(item, DEEPEST) for item in value]


def _element(value: object, depth: int) -> Any:
    """A value inside an array: any JSON, checked like a parameter of its type."""
    if depth == 0:
        raise ValueError(f"expected an array nested at most {DEEPEST} deep")
    match value:
        case None | bool():
            return value
        case str():
            return _string(value)
        case int() | float():
            return _number(value)
        case list() | tuple():
            return [_element(item, depth - 1) for item in value]
        case dict():
            return {_string(key): _element(item, depth - 1) for key, item in value.items()}
        case _:
            raise ValueError(f"expected an array of JSON values, and {kind_of(value)} is none")


_TYPES: dict[ParamType, Callable[[object], Any]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "array": _array,
}
