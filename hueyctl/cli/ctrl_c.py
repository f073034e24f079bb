"""Ctrl-C ends a command, wherever it is just then.

Python raises KeyboardInterrupt in whatever runs in that moment. Where that is a finalizer or the callback of a weak
reference (each import has one), nobody can catch it: Python prints a traceback and goes on, and what was to be ended
waits for ever.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

AGAIN_S = 0.01  # what nobody can catch an exception of is over by then


def heed() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt where it can be caught. In the main thread only."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    sys.unraisablehook = _try_again


def _try_again(unraisable: Any) -> None:
    if unraisable.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    else:
        sys.__unraisablehook__(unraisable)
