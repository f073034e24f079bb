"""Two things measured by turns, on a machine whose speed drifts by half within minutes.

What is reported as their ratio is the median of the pairs' ratios, not the ratio of the medians: the two of a pair are
measured right after each other, so that the drift divides out of each. The medians needn't be of the same minute: on a
machine that is fast at times and slow at others, a turn more or less moves one of them from the one speed to the other,
and their ratio with it. A pair in whose midst the speed changes is an outlier, of which the median takes no notice.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

Measure = Callable[[], tuple[float, ...]]

# Even, as whatever is given instead: as many pairs begin with the one as with the other. Where it matters who begins,
# the median of an odd number would be that of the pairs that begin as the first does.
PAIRS = 20


class Compared(NamedTuple):
    """The medians of both, and the median of the pairs' ratios."""

    ours: float
    yardstick: float
    ratio: float


def by_turns(ours: Measure, yardstick: Measure, *, pairs: int = PAIRS) -> list[Compared]:
    """Measure both `pairs` times, each in turn being the first; one comparison for each number that they return.

    One pair more goes before and isn't counted: it reads the files, and compiles what hasn't been yet.
    """
    measured = []
    for turn in range(pairs + 1):
        if turn % 2:
            mine = ours()
            other = yardstick()
        else:
            other = yardstick()
            mine = ours()
        measured.append((mine, other))
    mines, others = zip(*measured[1:], strict=True)
    return [_compared(*columns) for columns in zip(zip(*mines, strict=True), zip(*others, strict=True), strict=True)]


def _compared(ours: tuple[float, ...], yardstick: tuple[float, ...]) -> Compared:
    ratios = [mine / other for mine, other in zip(ours, yardstick, strict=True)]
    return Compared(statistics.median(ours), statistics.median(yardstick), statistics.median(ratios))
