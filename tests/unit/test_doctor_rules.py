"""The doctor's rules that need no store: how much space is little, and which SQLite has the WAL-reset bug."""

from __future__ import annotations

import pytest

from hueyctl.app.doctor_ground import GIB, MIB, of_free_space
from hueyctl.storage.health import has_reset_bug
from hueyctl.storage.place import file_system


@pytest.mark.parametrize(
    ("free", "state"),
    [(0, "problem"), (100 * MIB - 1, "problem"), (100 * MIB, "warning"), (GIB - 1, "warning"), (GIB, "ok")],
)
def test_little_space_is_told_and_almost_none_is_a_problem(free: int, state: str) -> None:
    check = of_free_space(free, 100 * GIB, 10**6, 10**7)
    assert check.state == state
    assert (check.hint is None) == (state == "ok")


def test_a_disk_can_be_full_of_files_too() -> None:
    assert of_free_space(50 * GIB, 100 * GIB, 9_999, 10**7).state == "warning"
    assert of_free_space(50 * GIB, 100 * GIB, 0, 0).state == "ok", "a file system without inodes has no such limit"


@pytest.mark.parametrize(
    ("version", "bug"),
    [
        ((3, 37, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_the_reset_bug_is_in_all_but_the_fixed_versions_of_each_branch(
    version: tuple[int, int, int], bug: bool
) -> None:
    assert has_reset_bug(version) is bug


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: object) -> None:
    mounts = (
        "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / /srv rw - nfs4 host:/x rw\n3 2 0:8 / /srv/q rw - xfs /dev/b rw\n"
    )
    from pathlib import Path

    assert file_system(Path("/srv/q/r"), mountinfo=mounts) == "xfs"
    assert file_system(Path("/srv/other"), mountinfo=mounts) == "nfs4"
    assert file_system(Path("/home"), mountinfo=mounts) == "ext4"
    assert file_system(Path("/home"), mountinfo="") is None
