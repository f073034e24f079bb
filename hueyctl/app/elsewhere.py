"""What runs have printed on other machines than this one, where several use a store."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hueyctl.app.session import Session
from hueyctl.model.run import Run, RunState
from hueyctl.storage.locks import is_of_here


def bring(session: Session, run: Run, attempt: int) -> None:
    """Put the ends of what an attempt has printed elsewhere where they would be if it had run here, for whoever reads
    output. Nothing happens where it did run here, or nobody has kept anything."""
    place = session.place
    files = place.stdout(run.id, attempt), place.stderr(run.id, attempt)
    if place.address is None or not attempt or all(map(os.path.lexists, files)):
        return
    printed = session.reader().printed(run, attempt)
    if printed is None:
        return
    with suppress(OSError):  # a machine that can't keep it shows none
        place.prepare_output(run.id)
        for path, data in zip(files, (printed.stdout, printed.stderr), strict=True):
            if data and not os.path.lexists(path):  # what was printed here is all there is, and not its end alone
                _put(path, data)


def host_of(session: Session, run: Run) -> str | None:
    """The other machine on which an attempt of this run is under way: until it ends, what it prints is there alone."""
    if run.state is not RunState.RUNNING or run.worker is None or is_of_here(session.place, run.worker):
        return None
    return next((worker.host for worker in session.reader().workers() if worker.id == run.worker), None)


def _put(path: Path, data: bytes) -> None:
    """Whole or not at all, for two may bring it at once."""
    new = path.with_name(f"{path.name}.{os.getpid()}.part")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    new.rename(path)
