"""Captured output on the disk: what is kept, what a follower reads meanwhile, and the last lines."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hueyctl.process.output import CappedFile, OutputReader, cut_marker, tail, tail_lines

CUT = re.compile(rb"\n\[hueyctl: (\d+) bytes cut\]\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output")


def fresh(folder: Path) -> Path:
    return folder / f"{len(os.listdir(folder))}" / "1.out"


def stream(size: int) -> bytes:
    """A stream in which every 8 bytes say where they are."""
    return b"".join(b"%07d\n" % at for at in range(0, size + 8, 8))[:size]


def kept(data: bytes, limit: int) -> bytes:
    """What is to be in the file at the end."""
    head, tail = limit // 2, limit - limit // 2
    if len(data) <= limit:
        return data
    return data[:head] + cut_marker(len(data) - limit) + data[len(data) - tail :]


def restored(read: bytes, data: bytes) -> bytes:
    """What was read, with as many bytes of `data` put in as each marker says are missing there."""
    position, whole = 0, b""
    for match in CUT.finditer(read):
        whole += read[position : match.start()]
        whole += data[len(whole) : len(whole) + int(match[1])]
        position = match.end()
    return whole + read[position:]


chunks = st.lists(st.integers(1, 3000), max_size=40)


@settings(deadline=None, max_examples=200)
@given(sizes=chunks, limit=st.integers(2, 4000))
def test_the_file_is_head_cut_and_tail_of_the_stream(folder: Path, sizes: list[int], limit: int) -> None:
    path, data = fresh(folder), stream(sum(sizes))
    file = CappedFile(str(path), limit)
    at = 0
    for size in sizes:
        file.write(data[at : at + size])
        at += size
        assert sum(each.stat().st_size for each in path.parent.iterdir()) <= 2 * limit
    file.close()
    assert file.total == len(data)
    assert (path.read_bytes() if sizes else b"") == kept(data, limit)
    assert not sizes or os.listdir(path.parent) == ["1.out"]


@settings(deadline=None, max_examples=300)
@given(steps=st.lists(st.integers(-3, 3000), max_size=60), limit=st.integers(2, 4000))
def test_a_follower_repeats_nothing_and_misses_only_what_it_says(folder: Path, steps: list[int], limit: int) -> None:
    """Steps above 0 write so much, the others are reads: one by one, or until there is nothing more."""
    path = fresh(folder)
    sizes = [step for step in steps if step > 0]
    data, at = stream(sum(sizes)), 0
    file, reader, read = CappedFile(str(path), limit), OutputReader(path), b""
    for step in steps:
        if step > 0:
            file.write(data[at : at + step])
            at += step
        elif step == 0:
            read += reader.read()
        else:
            while piece := reader.read():
                read += piece
    file.close()
    while piece := reader.read():
        read += piece
    reader.close()
    assert restored(read, data) == data


@pytest.fixture
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_switching_often")
def test_a_follower_in_another_thread_reads_the_same(folder: Path) -> None:
    """Side files come, go and are joined between any two of its steps."""
    for size in [*range(1_500, 4_500, 40), 400_000]:
        path, data = fresh(folder), stream(size)
        file = CappedFile(str(path), 2000)

        def write(file: CappedFile = file, data: bytes = data) -> None:
            for at in range(0, len(data), 40):
                file.write(data[at : at + 40])
            file.close()

        writer, reader, read = threading.Thread(target=write), OutputReader(path), b""
        writer.start()
        while writer.is_alive():
            read += reader.read()
        while piece := reader.read():
            read += piece
        assert restored(read, data) == data


def test_side_files_that_outlived_their_join_are_not_read_again(tmp_path: Path) -> None:
    """As after a kill between the rename and the unlinks."""
    path, data = tmp_path / "1.out", stream(1500)
    file = CappedFile(str(path), 1000)
    for at in range(0, 1500, 100):
        file.write(data[at : at + 100])
    left = {each: each.read_bytes() for each in tmp_path.iterdir() if each != path}
    assert left
    file.close()
    for each, content in left.items():
        each.write_bytes(content)
    reader = OutputReader(path)
    assert reader.read() == kept(data, 1000)
    assert reader.read() == b""
    assert tail_lines(path, 2) == b"".join(data.splitlines(keepends=True)[-2:])


def test_a_follower_that_keeps_up_misses_nothing_of_an_endless_stream(tmp_path: Path) -> None:
    path = tmp_path / "run" / "1.out"
    file, reader, read = CappedFile(str(path), 1000), OutputReader(path), b""
    data = stream(50_000)
    for at in range(0, len(data), 500):
        file.write(data[at : at + 500])
        while piece := reader.read():
            read += piece
    file.close()
    assert reader.read() == b""
    assert read == data


def test_a_follower_may_come_before_the_first_byte(tmp_path: Path) -> None:
    reader = OutputReader(tmp_path / "run" / "1.out")
    assert reader.read() == b""
    file = CappedFile(str(tmp_path / "run" / "1.out"), 100)
    file.write(b"x")
    assert reader.read() == b"x"
    assert reader.read() == b""


def test_a_reader_holds_no_more_than_a_piece(tmp_path: Path) -> None:
    file = CappedFile(str(tmp_path / "1.out"), 20_000_000)
    file.write(b"x" * 9_000_000)
    reader = OutputReader(tmp_path / "1.out")
    assert len(reader.read()) == 1024 * 1024


def test_what_a_killed_writer_left_can_be_read(tmp_path: Path) -> None:
    """Head and side files without their join, as after a kill of the guard."""
    path, data = tmp_path / "1.out", stream(5000)
    file = CappedFile(str(path), 1000)
    for at in range(0, 5000, 100):
        file.write(data[at : at + 100])
    reader, read = OutputReader(path), b""
    while piece := reader.read():
        read += piece
    match = CUT.search(read)
    assert match is not None
    assert read[: match.start()] == data[:500]
    assert data.endswith(read[match.end() :])
    assert len(read[match.end() :]) >= 500
    assert tail_lines(path, 3) == b"".join(data.splitlines(keepends=True)[-3:])


def test_a_disk_that_is_full_is_said_in_the_file_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "1.out").symlink_to("/dev/full")
    file = CappedFile(str(tmp_path / "1.out"), 1000)
    for _ in range(10):
        file.write(b"x" * 100)
    file.close()
    assert file.total == 1000


@settings(deadline=None, max_examples=200)
@given(text=st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\xff"]), max_size=60), n=st.integers(0, 12))
def test_the_last_lines_are_those_of_the_file(folder: Path, text: list[bytes], n: int) -> None:
    path = fresh(folder)
    path.parent.mkdir()
    path.write_bytes(b"".join(text))
    lines = b"".join(text).split(b"\n")
    whole = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    assert tail_lines(path, n) == b"".join(whole[max(0, len(whole) - n) :] if n else [])
    assert tail(path, n) == (b"".join(text)[-n:] if n else b"")


def test_the_last_lines_of_what_has_none_are_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "1.out").write_bytes(b"x" * 1_000_000)
    assert tail_lines(tmp_path / "1.out", 5) == b"x" * 1_000_000
    assert tail(tmp_path / "1.out", 600_000) == b"x" * 600_000
    assert tail_lines(tmp_path / "absent", 5) == b""
