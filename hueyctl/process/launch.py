"""Starts programs: an argument vector, a folder and an environment become a pid, or a reason why not."""

from __future__ import annotations

import errno
import os
import signal
from functools import cache

from hueyctl.model.outcome import NotStarted


class CannotStart(Exception):
    """Nothing was started; `outcome` has the code and the reason, which names the program and never its arguments."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.outcome = NotStarted(code, reason)


def launch(argv: tuple[str, ...], *, dir: str, env: dict[str, str], descriptors: list[int]) -> int:
    """Start `argv` as the leader of a process group, with `descriptors` as its 0, 1, 2… and no other.

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
    path = find(program, env)
    try:
        return os.posix_spawn(
            path,
            argv,
            env,
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


def find(program: str, env: dict[str, str]) -> str:
    """Where the attempt's own PATH has it; a program with a `/` in it is taken as it is.

    A folder of PATH that can't be looked into is passed over, as a shell does.

    Raises:
        CannotStart: 127 no such program, 126 it isn't executable.
    """
    if "/" in program:
        return program
    found_but = ""
    for folder in env.get("PATH", os.defpath).split(os.pathsep):
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
