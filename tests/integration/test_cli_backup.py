"""`hueyctl backup`: one file that stands alone, or a clear refusal and nothing left."""

from __future__ import annotations

import os
import resource
import sqlite3
import uuid
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from shell import Shell

import hueyctl
from hueyctl.errors import Refused
from hueyctl.model.run import Message, NewRun
from hueyctl.storage.database import SCHEMA_VERSION


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write("""
        [jobs.fetch]
        command = ["true"]
        params = { url = "" }
        """)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_copy_is_one_file_for_its_owner_alone_that_can_be_read_where_nothing_can_be_written(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shell.enqueue("fetch")
    folder = shell.dir / "copies"
    folder.mkdir()
    said = shell.type("backup", "copies/a.db")
    assert said.out == f"wrote copies/a.db: 1 run, {(folder / 'a.db').stat().st_size // 1024} KiB, checked\n"
    assert "what runs have printed is not in it" in said.err
    assert names(folder) == ["a.db"]
    assert (folder / "a.db").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("HUEYCTL_STORE", str(folder / "a.db"))
    assert [found["id"] for found in shell.type("runs", "--json").json["runs"]] == [run]
    assert names(folder) == ["a.db"]


def test_a_file_that_is_there_is_replaced_only_by_force(shell: Shell) -> None:
    shell.enqueue("fetch")
    target = shell.dir / "copy.db"
    target.write_text("precious")
    said = shell.type("backup", "copy.db", code=1)
    assert said.err == f"hueyctl: {target} is there already\nhint: --force replaces it\n"
    assert target.read_text() == "precious"
    found = shell.type("backup", "copy.db", "--force", "--json").json
    assert found == {
        "schema": 1,
        "backup": {"file": str(target), "size": target.stat().st_size, "runs": 1, "last_seq": 1},
    }


def test_a_store_is_never_the_target_under_whatever_name(shell: Shell) -> None:
    shell.enqueue("fetch")
    store = shell.place.path
    (shell.dir / "link").symlink_to(store)
    os.link(store, shell.dir / "same")
    (shell.dir / "other.db").write_bytes(b"")
    (shell.dir / "other.db-wal").write_bytes(b"")
    before = store.stat()
    for name in (str(store), f"{store}-wal", "link", "same", "other.db"):
        shell.type("backup", "--force", name, code=1)
    assert (store.stat().st_ino, (shell.dir / "other.db").stat().st_size) == (before.st_ino, 0)
    assert len(shell.type("runs", "--json").json["runs"]) == 1


@pytest.mark.parametrize("target", ["missing/copy.db", ".", "n" * 300])
def test_a_place_where_nothing_can_be_written_is_named(shell: Shell, target: str) -> None:
    shell.enqueue("fetch")
    before = names(shell.dir)
    assert str(shell.dir / target) in shell.type("backup", target, code=1).err
    assert names(shell.dir) == before


def test_a_full_disk_leaves_nothing(shell: Shell) -> None:
    run = NewRun(id=str(uuid.uuid4()), job="fetch", message=Message(params={"url": "x" * 500_000}))
    with shell.store() as store:
        store.accept([run], by="b", now=datetime.now(UTC))
    before = names(shell.dir)
    for limit in (50_000, 200_000, 500_000):  # of the copy; the shared memory of the store's log fits into each
        full = shell.spawn(
            "backup", "copy.db", preexec_fn=lambda n=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))
        )
        out, err = full.communicate(timeout=30)
        assert (full.returncode, out) == (1, b""), err
        assert b"copy.db can't be written: the disk, a quota or a file size limit is full" in err
        assert names(shell.dir) == before


def test_a_damaged_store_gives_no_copy(shell: Shell) -> None:
    with shell.store() as store:
        for _ in range(50):
            run = NewRun(id=str(uuid.uuid4()), job="fetch", message=Message(params={"url": "x" * 5000}))
            store.accept([run], by="b", now=datetime.now(UTC))
    with shell.place.path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xa5" * 4096 * 20)
    before = shell.place.path.read_bytes()
    said = shell.type("backup", "copy.db", code=4)
    assert "is damaged" in said.err
    assert names(shell.dir) == [".hueyctl", "jobs.toml"]
    assert shell.place.path.read_bytes() == before


def test_a_store_of_an_older_version_can_be_copied_before_it_is_migrated(shell: Shell) -> None:
    shell.enqueue("fetch")
    with closing(sqlite3.connect(shell.place.path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
    shell.type("runs", code=4)
    shell.type("backup", "copy.db")
    with closing(sqlite3.connect(shell.dir / "copy.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION - 1,)


def test_where_there_is_no_store_there_is_nothing_to_copy(shell: Shell) -> None:
    assert "there is no store yet" in shell.type("backup", "copy.db", code=4).err
    assert names(shell.dir) == ["jobs.toml"]


def test_python_makes_one_too(shell: Shell) -> None:
    with hueyctl.open_queue(shell.dir / "jobs.toml") as queue:
        queue.enqueue("fetch")
        assert queue.backup(shell.dir / "copy.db").runs == 1
        with pytest.raises(Refused, match="is there already"):
            queue.backup(shell.dir / "copy.db")
        queue.enqueue("fetch")
        assert queue.backup(shell.dir / "copy.db", replace=True).runs == 2
