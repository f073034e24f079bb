"""docs/json.md says which keys each command's JSON has: typed here, and compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shell import Shell

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
KEY = re.compile("`([a-z_]+)`")
JOBS = """
    [jobs.plain]
    command = ["true"]
    unique = "job"
    [jobs.other]
    command = ["true"]
    [pipelines.line]
    steps = ["plain", "other"]
    [schedules.often]
    job = "other"
    every = "1h"
    """
# What is typed for each row, and with which exit code.
TYPED = {
    "check": ("check", 0),
    "jobs": ("jobs", 0),
    "enqueue NAME": ("enqueue plain", 0),
    "enqueue --batch FILE": ("enqueue --batch batch", 0),
    "inspect": ("inspect", 0),
    "inspect RUN": ("inspect last", 0),
    "inspect JOB": ("inspect plain", 0),
    "inspect PIPELINE": ("inspect line", 0),
    "inspect SCHEDULE": ("inspect often", 0),
    "runs": ("runs -n 1", 0),
    "logs RUN": ("logs done", 0),
    "result RUN": ("result done", 0),
    "wait RUN…": ("wait done", 0),
    "revoke": ("revoke done", 1),
    "retry": ("retry done", 1),
    "retry --again": ("retry --again done", 0),
    "pause": ("pause --job plain", 0),
    "resume": ("resume --job plain", 0),
    "graph NAME": ("graph line", 0),
    "stats": ("stats", 0),
    "events": ("events -n 1", 0),
    "schedule list": ("schedule list", 0),
    "schedule next NAME": ("schedule next often", 0),
    "schedule trigger NAME": ("schedule trigger often", 0),
    "schedule backfill NAME": ("schedule backfill often --from 2h", 0),
    "top": ("top", 0),
    "metrics": ("metrics", 0),
    "worker status": ("worker status", 1),
    "worker stop": ("worker stop --all", 0),
    "worker reload": ("worker reload --all", 0),
    "doctor": ("doctor", 1),
    "prune": ("prune --dry-run", 0),
    "backup FILE": ("backup copy.db", 0),
}
NOT_HERE = {"worker start --detach"}  # an acceptance test starts one


def rows() -> list[tuple[str, set[str], set[str]]]:
    """Each command with the keys that it always has, and those that it may have."""
    found = []
    for line in PAGE.splitlines():
        if line.startswith("| `"):
            commands, keys = line.strip("| ").split(" | ")
            always, _, sometimes = keys.partition(";")
            always = always.partition(":")[0].partition(",")[0]
            keys_of = set(KEY.findall(always)), set(KEY.findall(sometimes))
            found += [(command, *keys_of) for command in re.findall(r"`([^`]+)`", commands)]
    return found


def test_every_row_is_typed() -> None:
    assert {command for command, _, _ in rows()} == TYPED.keys() | NOT_HERE


@pytest.fixture
def played(shell: Shell) -> tuple[Shell, str]:
    shell.write(JOBS)
    done = shell.enqueue("other")
    shell.finish("other")
    shell.enqueue("plain")
    shell.enqueue("other")
    (shell.dir / "batch").write_text('{"job": "other"}\n')
    return shell, done


@pytest.mark.parametrize(("command", "always", "sometimes"), [row for row in rows() if row[0] not in NOT_HERE])
def test_a_command_has_the_keys_that_the_page_says(
    played: tuple[Shell, str], command: str, always: set[str], sometimes: set[str]
) -> None:
    shell, done = played
    words, code = TYPED[command]
    said = shell.type(*(done if word == "done" else word for word in words.split()), "--json", code=code)
    document = said.json if isinstance(said.json, dict) else said.json[0]
    assert document["schema"] == 1
    found = document.keys() - {"schema"}
    if command == "events":
        event = re.search(r"\*\*An event\*\* has ([^.]+),", PAGE)
        assert event
        always = set(KEY.findall(event[1])) - {"schema"}
    assert always <= found <= always | sometimes


def test_a_run_has_the_keys_that_the_page_says(played: tuple[Shell, str]) -> None:
    shell, done = played
    said = re.search(r"\*\*A run\*\* has ([^.]+)\.", PAGE)
    assert said
    assert shell.run(done).keys() == set(KEY.findall(said[1]))
