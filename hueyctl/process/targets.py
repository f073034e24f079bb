"""Looks at the targets of Python jobs, each imported in a child and nowhere else, for `hueyctl check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

CHECK_TIMEOUT_S = 30.0

ParameterKind = Literal["positional", "keyword", "either", "var-positional", "var-keyword"]


class TargetQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A callable, and everything that its child is made with. `env` is the whole environment."""

    target: str
    interpreter: str
    pythonpath: tuple[str, ...]
    dir: str
    env: dict[str, str]


class TargetParameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of its signature; `either`: by position or by keyword."""

    name: str
    kind: ParameterKind
    has_default: bool


class TargetReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `error` (one line) says why it can't be imported or called; `parameters` is None where it has
    no signature to look at (some built-ins)."""

    target: str
    error: str | None = None
    parameters: tuple[TargetParameter, ...] | None = None
    is_coroutine: bool = False

    @property
    def takes_any(self) -> bool:
        """Does it take every keyword (`**kwargs`), as far as can be known?"""
        return self.parameters is None or any(each.kind == "var-keyword" for each in self.parameters)


def check_targets(targets: Sequence[TargetQuery]) -> list[TargetReport]:
    """A report for each of `targets`, in their order; one child per interpreter, path, folder and environment.

    Bounded by 30 s for each child; a target that crashes, hangs or ends its child gets a report that says so.
    """
    raise NotImplementedError
