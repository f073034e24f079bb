"""Placeholders in a command's argument vector: one element stays one argument, whatever a parameter holds.

`{name}` stands for a parameter where the braces hold a plain lower-case name; `{{name}}` is a literal `{name}`; braces
around anything else (`{}`, `${HOME}`, JSON) are text. A value is put in once and never looked at again, so one that
holds braces, quotes or `$(…)` is data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hueyctl.model.params import as_text

_PLACEHOLDER = r"\{\{([a-z_][a-z0-9_]*)\}\}|\{([a-z_][a-z0-9_]*)\}"


def render(argv: Sequence[str], params: Mapping[str, Any]) -> tuple[str, ...]:
    """The arguments with each `{name}` replaced by its parameter.

    An array alone in an element becomes as many arguments as it has elements, none for an empty one. A parameter that
    is absent (optional, without a default) drops the element in which it stands alone, and is empty text elsewhere.
    """
    arguments: list[str] = []
    for element in argv:
        name = alone(element)
        if name is None:
            arguments.append(filled(element, params))
        elif name in params:
            value = params[name]
            arguments.extend(map(as_text, value) if isinstance(value, list | tuple) else (as_text(value),))
    return tuple(arguments)


def filled(text: str, params: Mapping[str, Any]) -> str:
    """The text with each `{name}` replaced by its parameter; one that is absent is empty text."""
    return re.sub(_PLACEHOLDER, lambda match: _replacement(match, params), text)


def placeholders(argv: Sequence[str]) -> set[str]:
    """The names of all parameters that these elements take; literals (`{{name}}`) aside."""
    return {match[2] for element in argv for match in re.finditer(_PLACEHOLDER, element) if match[2]}


def alone(element: str) -> str | None:
    """The parameter whose placeholder is the whole of this element; None where it holds anything else."""
    match = re.fullmatch(_PLACEHOLDER, element)
    return match[2] if match else None


def _replacement(match: re.Match[str], params: Mapping[str, Any]) -> str:
    literal, name = match.groups()
    if literal:
        return "{" + literal + "}"
    return as_text(params[name]) if name in params else ""
