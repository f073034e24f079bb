"""An editor that knows the JSON Schema of `jobs.toml`: what it would underline."""

from __future__ import annotations

import tomllib
from datetime import date, time
from functools import cache
from typing import Any

from jsonschema.protocols import Validator
from jsonschema.validators import Draft7Validator, Draft202012Validator

from hueyctl.config.schema import schema

DRAFTS = (Draft202012Validator, Draft7Validator)
"""What the schema is of, and what taplo knows."""


def underlined(text: str) -> list[str]:
    """What is wrong with a file of this text for an editor, each with its place; whatever the draft that it knows."""
    document = _as_json(tomllib.loads(text))
    found = [[f"{error.json_path}: {error.message}" for error in each.iter_errors(document)] for each in _editors()]
    assert bool(found[0]) == bool(found[1]), "the drafts disagree"
    return found[0]


@cache
def _editors() -> list[Validator]:
    return [draft(schema()) for draft in DRAFTS]


def _as_json(value: Any) -> Any:
    match value:
        case date() | time():
            return value.isoformat()
        case dict():
            return {key: _as_json(item) for key, item in value.items()}
        case list():
            return [_as_json(item) for item in value]
        case _:
            return value
