"""Every error that a user can meet, as one tree; each knows its exit code and its machine-readable code.

A message says where, what was expected and what was found; `hint` says what to do next.

Source of the exit codes: DESIGN, "The command line": 0 done, 1 not all could be done, 2 wrong usage, 3 not found,
4 the store can't be used, 70 a bug, 124 the wait timed out, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence


class HueyctlError(Exception):
    """The root of the tree. Whatever reaches the user as itself is a bug in hueyctl (exit 70)."""

    exit_code = 70
    code = "internal"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Refused(HueyctlError):
    """The request was understood and not, or not wholly, carried out."""

    exit_code = 1
    code = "refused"


class RunFailed(Refused):
    """A run that was waited for did not succeed."""

    code = "run-failed"


class UsageError(HueyctlError):
    """An argument, a parameter or an option is wrong."""

    exit_code = 2
    code = "usage"


class ConfigError(UsageError):
    """`jobs.toml` is missing, unreadable or wrong. `problems` has every error found, one line each."""

    code = "config"

    def __init__(self, problems: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__("\n".join(problems), hint=hint)
        self.problems = tuple(problems)


class NotFound(HueyctlError):
    """There is no such run, job, queue, worker or schedule."""

    exit_code = 3
    code = "not-found"


class StoreError(HueyctlError):
    """The store can't be used; nothing was half-done."""

    exit_code = 4
    code = "store"


class StoreBusy(StoreError):
    """Another process held the write lock for longer than the busy timeout."""

    code = "store-busy"


class StoreUnreachable(StoreBusy):
    """The server that keeps the store can't be reached, or not now."""

    code = "store-unreachable"


class StoreUncertain(StoreError):
    """The server was lost in the middle of a commit, and whether it was made can't be found out."""

    code = "store-uncertain"


class StoreFull(StoreError):
    """The disk is full."""

    code = "store-full"


class StoreReadOnly(StoreError):
    """The store, or its folder, can't be written."""

    code = "store-read-only"


class StoreDamaged(StoreError):
    """The file is not a store, or SQLite finds it corrupt."""

    code = "store-damaged"


class StoreReplaced(StoreError):
    """The file that was opened is no longer the one at its path (deleted, moved or replaced)."""

    code = "store-replaced"


class StoreNewer(StoreError):
    """A newer hueyctl wrote the store."""

    code = "store-newer"


class StoreMissing(StoreError):
    """There is no store yet, and the command at hand doesn't make one."""

    code = "store-missing"


class WaitTimeout(HueyctlError):
    """The time given to a wait passed; what was waited for goes on."""

    exit_code = 124
    code = "wait-timeout"


class Interrupted(HueyctlError):
    """The user pressed Ctrl-C; what was followed goes on."""

    exit_code = 130
    code = "interrupted"
