"""Which file is used, and what is said where there is none or it can't be read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from hueyctl.config import find, load
from hueyctl.errors import ConfigError


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    assert caught.value.exit_code == 2
    return caught.value.problems


def test_the_file_of_this_folder_comes_before_that_of_a_parent(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "jobs.toml").touch()
    assert find(None, cwd=inner, environ={}) == tmp_path / "jobs.toml"
    (inner / "jobs.toml").touch()
    assert find(None, cwd=inner, environ={}) == inner / "jobs.toml"


def test_a_named_file_comes_first_then_the_variable_and_both_are_of_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").touch()
    environ = {"HUEYCTL_FILE": "other.toml"}
    assert find(Path("my.toml"), cwd=tmp_path, environ=environ) == tmp_path / "my.toml"
    assert find(None, cwd=tmp_path, environ=environ) == tmp_path / "other.toml"
    assert find(None, cwd=tmp_path, environ={"HUEYCTL_FILE": "/etc/j.toml"}) == Path("/etc/j.toml")
    assert find(None, cwd=tmp_path, environ={"HUEYCTL_FILE": ""}) == tmp_path / "jobs.toml"


def test_a_broken_link_is_not_passed_over_for_a_parents_file(tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "jobs.toml").symlink_to("nowhere")
    assert find(None, cwd=tmp_path / "a", environ={}) == tmp_path / "a" / "jobs.toml"


def test_without_any_file_the_hint_names_init(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find(None, cwd=tmp_path, environ={})
    assert caught.value.problems == (f"jobs.toml: there is none in {tmp_path} or a folder above it",)
    assert "hueyctl init" in str(caught.value.hint)


def test_a_link_in_the_path_is_kept_so_that_it_can_be_changed_under_a_worker(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "jobs.toml").write_text('[jobs.a]\ncommand = ["true"]\n')
    (tmp_path / "current").symlink_to("v1")
    project = load(tmp_path / "current" / "jobs.toml", environ={})
    assert project.dir == project.jobs["a"].dir == tmp_path / "current"
    assert project.store == str(tmp_path / "current" / ".hueyctl" / "queue.db")


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert load(Path("jobs.toml"), environ={}).path == tmp_path / "jobs.toml"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path / "my.toml") == (f"my.toml: there is no such file ({tmp_path / 'my.toml'})",)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert problems(tmp_path)[0].startswith(f"{tmp_path.name}: expected a file, got a folder")


def test_what_the_system_says_about_an_unreadable_file_is_passed_on(tmp_path: Path) -> None:
    loop = tmp_path / "jobs.toml"
    loop.symlink_to("jobs.toml")
    assert problems(loop)[0].startswith("jobs.toml: can't be read: Too many levels of symbolic links")
    assert "can't be read" in problems(tmp_path / "a\0b")[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\n[jobs.a\n", "jobs.toml: line 2, column 8: Expected ']'"),
        (b"a = \x1b[31m", "jobs.toml: line 1, column 5: Invalid value"),
        (b'a = "\x07"', "jobs.toml: line 1, column 6: Illegal character '\\x07'"),
        (b"a = [", "jobs.toml: end of document: Invalid value"),
        (b"a = 1\na = 2", "jobs.toml: end of document: Cannot overwrite a value"),
        (b"\n\na = '\xff'", "jobs.toml: line 3: not UTF-8 (byte 0xff)"),
        ("a = 1".encode("utf-16"), "jobs.toml: line 1: not UTF-8 (byte 0xff)"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "jobs.toml: nested too deeply"),
        (b"a = " + b"9" * 5000, "jobs.toml: Exceeds the limit"),
        (b"#" * (5 * 1024 * 1024 + 1), "jobs.toml: larger than 5 MiB"),
    ],
    ids=range(10),
)
def test_a_broken_file_is_said_with_its_place(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "jobs.toml").write_bytes(content)
    (problem,) = problems(tmp_path / "jobs.toml")
    assert problem.startswith(expected)
    assert problem.isprintable()


def test_a_byte_order_mark_and_windows_line_ends_are_tolerated(tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_bytes(b'\xef\xbb\xbf[jobs.a]\r\ncommand = ["true"]\r\n')
    assert list(load(tmp_path / "jobs.toml", environ={}).jobs) == ["a"]


def test_the_file_is_read_once(tmp_path: Path) -> None:
    """A pipe gives its text only once; so a file that is being changed can't be seen in two states."""
    pipe = tmp_path / "jobs.toml"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=('[jobs.a]\ncommand = ["true"]\n',))
    writer.start()
    assert list(load(pipe, environ={}).jobs) == ["a"]
    writer.join()
