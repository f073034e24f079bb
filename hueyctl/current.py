# ruff: noqa: UP035, UP045 (typing as Python 3.8 has it)
"""`current_run()`: what a job may ask about the run that it is.

Needs the standard library alone, and Python 3.8: a job's own interpreter may not have hueyctl, and gets this file.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Callable, Mapping, Optional

_thread = threading.local()


@dataclass(frozen=True)
class CurrentRun:
    """The run that this code is. `scheduled_at` is aware (UTC), and None where no schedule started it."""

    id: str
    job: str
    attempt: int
    queue: str
    file: str
    trigger: str = "manual"
    schedule: Optional[str] = None
    scheduled_at: Optional[datetime] = None
    progress_path: Optional[str] = None
    _said: bool = field(default=False, init=False, repr=False, compare=False)  # there is a file to remove

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> CurrentRun:
        """The run that these HUEYCTL_* variables describe; raises KeyError where they describe none."""
        scheduled_at = environ.get("HUEYCTL_SCHEDULED_AT")
        return cls(
            id=environ["HUEYCTL_RUN_ID"],
            job=environ["HUEYCTL_JOB"],
            attempt=int(environ["HUEYCTL_ATTEMPT"]),
            queue=environ.get("HUEYCTL_QUEUE", "default"),
            file=environ.get("HUEYCTL_FILE", ""),
            trigger=environ.get("HUEYCTL_TRIGGER", "manual"),
            schedule=environ.get("HUEYCTL_SCHEDULE"),
            # Python 3.8 doesn't read the Z.
            scheduled_at=datetime.fromisoformat(scheduled_at.replace("Z", "+00:00")) if scheduled_at else None,
            progress_path=environ.get("HUEYCTL_PROGRESS"),
        )

    def progress(self, done: float, total: float, text: str = "") -> None:
        """Say how far it is; `hueyctl inspect` shows it. Replaces what was said before, at once and whole.

        Progress is a courtesy: where it can't be written (a full disk), the job goes on.
        """
        if self.progress_path is None:
            return
        line = f"{_number(done)}/{_number(total)} {' '.join(text.split())}".rstrip() + "\n"
        fresh = f"{self.progress_path}.{os.getpid()}.{threading.get_ident()}"
        try:
            os.makedirs(os.path.dirname(self.progress_path), mode=0o700, exist_ok=True)
            with open(fresh, "w", encoding="utf-8", errors="replace") as file:
                file.write(line)
            object.__setattr__(self, "_said", True)
            os.replace(fresh, self.progress_path)
        except OSError:
            return


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def current_run() -> CurrentRun:
    """The run that the calling code is part of.

    Raises:
        RuntimeError: the caller isn't part of any.
    """
    inside: Optional[running] = getattr(_thread, "running", None)
    if inside is not None:
        return inside.run()
    try:
        return CurrentRun.from_environ(os.environ)
    except KeyError:
        raise RuntimeError("current_run() was called outside of a hueyctl job: there is no current run") from None


class running:
    """A context in which the run that `make` gives is the current one of this thread: for jobs that run inside the
    worker. It is only made when it is asked for."""

    def __init__(self, make: Callable[[], CurrentRun]) -> None:
        self._make = make
        self._run: Optional[CurrentRun] = None

    def run(self) -> CurrentRun:
        """The run itself."""
        if self._run is None:
            self._run = self._make()
        return self._run

    def __enter__(self) -> None:
        self._before = getattr(_thread, "running", None)
        _thread.running = self

    def __exit__(self, *exc: object) -> None:
        _thread.running = self._before
        # Only where there is one: a system call lets go of Python's lock, and other jobs' threads wait for it.
        if self._run is not None and self._run.progress_path is not None and self._run._said:
            with suppress(OSError):
                os.unlink(self._run.progress_path)  # how far it is means nothing any more
