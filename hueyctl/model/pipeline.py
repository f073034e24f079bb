"""A pipeline's steps, laid out: which waits for which, and with which parameters each runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hueyctl.model.command import alone, filled, placeholders
from hueyctl.model.definition import Step


class PlacedStep(msgspec.Struct, frozen=True):
    """A step and the positions (all of them earlier) of those that it waits for, in their order."""

    step: Step
    after: tuple[int, ...] = ()


def laid_out(steps: Sequence[Any]) -> list[PlacedStep]:
    """`Pipeline.steps` in their order; a step's position is its index.

    Each is after what the line before it ends with: one step, or, where that runs side by side, the last ones of all
    that do. Nothing can wait for what comes later, so there is no cycle.
    """
    placed: list[PlacedStep] = []
    _lay_line(steps, (), placed)
    return placed


def nested(after: Sequence[tuple[int, ...]]) -> tuple[Any, ...]:
    """The inverse of `laid_out`: by what each step is after, their positions, nested as steps are in a definition."""
    return _line_of(after, 0, len(after))


def step_params(step: Step, params: Mapping[str, Any]) -> dict[str, Any]:
    """What a step is given where its pipeline runs with `params`: `{name}` in text is the pipeline's parameter.

    Text that is nothing but one `{name}` becomes that parameter with its type, or is left out where that is absent;
    inside other text it is text. So it is with the elements of a list.
    """
    return {name: found[0] for name, value in step.params.items() if (found := _filled(value, params))}


def taken(value: Any) -> set[str]:
    """The pipeline's parameters that a value takes which a step's definition gives."""
    match value:
        case str():
            return placeholders([value])
        case list() | tuple():
            return set().union(*map(taken, value))
        case _:
            return set()


def _filled(value: Any, params: Mapping[str, Any]) -> list[Any]:
    """The value as it is given: one, or none where it is an absent parameter."""
    match value:
        case str() if (name := alone(value)) is not None:
            return [params[name]] if name in params else []
        case str():
            return [filled(value, params)]
        case list() | tuple():
            return [[given for item in value for given in _filled(item, params)]]
        case _:
            return [value]


def _lay_line(elements: Sequence[Any], before: tuple[int, ...], placed: list[PlacedStep]) -> tuple[int, ...]:
    """Lay out a line that begins after `before`; returns the positions that it ends with."""
    for element in elements:
        if isinstance(element, Step):
            placed.append(PlacedStep(element, before))
            before = (len(placed) - 1,)
        else:
            before = tuple(end for branch in element for end in _lay_line(_as_line(branch), before, placed))
    return before


def _as_line(branch: Any) -> Sequence[Any]:
    return (branch,) if isinstance(branch, Step) else branch


def _line_of(after: Sequence[tuple[int, ...]], begin: int, end: int) -> tuple[Any, ...]:
    """The steps from `begin` to before `end`, which are a line."""
    line: list[Any] = []
    while begin < end:
        cut = _end_of_element(after, begin, end)
        line.append(begin if cut == begin + 1 else _branches_of(after, begin, cut))
        begin = cut
    return tuple(line)


def _end_of_element(after: Sequence[tuple[int, ...]], begin: int, end: int) -> int:
    """Where the first element of a line ends: before the first step that is after all that it ends with, and behind
    the last one that begins with it."""
    last_first = max(position for position in range(begin, end) if after[position] == after[begin])
    ends: set[int] = set()
    for position in range(begin, end):
        if position > last_first and ends == set(after[position]):
            return position
        ends = ends.difference(after[position]) | {position}
    return end


def _branches_of(after: Sequence[tuple[int, ...]], begin: int, end: int) -> tuple[Any, ...]:
    """The steps from `begin` to before `end`, which run side by side."""
    branches: list[Any] = []
    reached = end
    for position in reversed(range(begin, end)):
        if after[position] != after[begin]:
            reached = min(reached, *after[position])
        elif position <= reached:  # nothing behind it is after anything before it
            line = _line_of(after, position, end)
            branches.append(line if len(line) > 1 else line[0])
            end = reached = position
    return tuple(reversed(branches))
