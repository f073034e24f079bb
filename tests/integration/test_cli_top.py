"""`top`: the whole at a glance, as long as somebody looks."""

from __future__ import annotations

import os
import re
import signal

import pexpect
import pytest
from shell import Shell

pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")  # pexpect's, with xdist's threads

BEGIN, END = "\x1b[?1049h", "\x1b[?1049l"  # the alternate screen of xterm and its kin
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write("""
        [jobs.fetch]
        command = ["true"]

        [jobs.flaky]
        script = "exit 1"
        """)


@pytest.fixture
def run(shell: Shell) -> str:
    """What there is to see: one run running, one that failed, one next up."""
    shell.enqueue("flaky")
    shell.finish("flaky", code=1)
    run = shell.enqueue("fetch")
    shell.claim("fetch")
    progress = shell.place.progress(run, 1)
    progress.parent.mkdir(parents=True, exist_ok=True)
    progress.write_text("3/4 \x1b[2Jmixing")
    shell.enqueue("fetch", "--priority", "7")
    return run


class Looking:
    """Somebody in front of a terminal, where `sh` starts `top` and then says its exit code and the terminal's state."""

    def __init__(self, shell: Shell, *words: str, lines: int = 24) -> None:
        top = f"sh -c 'echo $$ > pid; exec {' '.join(shell.argv('top', *words))}'"
        command = f"trap : INT; stty -g; {top}; echo exit code $?; stty -g"
        self.terminal: pexpect.spawn[str] = pexpect.spawn(
            "/bin/sh",
            ["-c", command],
            cwd=str(shell.dir),
            env={**shell.env(TERM="xterm"), "NO_COLOR": "1"},
            dimensions=(lines, 80),
            encoding="utf-8",
            timeout=20,
        )
        self.terminal.expect("([0-9a-f:=,]{20,})\r\n")
        self.before = self.terminal.match[1]
        self.terminal.expect_exact(BEGIN)

    def see(self, text: str) -> None:
        self.terminal.expect(text)

    def see_it_end(self) -> None:
        """With exit code 0, and a terminal that is as it was."""
        self.terminal.expect_exact(END)
        assert SHOW in self.terminal.before
        self.terminal.expect("exit code ([0-9]+)\r\n")
        assert self.terminal.match[1] == "0"
        self.terminal.expect("([0-9a-f:=,]{20,})\r\n")
        assert self.terminal.match[1] == self.before
        self.terminal.expect(pexpect.EOF)
        self.terminal.close()


def test_it_shows_what_runs_and_what_happens_until_q_and_leaves_the_terminal_as_it_was(shell: Shell, run: str) -> None:
    looking = Looking(shell, "--interval", "10m")
    looking.see(rf"{run[:8]} +fetch +1 +\S+ +w1 +3/4 \(75%\) \\x1b\[2Jmixing")
    later = shell.enqueue("flaky")
    looking.see(rf"{later[:8]} +flaky +queued")  # the bell rang: the interval is long
    looking.terminal.setwinsize(12, 40)
    looking.see(r"NEXT UP 1/2")
    looking.terminal.send("xq")
    looking.see_it_end()
    assert list(shell.place.bell.iterdir()) == [], "nothing of it is left beside the store"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_as_well(shell: Shell, run: str, number: int) -> None:
    looking = Looking(shell)
    looking.see("last minute")
    if number == signal.SIGINT:
        looking.terminal.sendintr()
    else:
        os.kill(int((shell.dir / "pid").read_text()), number)
    looking.see_it_end()


def test_what_goes_wrong_is_said_where_one_can_read_it(shell: Shell, run: str) -> None:
    looking = Looking(shell)
    looking.see("last minute")
    shell.place.path.rename(shell.place.path.with_name("moved"))
    looking.terminal.expect_exact(END)
    looking.see("was deleted or moved while in use")
    looking.see("exit code 4")
    looking.terminal.close()


def test_without_a_terminal_it_is_shown_once(shell: Shell, run: str) -> None:
    said = shell.type("top")
    first, _, *lines = said.out.splitlines()
    assert re.fullmatch(r"[0-9:]{8}Z  last minute: 1 run ended \(1/min\), 1 failed", first)
    assert [line for line in lines if line.islower() and " " not in line] == [
        "workers",
        "queues",
        "running",
        "failures",
    ]
    assert rf"{run[:8]}  fetch  1" in said.out
    assert "mixing" in said.out
    assert "\x1b" not in said.out
    assert "no worker is running" in said.err


def test_as_json_it_is_one_document_with_all_that_inspect_knows_of_runs(shell: Shell, run: str) -> None:
    document, inspected = shell.type("top", "--json").json, shell.type("inspect", "--json").json
    shared = "queues running progress next_up in_the_way recent_failures workers pauses".split()
    assert list(document) == ["schema", "at", *shared, "throughput"]
    assert {key: document[key] for key in shared} == {key: inspected[key] for key in shared}
    assert document["throughput"] == {"seconds": 60.0, "succeeded": 0, "failed": 1, "other": 0}
    assert document["running"][0]["id"] == run


def test_a_wrong_interval_and_no_store_are_said(shell: Shell) -> None:
    assert "--interval: expected a duration" in shell.type("top", "--interval", "soon", code=2).err
    assert shell.type("top", "--json", code=4).error["code"] == "store-missing"
    assert not shell.place.dir.exists()
