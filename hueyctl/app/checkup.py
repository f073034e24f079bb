"""What a check of `doctor` finds: that all is well, that something may be wrong, or that something is."""

from __future__ import annotations

from typing import Literal

import msgspec


class Check(msgspec.Struct, frozen=True):
    """One finding: which check it is of, how bad it is, what was found, and what to do about it."""

    name: str
    state: Literal["ok", "warning", "problem"]
    found: str
    hint: str | None = None


def ok(name: str, found: str) -> Check:
    """As it should be."""
    return Check(name, "ok", found)


def warning(name: str, found: str, hint: str) -> Check:
    """Works now, and is worth a look."""
    return Check(name, "warning", found, hint)


def problem(name: str, found: str, hint: str) -> Check:
    """Something doesn't work, or won't for long."""
    return Check(name, "problem", found, hint)
