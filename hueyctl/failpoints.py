"""Failpoints: the steps in the life of a run at which a test can make this process die, fail or stall.

`HUEYCTL_FAILPOINTS` says where and how, as `POINT=ACTION[WHEN]`, several separated by `;`:

    claim.after=kill@3;settle.before=stall:2@1;accept.before=error;renew.before=stall:0.5%0.1:42

- `kill`: SIGKILL to this very process; `error`: the error that a failing disk would give; `stall:SECONDS`.
- `@N`: at the N-th time that this process comes there, once; `%P:SEED`: with probability P; neither: each time.

The `.before` of a step that writes lies right before its commit, the `.after` right behind it. What fires says so on
stderr first. Without the variable a point is a call that does nothing. Jobs never inherit it.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from hueyctl.errors import StoreError, UsageError

if TYPE_CHECKING:
    import random

VARIABLE = "HUEYCTL_FAILPOINTS"

STORE_STEPS = (
    "accept",
    "claim",
    "settle",
    "retry",
    "release",
    "fire",
    "renew",
    "rescue",
    "revoke",
    "prune",
    "checkpoint",
)
GUARD_STEPS = ("start", "exit")
POINTS = tuple(f"{step}.{side}" for step in (*STORE_STEPS, *GUARD_STEPS) for side in ("before", "after"))


class Failpoint(Protocol):
    """What a point calls."""

    def __call__(self, name: str, reached: object = True) -> None:
        """This process is at point `name`, if `reached` is true: a transaction may do several steps, or none."""


class Rule(msgspec.Struct, frozen=True):
    """What happens at `point`: `action` is kill, error or stall (of `stall_s` seconds); at the `hit`-th time, or with
    `probability`, or (neither) each time."""

    point: str
    action: str
    stall_s: float = 0.0
    hit: int | None = None
    probability: float | None = None
    seed: int = 0


def parse(spec: str) -> tuple[Rule, ...]:
    """The rules that a text asks for.

    Raises:
        UsageError: it isn't of that form, or names a point or an action that there isn't.
    """
    return tuple(_rule(part.strip()) for part in spec.split(";") if part.strip())


def without(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` as a job may see it."""
    return {name: value for name, value in environ.items() if name != VARIABLE}


class Armed:
    """Rules in force. Any thread may come to a point."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        import random  # for tests alone: every command would wait for it

        self._rules = [(rule, itertools.count(1), random.Random(rule.seed)) for rule in rules]

    def __call__(self, name: str, reached: object = True) -> None:
        for rule, hits, dice in self._rules:
            if rule.point == name and reached and _is_due(rule, hits, dice):
                _fire(rule)


def _rule(text: str) -> Rule:
    point, equals, rest = text.partition("=")
    if not equals:
        raise UsageError(f'{VARIABLE}: expected POINT=ACTION, got "{text}"')
    if point not in POINTS:
        raise UsageError(f'{VARIABLE}: there is no failpoint "{point}"', hint=f"there are: {', '.join(POINTS)}")
    rest, at, hit = rest.partition("@")
    rest, percent, chance = rest.partition("%")
    action, colon, seconds = rest.partition(":")
    probability, _, seed = chance.partition(":")
    try:
        if action not in {"kill", "error", "stall"} or (action == "stall") != bool(colon) or (at and percent):
            raise ValueError(text)
        rule = Rule(
            point,
            action,
            stall_s=float(seconds) if colon else 0.0,
            hit=int(hit) if at else None,
            probability=float(probability) if percent else None,
            seed=int(seed or 0),
        )
        if not 0 <= rule.stall_s < 1e9 or rule.hit == 0 or not 0 <= (rule.probability or 0) <= 1:
            raise ValueError(text)
    except ValueError:
        hint = "ACTION is kill, error or stall:SECONDS, then @N (the N-th time) or %P:SEED (with probability P)"
        raise UsageError(f'{VARIABLE}: expected POINT=ACTION[WHEN], got "{text}"', hint=hint) from None
    return rule


def _is_due(rule: Rule, hits: itertools.count[int], dice: random.Random) -> bool:
    if rule.hit is not None:
        return next(hits) == rule.hit
    return rule.probability is None or dice.random() < rule.probability


def _fire(rule: Rule) -> None:
    line = f"failpoint {rule.point}: {rule.action} in {threading.current_thread().name} of {os.getpid()}\n"
    os.write(2, line.encode())
    match rule.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stall":
            time.sleep(rule.stall_s)
        case _ if rule.point.partition(".")[0] in STORE_STEPS:
            raise StoreError(f"the disk failed ({os.strerror(errno.EIO)}, failpoint {rule.point})")
        case _:
            raise OSError(errno.EIO, os.strerror(errno.EIO), f"failpoint {rule.point}")


def _nothing(name: str, reached: object = True) -> None:
    pass


def _chosen(spec: str | None) -> Failpoint:
    return Armed(parse(spec)) if spec else _nothing


failpoint: Failpoint = _chosen(os.environ.get(VARIABLE))
