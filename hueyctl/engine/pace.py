"""How long the attempts of each job usually take, and which of those under way are worth waiting for.

One transaction for four attempts costs little more than one for one, so those that end soon after one another are
brought in together: the last of them does it for all. Never longer than `LINGER_S` after they were handed over, and
never for an attempt of which that isn't known.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from hueyctl.engine.attempt import Attempt

# Attempts that usually take less than this are waited for.
SHORT_S = 0.002
# But no longer than this.
LINGER_S = 0.005
# Attempts in threads that take less than to wake up another thread does: they may wait for each other on one.
BRIEF_S = 0.0003
_WEIGHT = 1 / 8  # of the newest attempt in what is usual


class Pace:
    """Of one worker, for who holds its dispatcher's lock (or can do with an answer of a moment ago)."""

    def __init__(self) -> None:
        self.linger_until = 0.0
        """Until then (monotonic) what was handed over last may end, all of it; 0: it isn't waited for."""
        self.one_by_one = False
        """What was handed over last may be performed by one thread, one after the other."""
        self._usual_s: dict[str, float] = {}  # by job, lately
        self._expected: set[str] = set()  # the tokens of those that were handed over last and are waited for

    def usual_s(self, job: str) -> float:
        """What an attempt of this job takes, as far as is known."""
        return self._usual_s.get(job, math.inf)

    def handed_over(self, attempts: Sequence[Attempt]) -> None:
        """These begin now, together."""
        longest_s = max(self.usual_s(attempt.job.name) for attempt in attempts)
        short = longest_s < SHORT_S
        self.linger_until = time.monotonic() + LINGER_S if short else 0.0
        self.one_by_one = longest_s < BRIEF_S and all(attempt.in_thread for attempt in attempts)
        self._expected = {attempt.claim.token for attempt in attempts} if short else set()

    def ended(self, attempt: Attempt) -> None:
        """Learn from one that has ended."""
        self._expected.discard(attempt.claim.token)
        if attempt.took_s < math.inf:
            before_s = self._usual_s.get(attempt.job.name, attempt.took_s)
            self._usual_s[attempt.job.name] = before_s + (attempt.took_s - before_s) * _WEIGHT

    def others_end(self) -> bool:
        """Are attempts under way that are likely to end very soon?"""
        return bool(self._expected) and time.monotonic() < self.linger_until
