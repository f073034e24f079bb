"""Parameters: checked against their declarations, filled with defaults, and masked where they are secret."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hueyctl.model.definition import Job, Param


def resolve(params: Sequence[Param], given: Mapping[str, object], *, what: str) -> dict[str, Any]:
    """The values that a run gets: those given, checked, and the defaults of the rest."""
    raise NotImplementedError


def from_text(param: Param, text: str) -> Any:
    """The value that a command line's text means for this parameter; UsageError where it means none."""
    raise NotImplementedError


def misfit(job: Job, params: Mapping[str, Any]) -> str | None:
    """Why these stored parameters don't fit this definition of the job (None: they fit)."""
    raise NotImplementedError


def environment(params: Mapping[str, Any]) -> dict[str, str]:
    """The PARAM_<NAME> variables of these parameters."""
    raise NotImplementedError


def masked(params: Mapping[str, Any], secrets: Collection[str]) -> dict[str, Any]:
    """The same parameters with `***` in the place of secret ones."""
    raise NotImplementedError
