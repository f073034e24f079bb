"""What processes did to a store's files, in one order: the recorder around them, and its log."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("=IIiiQq8s")
MARK: Final = b"M"


class Record(NamedTuple):
    """One thing that happened. `kind`: W(rite), T(runcate), B(egin) and S (end) of a sync, U(nlink), R(ename; `data`
    is the new path), K (mkdir), P(rint, about to), M(ark of the driver)."""

    kind: str
    path: str
    pid: int
    thread: int
    inode: int
    offset: int
    data: bytes


class Recorder:
    """Records what processes that have `environ` do to the store at `store`; `contents`: what they write, too."""

    def __init__(self, library: Path, store: Path, log: Path, *, contents: bool = True) -> None:
        self.store, self.log = store, log
        self.environ: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "POWER_STORE": str(store),
            "POWER_LOG": str(log),
            **({} if contents else {"POWER_BARE": "1"}),
        }
        self._fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def mark(self, what: str, *words: object) -> None:
        """Note in the same order that something was seen."""
        data = json.dumps([what, *words]).encode()
        header = HEADER.pack(0, len(data), os.getpid(), threading.get_native_id(), 0, 0, MARK)
        os.write(self._fd, header + data)

    def records(self) -> list[Record]:
        """What was recorded so far."""
        log, records, at = self.log.read_bytes(), [], 0
        while at < len(log):
            path_size, data_size, pid, thread, inode, offset, kind = HEADER.unpack_from(log, at)
            path = at + HEADER.size
            data = path + path_size
            at = data + data_size
            records.append(Record(chr(kind[0]), os.fsdecode(log[path:data]), pid, thread, inode, offset, log[data:at]))
        return records

    def close(self) -> None:
        """Take no more marks."""
        os.close(self._fd)


def built(folder: Path) -> Path | None:
    """The recorder, compiled into `folder`; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "recorder.so"
    source = Path(__file__).with_name("recorder.c")
    subprocess.run([compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source], check=True)
    return library
