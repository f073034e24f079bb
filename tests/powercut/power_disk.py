"""A disk that loses power: what synced writes are worth, and what may become of all others.

The model is harsher than today's file systems. Of each file and folder, apart from all others:
- what was written before a sync began is there once it has ended;
- any part of the rest may be there: all of it, none, its beginning, or any 512-byte sectors of any writes, later ones
  without earlier ones; a file may have grown without its content, and shows zeros or garbage there;
- of what became of names in a folder since its own last sync, the first so and so many (file systems keep that order).
  A file's sync does nothing for its name.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import Final, NamedTuple

from recording import Record

SECTOR: Final = 512


class _Change(NamedTuple):
    """A write of `data` at `offset`; where `data` is None, the file was cut (or grew) to `offset` bytes."""

    at: int
    offset: int
    data: bytes | None


class _File:
    """What is safe of a file, and what has changed since."""

    def __init__(self) -> None:
        self.safe = bytearray()
        self.pending: list[_Change] = []

    def sync(self, before: int) -> None:
        while self.pending and self.pending[0].at < before:
            _apply(self.safe, self.pending.pop(0))

    def live(self) -> bytes:
        image = bytearray(self.safe)
        for change in self.pending:
            _apply(image, change)
        return bytes(image)

    def cut(self, choice: random.Random) -> bytes:
        image = bytearray(self.safe)
        for change in _survivors(self.pending, choice):
            _apply(image, change)
        ends = (change.offset + len(change.data or b"") for change in self.pending)
        longest = max(ends, default=0)
        if longest > len(image) and choice.random() < 0.3:
            missing = longest - len(image)
            image += choice.randbytes(missing) if choice.random() < 0.5 else bytes(missing)
        return bytes(image)


class _Name(NamedTuple):
    """From `at` on, `entry` is at that name in its folder: a file, True for a folder, None for nothing."""

    at: int
    name: str
    entry: _File | bool | None


class _Folder:
    """The names in a folder that are safe, and what became of names since."""

    def __init__(self) -> None:
        self.safe: dict[str, _File | bool] = {}
        self.pending: list[_Name | tuple[_Name, _Name]] = []

    def sync(self, before: int) -> None:
        while self.pending and _at(self.pending[0]) < before:
            _enter(self.safe, self.pending.pop(0))

    def after(self, count: int) -> dict[str, _File | bool]:
        names = dict(self.safe)
        for change in self.pending[:count]:
            _enter(names, change)
        return names

    def live(self) -> dict[str, _File | bool]:
        return self.after(len(self.pending))


class Disk:
    """The files of the store at `store`, as recorded; its folder's parent is there from the beginning.

    `counts` says of a sync's record whether it does anything: a disk that lies is the control that must fail.
    """

    def __init__(self, store: PurePath, *, counts: Callable[[Record], bool] = lambda record: True) -> None:
        self._store, self._counts = store, counts
        self._folders: dict[str, _Folder] = {str(store.parent): _Folder(), str(store.parent.parent): _Folder()}
        self._files: dict[int, _File] = {}
        self._began: dict[tuple[int, int], int] = {}
        self.time = 0

    def play(self, records: Iterable[Record]) -> None:
        """Let these happen, after what has happened already."""
        for record in records:
            self._play(record)
            self.time += 1

    def live(self) -> dict[str, bytes]:
        """The files by name, as processes see them."""
        names = self._folders[str(self._store.parent)].live()
        return {name: entry.live() for name, entry in names.items() if isinstance(entry, _File)}

    def cut(self, choice: random.Random) -> dict[str, bytes]:
        """The files by name that one power cut at this moment could leave."""
        above = self._folders[str(self._store.parent.parent)]
        if self._store.parent.name not in above.after(choice.randint(0, len(above.pending))):
            return {}
        folder = self._folders[str(self._store.parent)]
        names = folder.after(choice.randint(0, len(folder.pending)))
        return {name: entry.cut(choice) for name, entry in names.items() if isinstance(entry, _File)}

    def _play(self, record: Record) -> None:
        match record.kind:
            case "W" | "T" if not record.path.endswith(" (deleted)"):
                data = record.data if record.kind == "W" else None
                self._file(record).pending.append(_Change(self.time, record.offset, data))
            case "B":
                self._began[record.thread, record.inode] = self.time
            case "S" if self._counts(record):
                target = self._folders[record.path] if record.path in self._folders else self._files.get(record.inode)
                if target is not None:
                    target.sync(self._began[record.thread, record.inode])
            case "U":
                self._enter(_Name(self.time, PurePath(record.path).name, None))
            case "R":
                old, new = PurePath(record.path).name, PurePath(record.data.decode()).name
                entry = self._folders[str(self._store.parent)].live()[old]
                self._enter((_Name(self.time, old, None), _Name(self.time, new, entry)))
            case "K" if record.path == str(self._store.parent):
                above = self._folders[str(self._store.parent.parent)]
                above.pending.append(_Name(self.time, self._store.parent.name, True))

    def _enter(self, change: _Name | tuple[_Name, _Name]) -> None:
        self._folders[str(self._store.parent)].pending.append(change)

    def _file(self, record: Record) -> _File:
        """The file that was written; one whose inode is at no name has just been made."""
        folder = self._folders[str(self._store.parent)]
        name = PurePath(record.path).name
        file = self._files.get(record.inode)
        there = folder.live()
        if file is None or (name not in there and all(entry is not file for entry in there.values())):
            file = self._files[record.inode] = _File()
            self._enter(_Name(self.time, name, file))
        return file


def _survivors(changes: list[_Change], choice: random.Random) -> Iterator[_Change]:
    """What reached the disk of these, by one of the ways in which disks lose things."""
    way = choice.choice(["none", "all", "beginning", "whole writes", "sectors"])
    share = choice.choice([0.05, 0.5, 0.95])
    if way == "beginning":
        end = choice.randint(0, len(changes))
        yield from changes[:end]
        for change in changes[end : end + 1]:
            yield from _torn(change, share, choice)
    elif way == "sectors":
        for change in changes:
            yield from _torn(change, share, choice)
    elif way != "none":
        yield from (change for change in changes if way == "all" or choice.random() < share)


def _torn(change: _Change, share: float, choice: random.Random) -> Iterator[_Change]:
    if change.data is None:
        if choice.random() < share:
            yield change
        return
    start, end = change.offset, change.offset + len(change.data)
    while start < end:
        stop = min(end, start - start % SECTOR + SECTOR)
        if choice.random() < share:
            yield _Change(change.at, start, change.data[start - change.offset : stop - change.offset])
        start = stop


def _apply(image: bytearray, change: _Change) -> None:
    size = change.offset
    if len(image) < size:
        image += bytes(size - len(image))
    if change.data is None:
        del image[size:]
    else:
        image[size : size + len(change.data)] = change.data


def _at(change: _Name | tuple[_Name, _Name]) -> int:
    return change.at if isinstance(change, _Name) else change[0].at


def _enter(names: dict[str, _File | bool], change: _Name | tuple[_Name, _Name]) -> None:
    for _, name, entry in [change] if isinstance(change, _Name) else change:
        if entry is None:
            names.pop(name, None)
        else:
            names[name] = entry
