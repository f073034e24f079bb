"""One `jobs.toml` and its store, opened as far as a use case needs. For one thread: the Python API has one for each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hueyctl import config
from hueyctl.errors import ConfigError, StoreMissing
from hueyctl.model.address import is_address
from hueyctl.model.definition import Job, Project
from hueyctl.model.mask import Mask
from hueyctl.model.run import Run
from hueyctl.storage.bell import ring
from hueyctl.storage.place import Place
from hueyctl.storage.store import RunFilter, Store
from hueyctl.storage.stores import open_store

_MASKS_MAX = 1000


class Session:
    """A project, who uses it (`by`, as events name them), and its store.

    `file_error`: what is wrong with the file, where only the store is known; then `project` has no definitions.
    """

    def __init__(self, project: Project, *, by: str, file_error: ConfigError | None = None) -> None:
        self.project = project
        self.by = by
        self.file_error = file_error
        self.place = Place.of(project.store, project.dir)
        self._reader: Store | None = None
        self._writer: Store | None = None
        self._masks: dict[str, Mask] = {}

    def job(self, name: str) -> Job | None:
        """The definition of a job, or None."""
        return self.project.jobs.get(name)

    def reader(self) -> Store:
        """The store, for reading; raises StoreMissing where there is none yet."""
        if self._writer:
            return self._writer
        if not self._reader:
            self._reader = open_store(self.place, read_only=True)
        return self._reader

    def exists(self) -> bool:
        """Is there a store yet?"""
        if self.place.address is None:
            return self.place.path.exists()
        try:
            self.reader()
        except StoreMissing:
            return False
        return True

    def writer(self) -> Store:
        """The store, for changing what is in it; raises StoreMissing where there is none yet."""
        if not self._writer:
            self._writer = open_store(self.place)
        return self._writer

    def creator(self) -> Store:
        """The store, for changing what is in it; made where there is none yet."""
        if not self._writer:
            self._writer = open_store(self.place, create=True)
        return self._writer

    def mask(self, run: Run) -> Mask:
        """What hides the secret parameters of this run; of a pipeline or a step of one those of all its runs, for what
        one prints is the input of the next, and why one failed the reason of others."""
        if run.pipeline is None:
            return Mask.of(run)
        mask = self._masks.get(run.pipeline)
        if mask is None:
            if len(self._masks) >= _MASKS_MAX:
                self._masks.clear()
            runs = self.reader().runs(RunFilter(pipeline=run.pipeline), limit=None)
            mask = self._masks[run.pipeline] = Mask.of(*runs)
        return mask

    def ring(self) -> None:
        """Wake whoever listens to this store. A hint: it can't fail."""
        ring(self.place.bell)

    def make_durable(self) -> None:
        """What has been read and is reported after this can't come undone by a power cut. Needs no write access."""
        self.reader().sync()

    def close(self) -> None:
        """Let the store go."""
        for store in (self._reader, self._writer):
            if store:
                store.close()
        self._reader = self._writer = None


def open_session(file: Path | None, *, cwd: Path, environ: Mapping[str, str]) -> Session:
    """The session of the `jobs.toml` that `file`, HUEYCTL_FILE or the folder means; raises ConfigError."""
    path = config.find(file, cwd=cwd, environ=environ)
    return Session(config.load(path, environ=environ), by=who())


def open_store_session(file: Path | None, *, cwd: Path, environ: Mapping[str, str]) -> Session:
    """The same for what needs the store and no definitions: a file that is gone or wrong keeps nobody from it.

    Raises:
        ConfigError: the file is gone or wrong, and no store is where that can still be told.
    """
    try:
        return open_session(file, cwd=cwd, environ=environ)
    except ConfigError as exc:
        project = config.salvage(file, cwd=cwd, environ=environ)
        if not is_address(project.store) and not os.path.isfile(project.store):
            # Without its place, which may be an address with a password.
            hint = exc.hint or "if its store is in another place, HUEYCTL_STORE=PATH names it"
            raise ConfigError(exc.problems, hint=hint) from exc
        return Session(project, by=who(), file_error=exc)


def who() -> str:
    """`alice@host`: the user of this process, as events name them."""
    import pwd

    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user needs no entry
        name = str(uid)
    return f"{name}@{os.uname().nodename}"
