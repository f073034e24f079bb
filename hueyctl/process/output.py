"""An attempt's output on the disk: bounded however much is printed, and readable at any moment.

A stream is at most `limit` bytes: the first half of that in the file itself; beyond it only the last half is kept, in
two side files that replace each other (`NAME.HEAD-START`: how long the head is, and at which byte of the stream the
piece starts). At the end head, a line that says how much was cut, and tail become the file, in one rename: so whoever
reads finds a true beginning and a true end at every moment, after a kill too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

READ_SIZE = 1024 * 1024
_COPY_SIZE = 256 * 1024
_MARKER = re.compile(rb"\n\[hueyctl: (\d+) bytes cut\]\n")
_MARKER_MAX = 64


def cut_marker(count: int) -> bytes:
    """The line that stands for `count` bytes that were not kept."""
    return b"\n[hueyctl: %d bytes cut]\n" % count


class CappedFile:
    """The writer of one stream. Creates its file (0600, the folder 0700) at the first byte.

    It never raises for a disk that is full or gone: what can't be kept is counted, and said in the file if possible.
    """

    def __init__(self, path: str, limit: int) -> None:
        self.total = 0  # bytes printed, those cut included
        self.error: str | None = None  # why not all within the limit was kept, if it wasn't
        self._path = path
        self._head_max = max(limit // 2, 1)
        self._tail_max = max(limit - limit // 2, 1)
        self._head = 0
        self._fd = -1
        self._pieces: list[_Piece] = []

    def write(self, data: bytes) -> None:
        """Take `data`: cost in proportion to it alone, however much came before."""
        self.total += len(data)
        if self.error:
            return
        try:
            if self._head < self._head_max:
                data = self._write_head(data)
            while data:
                data = self._write_tail(data)
        except OSError as exc:
            self.error = exc.strerror

    def close(self) -> None:
        """Put head and tail together, and let the file go."""
        try:
            if self._pieces:
                self._join()
            elif self.error and self._fd >= 0:
                _write_all(self._fd, cut_marker(self.total - self._head))
        except OSError as exc:
            self.error = exc.strerror  # head and pieces are still there, and readers understand them
        finally:
            for fd in [self._fd, *(piece.fd for piece in self._pieces)]:
                if fd >= 0:
                    os.close(fd)
            self._fd, self._pieces = -1, []

    def _write_head(self, data: bytes) -> bytes:
        if self._fd < 0:
            self._fd = _create(self._path)
        room = self._head_max - self._head
        for_head = data if len(data) <= room else data[:room]
        try:
            _write_all(self._fd, for_head)
        except OSError:
            self._head = os.fstat(self._fd).st_size
            raise
        self._head += len(for_head)
        return data[room:]

    def _write_tail(self, data: bytes) -> bytes:
        if not self._pieces or self._pieces[-1].size >= self._tail_max:
            start = self.total - len(data)
            if len(data) > 2 * self._tail_max:  # most of it would be gone again at once
                start += len(data) - self._tail_max
                data = data[-self._tail_max :]
            if len(self._pieces) == 2:
                gone = self._pieces.pop(0)
                os.close(gone.fd)
                os.unlink(gone.path)
            self._pieces.append(_Piece(f"{self._path}.{self._head}-{start}"))
        piece = self._pieces[-1]
        room = self._tail_max - piece.size
        for_piece = data if len(data) <= room else data[:room]
        _write_all(piece.fd, for_piece)
        piece.size += len(for_piece)
        return data[room:]

    def _join(self) -> None:
        tail = min(self._tail_max, sum(piece.size for piece in self._pieces))
        cut = self.total - self._head - tail
        whole = f"{self._path}.whole"
        target = _create(whole)
        try:
            with os.fdopen(_open(self._path), "rb") as head:
                _copy(head.fileno(), target, 0)
            if cut > 0:
                _write_all(target, cut_marker(cut))
            skip = sum(piece.size for piece in self._pieces) - tail
            for piece in self._pieces:
                _copy(piece.fd, target, min(skip, piece.size))
                skip -= min(skip, piece.size)
            os.rename(whole, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(whole)
            raise
        finally:
            os.close(target)
        for piece in self._pieces:
            os.unlink(piece.path)


class _Piece:
    """A side file with a part of the tail."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = _create(path)
        self.size = 0


class OutputReader:
    """Follows one stream from its beginning, while it is written and after; holds no more than one piece of it.

    It repeats nothing and leaves nothing out but what was cut before it came by: there it puts the marker, once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._offset = 0  # in the open file
        self._position = 0  # in the stream, as long as the open file isn't the joined one
        self._head = 0
        self._piece: int | None = None  # where the open side file starts
        self._joined = False

    def read(self) -> bytes:
        """What came since the last call, at most 1 MiB of it: empty means that there is nothing more now."""
        if self._fd < 0:
            try:
                self._fd = _open(self._path)
            except FileNotFoundError:
                return b""
        data = self._more()
        if data or self._joined:
            return data
        if self._replaced():
            return self._go_to_joined()
        following = self._following()
        if following is None:
            return b""
        # First what came into the open file between our last read and the next file's beginning.
        return self._more() or self._go_to_piece(*following)

    def close(self) -> None:
        """Let the file go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _more(self) -> bytes:
        data = os.pread(self._fd, READ_SIZE, self._offset)
        self._offset += len(data)
        self._position += len(data)
        return data

    def _replaced(self) -> bool:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return False
        if self._piece is not None:
            return found.st_size > self._head  # while there are pieces, the file has the head alone
        mine = os.fstat(self._fd)
        return (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino)

    def _following(self) -> tuple[int, Path] | None:
        pieces = _pieces(self._path)
        if self._piece is None and any(head != self._offset for head, _, _ in pieces):
            return None  # the joined file, whose pieces are about to go
        return next(((start, path) for _, start, path in pieces if self._piece is None or start > self._piece), None)

    def _go_to_piece(self, start: int, path: Path) -> bytes:
        try:
            fd = _open(path)
        except FileNotFoundError:
            return b""  # gone again; the next call finds its successor
        if self._piece is None:
            self._head = self._offset
        os.close(self._fd)
        missed = start - self._position
        self._fd, self._offset, self._position, self._piece = fd, 0, start, start
        return cut_marker(missed) if missed > 0 else self._more()

    def _go_to_joined(self) -> bytes:
        try:
            fd = _open(self._path)
        except FileNotFoundError:
            return b""
        os.close(self._fd)
        self._fd, self._joined = fd, True
        if self._piece is None:
            return self._more()  # still in the head, which is the same in both
        marker = _MARKER.match(os.pread(fd, _MARKER_MAX, self._head))
        if marker is None:
            self._offset = self._position
            return self._more()
        tail = self._head + int(marker[1])
        self._offset = self._head + len(marker[0]) + max(0, self._position - tail)
        return cut_marker(tail - self._position) if self._position < tail else self._more()


def whole(path: Path) -> bytes:
    """All that is kept of a stream. Raises OSError."""
    with os.fdopen(_open(path), "rb") as file:
        return file.read()


def tail(path: Path, size: int) -> bytes:
    """The last `size` bytes; fewer where fewer were printed."""
    found: list[bytes] = []
    left = size
    for block in _backwards(path):
        if not left:
            break
        found.append(block[-left:])
        left -= len(found[-1])
    return b"".join(reversed(found))


def end_of(path: Path, size: int) -> bytes:
    """The last `size` bytes, behind a line that says how much was left out, if any was."""
    try:
        found = tail(path, size)
        left_out = os.stat(path).st_size - len(found)
    except OSError:
        return b""
    return cut_marker(left_out) + found if left_out > 0 else found


def tail_lines(path: Path, n: int) -> bytes:
    """The last `n` lines; nothing where nothing was printed."""
    if n <= 0:
        return b""
    found: list[bytes] = []
    missing = n + 1  # newlines: the one that ends the last line doesn't count
    for block in _backwards(path):
        if not found and not block.endswith(b"\n"):
            missing -= 1
        count = block.count(b"\n")
        if count >= missing:
            at = len(block)
            for _ in range(missing):
                at = block.rindex(b"\n", 0, at)
            found.append(block[at + 1 :])
            break
        missing -= count
        found.append(block)
    return b"".join(reversed(found))


def _backwards(path: Path) -> Iterator[bytes]:
    """The stream as it is kept now, in blocks from its end."""
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        return
    pieces = [piece for piece in _pieces(path) if piece[0] == size]
    following = None
    for _, start, piece in reversed(pieces):
        with contextlib.suppress(FileNotFoundError), os.fdopen(_open(piece), "rb") as file:
            end = file.seek(0, os.SEEK_END)
            if following is not None and following > start + end:
                yield cut_marker(following - start - end)
            following = start
            yield from _blocks(file.fileno(), end)
    if following is not None and following > size:
        yield cut_marker(following - size)
    with contextlib.suppress(FileNotFoundError), os.fdopen(_open(path), "rb") as file:
        yield from _blocks(file.fileno(), size)


def _blocks(fd: int, end: int) -> Iterator[bytes]:
    while end > 0:
        start = max(0, end - _COPY_SIZE)
        yield os.pread(fd, end - start, start)
        end = start


def _pieces(path: Path) -> list[tuple[int, int, Path]]:
    """The side files: length of the head, start in the stream, path; in the order of the stream."""
    named = re.compile(re.escape(path.name) + r"\.(\d+)-(\d+)")
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return []
    found = [(int(match[1]), int(match[2]), path.parent / name) for name in names if (match := named.fullmatch(name))]
    return sorted(found)


def _create(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    try:
        return _open(path, flags)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return _open(path, flags)


def _open(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """Open a file of an output. A job knows where those are, and may have put something else there: a FIFO, on which
    everybody would wait for ever, is an OSError."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a file", str(path))
    return fd


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        data = data[written:]
        written = os.write(fd, data)


def _copy(source: int, target: int, start: int) -> None:
    while piece := os.pread(source, _COPY_SIZE, start):
        _write_all(target, piece)
        start += len(piece)
