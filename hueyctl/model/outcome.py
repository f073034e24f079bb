"""How an attempt ended, as types that carry their data, so that an impossible end can't be written."""

from __future__ import annotations

import signal as signals
from typing import Literal

import msgspec


class Exited(msgspec.Struct, frozen=True, tag_field="type", tag="exited"):
    """The process ended by itself with `code`; for a Python job, by `sys.exit` or `os._exit`."""

    code: int


class Signaled(msgspec.Struct, frozen=True, tag_field="type", tag="signaled"):
    """A signal that hueyctl did not send ended the process. `out_of_memory`: the kernel's OOM killer sent it."""

    signal: int
    out_of_memory: bool = False


class TimedOut(msgspec.Struct, frozen=True, tag_field="type", tag="timed-out"):
    """hueyctl stopped it at its timeout (`after_s` seconds)."""

    after_s: float


class NotStarted(msgspec.Struct, frozen=True, tag_field="type", tag="not-started"):
    """Nothing ran. `code` is a shell's: 127 no such program, 126 it can't be executed (or its set-up failed)."""

    code: int
    reason: str


class Returned(msgspec.Struct, frozen=True, tag_field="type", tag="returned"):
    """A Python job returned. `result` is JSON text (None: nothing returned, or not storable: `result_error`)."""

    result: str | None = None
    result_error: str | None = None


class Raised(msgspec.Struct, frozen=True, tag_field="type", tag="raised"):
    """A Python job raised; `error` is its type and message on one line, `traceback` goes to the attempt's output."""

    error: str
    traceback: str = ""


class Stopped(msgspec.Struct, frozen=True, tag_field="type", tag="stopped"):
    """hueyctl stopped it, on request: it was revoked, its worker shuts down, or its token had gone stale."""

    why: Literal["revoked", "interrupted", "stale"]


class Lost(msgspec.Struct, frozen=True, tag_field="type", tag="lost"):
    """Nobody saw how it ended; `cause` says why not."""

    cause: str


# How the reason of an attempt begins that came to nothing before its body did anything.
NOT_STARTED = "not started: "

AnyOutcome = Exited | Signaled | TimedOut | NotStarted | Returned | Raised | Stopped | Lost


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; the number itself where it has no name."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_code(outcome: AnyOutcome) -> int | None:
    """The code that a shell would show: the process's own, 128+n for a signal, 124 for a timeout, 126/127."""
    match outcome:
        case Exited(code):
            return code
        case Signaled(number):
            return 128 + number
        case TimedOut():
            return 124
        case NotStarted(code):
            return code
        case _:
            return None


def describe(outcome: AnyOutcome) -> str:
    """The cause on one line, as the reason of a failure: `exited with 3`, `killed by SIGSEGV`."""
    match outcome:
        case Exited(code):
            return f"exited with {code}"
        case Signaled(number, True):
            return f"killed by {signal_name(number)}: out of memory"
        case Signaled(number):
            return f"killed by {signal_name(number)}"
        case TimedOut(after):
            return f"timed out after {after:g} s"
        case NotStarted(_, reason):
            return f"{NOT_STARTED}{reason}"
        case Returned():
            return "returned"
        case Raised(error):
            return error
        case Stopped(why):
            return {
                "revoked": "stopped by a revoke",
                "interrupted": "interrupted: its worker shut down",
                "stale": "stopped: its worker had lost it to another",
            }[why]
        case Lost(cause):
            return f"lost: {cause}"
