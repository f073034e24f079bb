"""What every command takes: `--file`, `--json`, `--debug`; and the session that a command opens."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hueyctl.errors import UsageError

if TYPE_CHECKING:
    from hueyctl.app.session import Session


class Settings:
    """The options of this call of hueyctl, whichever side of the command's name they stood on."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self.reset()

    def reset(self) -> None:
        """Begin another call: nothing is given, and no store is open."""
        self.close()
        self.file: Path | None = None
        self.as_json = False
        self.debug = False

    def session(self) -> Session:
        """The session of the `jobs.toml` that is meant; raises ConfigError."""
        if self._session is None:
            from hueyctl.app.session import open_session

            self._session = open_session(self.file, cwd=here(), environ=os.environ)
        if self._session.file_error:
            raise self._session.file_error
        return self._session

    def store_session(self) -> Session:
        """The same for commands that need no definitions: where the file is wrong they go on with its store, which is
        said; raises ConfigError where there is no store either."""
        if self._session is None:
            from hueyctl.app.session import open_store_session

            self._session = open_store_session(self.file, cwd=here(), environ=os.environ)
            if error := self._session.file_error:
                from hueyctl.cli.render import warn

                warn(error, f"going on with its store alone, {self._session.place.shown}", as_json=self.as_json)
        return self._session

    def close(self) -> None:
        """Let the store go."""
        if self._session:
            self._session.close()
            self._session = None


settings = Settings()


def here() -> Path:
    """The folder that hueyctl is called in; raises UsageError where it is gone."""
    try:
        return Path.cwd()
    except OSError as exc:
        raise UsageError("the folder that you are in is gone", hint="cd to one that is there") from exc


def stdout_fd() -> int | None:
    """The descriptor that answers go to, for a follower that ends with its reader; None where there is none."""
    try:
        return sys.stdout.fileno()
    except OSError:
        return None


def remember_file(value: str | None) -> str | None:
    """An option's callback that keeps the file that was named."""
    if value is not None:
        settings.file = Path(value)
    return value


def remember_json(value: bool) -> bool:
    """An option's callback that keeps that JSON was asked for."""
    settings.as_json = settings.as_json or value
    return value


def remember_debug(value: bool) -> bool:
    """An option's callback that keeps that tracebacks were asked for."""
    settings.debug = settings.debug or value
    return value
