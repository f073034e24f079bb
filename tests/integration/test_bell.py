"""The bell: it reaches everyone who listens, and whoever rings it never waits and never fails."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hueyctl.storage import bell
from hueyctl.storage.bell import Bell, ring


@pytest.fixture
def dir(tmp_path: Path) -> Path:
    # pytest's own folders are nearly as long as an address may be.
    folder = tmp_path / "b"
    folder.mkdir()
    return folder


@pytest.fixture(params=["short", "long"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / ("x" * 120 if request.param == "long" else "b")
    folder.mkdir()
    return folder


def is_ringing(bell: Bell, timeout: float = 0) -> bool:
    return bool(select.select([bell], [], [], timeout)[0])


def test_everyone_who_listens_hears_it_once(anywhere: Path) -> None:
    with closing(Bell(anywhere)) as one, closing(Bell(anywhere)) as two:
        assert one.rings
        assert not is_ringing(one)
        ring(anywhere)
        for bell_ in (one, two):
            assert is_ringing(bell_, 5)
            assert bell_.drain() == {b"work"}
            assert bell_.drain() == set()
            assert not is_ringing(bell_)


def test_kinds_are_told_apart(dir: Path) -> None:
    with closing(Bell(dir)) as listener:
        for kind in (b"work", b"death", b"work"):
            ring(dir, kind)
        assert listener.drain() == {b"work", b"death"}


def test_a_ringer_may_pass_over_its_own_bell(dir: Path) -> None:
    with closing(Bell(dir)) as own, closing(Bell(dir)) as other:
        ring(dir, skip=own.path)
        assert own.drain() == set()
        assert other.drain() == {b"work"}


def test_a_listener_that_never_reads_blocks_nobody(dir: Path) -> None:
    with closing(Bell(dir)) as stuck, closing(Bell(dir)) as other:
        for _ in range(2_000):
            ring(dir)
            other.drain()
        ring(dir, b"last")
        assert b"last" in other.drain()
        assert stuck.drain() == {b"work"}


def test_the_socket_of_the_dead_is_removed_and_the_others_still_hear(anywhere: Path) -> None:
    code = (
        f"from pathlib import Path; from hueyctl.storage.bell import Bell; import os; b = Bell(Path({str(anywhere)!r}))"
    )
    subprocess.run([sys.executable, "-c", f"{code}; os._exit(0)"], check=True, cwd=Path(bell.__file__).parents[2])
    assert len(list(anywhere.iterdir())) == 1
    with closing(Bell(anywhere)) as listener:
        ring(anywhere)
        assert listener.drain() == {b"work"}
        assert list(anywhere.iterdir()) == [listener.path]


def test_only_sockets_are_removed(dir: Path) -> None:
    (dir / "notes.txt").write_text("mine")
    (dir / "folder").mkdir()
    ring(dir)
    assert (dir / "notes.txt").read_text() == "mine"
    assert (dir / "folder").is_dir()


def test_ringing_where_nobody_is_does_nothing(dir: Path) -> None:
    ring(dir)
    ring(dir / "missing")


def test_a_bell_that_cannot_be_hung_stays_silent(tmp_path: Path) -> None:
    with closing(Bell(tmp_path / "missing")) as silent:
        assert not silent.rings
        assert silent.path is None
        assert not is_ringing(silent)
        assert silent.drain() == set()


def test_closing_takes_the_socket_away(anywhere: Path) -> None:
    listener = Bell(anywhere)
    listener.close()
    listener.close()
    assert list(anywhere.iterdir()) == []


def test_names_never_recur(dir: Path) -> None:
    names = set()
    for _ in range(50):
        with closing(Bell(dir)) as listener:
            assert listener.path is not None
            names.add(listener.path.name)
    assert len(names) == 50


def test_a_datagram_longer_than_a_kind_is_cut_and_does_no_harm(dir: Path) -> None:
    with closing(Bell(dir)) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x" * 1000, os.fspath(listener.path or ""))
        assert listener.drain() == {b"x" * 64}


def test_the_guard_can_ring_without_loading_anything_heavy() -> None:
    heavy = ("msgspec", "sqlite3", "typer", "huey")
    code = f"import sys; import hueyctl.storage.bell; print([name for name in {heavy} if name in sys.modules])"
    root = Path(bell.__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True).stdout
    assert out == "[]\n"
