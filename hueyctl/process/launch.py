"""Starts programs: an argument vector, a folder and an environment become a pid, or a reason why not."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping
from functools import cache

from hueyctl.model.outcome import NotStarted


class CannotStart(Exception):
    """Nothing was started; `outcome` has the code and the reason, which names the program and never its arguments."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.outcome = NotStarted(code, reason)


class Environment:
    """Variables that many attempts start with, made ready for the system once."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._ready: dict[bytes, bytes] | None = None

    def get(self, name: str) -> str | None:
        """The value of one of them."""
        return self._variables.get(name)

    def extended(self, more: Mapping[str, str]) -> dict[bytes, bytes | str]:
        """All of them, `more` in front of those of the same name, as the system takes them.

        Raises:
            ValueError: a lone surrogate is in one of them.
        """
        if self._ready is None:
            self._ready = {os.fsencode(name): os.fsencode(value) for name, value in self._variables.items()}
        return {**self._ready, **{os.fsencode(name): value for name, value in more.items()}}


def launch(argv: tuple[str, ...], *, dir: str, env: Environment, more: dict[str, str], descriptors: list[int]) -> int:
    """Start `argv` as the leader of a process group, with the variables `env` and `more`, and with `descriptors` as its
    0, 1, 2… and no other.

    Changes this process's own folder to `dir`, which only a single-threaded process may do: the alternative, forking
    Python, costs ten times as much.

    Raises:
        CannotStart: with what a shell would say (127 no such program, 126 it can't be executed).
    """
    program = argv[0]
    try:
        os.chdir(dir)
    except (OSError, ValueError) as exc:
        raise CannotStart(126, f"its folder can't be entered: {dir}: {_what(exc)}") from exc
    path = find(program, more.get("PATH", env.get("PATH")))
    try:
        return os.posix_spawn(
            path,
            argv,
            env.extended(more),
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate(descriptors)],
            # Not a session for each: the kernel schedules sessions as units (autogroup), and starting one costs
            # milliseconds on a busy machine. The guard's own session has no terminal, which is what matters.
            setpgroup=0,
            setsigmask=(),
            setsigdef=_ignored(),
        )
    except OSError as exc:
        raise _reason(program, path, exc) from exc
    except ValueError as exc:  # a NUL byte, a lone surrogate, a `=` in a variable's name
        raise CannotStart(126, f"{program}: its arguments or variables can't be passed on: {exc}") from exc


@cache
def _ignored() -> tuple[signal.Signals, ...]:
    """What Python ignores from its start, and what a worker may have been started with (nohup, `trap ''`) or the guard
    ignores for itself: that would stay ignored through exec, and nothing else does."""
    return tuple(each for each in signal.valid_signals() if signal.getsignal(each) == signal.SIG_IGN)


def find(program: str, folders: str | None) -> str:
    """Where `folders` (the attempt's own PATH; None: it has none) have it; with a `/` in it, it is taken as it is.

    A folder that can't be looked into is passed over, as a shell does.

    Raises:
        CannotStart: 127 no such program, 126 it isn't executable.
    """
    if "/" in program:
        return program
    found_but = ""
    for folder in (os.defpath if folders is None else folders).split(os.pathsep):
        path = os.path.join(folder or os.curdir, program)
        if program and os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            found_but = found_but or path
    if found_but:
        raise CannotStart(126, f"{program}: not executable: {found_but}")
    raise CannotStart(127, f"{program}: no such program" if program else "the program's name is empty")


def _reason(program: str, path: str, exc: OSError) -> CannotStart:
    match exc.errno:
        case errno.ENOENT | errno.ENOTDIR if os.path.exists(path):
            return CannotStart(126, f"{program}: the interpreter that its first line names does not exist")
        case errno.ENOENT | errno.ENOTDIR:
            return CannotStart(127, f"{program}: no such program")
        case errno.EACCES if os.path.isdir(path):
            return CannotStart(126, f"{program}: is a folder")
        case errno.EACCES | errno.EPERM:
            return CannotStart(126, f"{program}: not executable")
        case errno.ENOEXEC:
            return CannotStart(126, f"{program}: neither a binary for this machine nor a script with a #! line")
        case errno.E2BIG:
            return CannotStart(126, f"{program}: its arguments and variables are too long for the system")
        case _:
            return CannotStart(126, f"{program}: {_what(exc)}")


def _what(exc: OSError | ValueError) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
