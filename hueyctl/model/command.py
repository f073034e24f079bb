"""Placeholders in a command's argument vector: one element stays one argument, whatever a parameter holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def render(argv: Sequence[str], params: Mapping[str, Any]) -> tuple[str, ...]:
    """The argument vector with each `{name}` replaced by its parameter."""
    raise NotImplementedError


def placeholders(argv: Sequence[str]) -> set[str]:
    """The names that stand in braces in these elements."""
    raise NotImplementedError
