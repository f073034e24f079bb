"""examples/tutorial: its session is typed as its README has it, and the event log tells what it promises."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from harness import Project

TUTORIAL = Path(__file__).resolve().parents[2] / "examples" / "tutorial"
README = TUTORIAL / "README.md"

# What differs from one session to the next, however it is written down.
VARIES = {
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{8}\b": "<id>",
    r"\b20(?!26-01-01)\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z": "<time>",
    r"^ *\d+(?= +<time>)": "<seq>",
    r"\b\d+(\.\d+)?m?s$": "<took>",
    r"\bby \S+@\S+": "by <user>",
    r"[ \xa0]+": " ",
    r" $": "",
}


def plain(text: str) -> str:
    for varying, name in VARIES.items():
        text = re.sub(varying, name, text, flags=re.MULTILINE)
    return text


def session() -> list[tuple[str, str]]:
    """Each command of the README, and what it says is printed."""
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return [
        (command, printed)
        for block in blocks
        for command, printed in re.findall(r"(?m)^\$ (.*)\n((?:[^$].*\n)*)", block)
    ]


def type_it(project: Project) -> None:
    """Type the whole session into one shell, and compare what each command prints."""
    commands = session()
    script = "".join(f"{command}\nprintf '\\0%s\\0' $?\n" for command, _ in commands)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=project.dir,
        env=project.env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "Traceback" not in done.stderr
    printed = iter(done.stdout.split("\0"))
    for command, expected in commands:
        out, code = next(printed), next(printed)
        pattern = ".*".join(map(re.escape, plain(expected).split("…")))
        said = f"$ {command}\n{out}exit code {code}\nexpected:\n{expected}\non stderr, of all:\n{done.stderr}"
        assert code == "0", said
        assert re.fullmatch(pattern, plain(out), re.DOTALL), said


def time_of(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["time"])


def test_the_session_of_the_readme_is_true_and_the_event_log_tells_it(project: Project) -> None:
    shutil.copytree(TUTORIAL, project.dir / "examples" / "tutorial", ignore=shutil.ignore_patterns("build", ".*"))
    type_it(project)
    project.dir = project.dir / "examples" / "tutorial"
    events = project.events()
    assert [events[0]["type"], events[-1]["type"]] == ["enqueued", "worker-offline"]

    def of(*types: str, job: str) -> list[dict[str, Any]]:
        return [event for event in events if event["type"] in types and event["job"] == job]

    def histories(job: str) -> list[list[tuple[int, str]]]:
        """That of each run of a job, the oldest first, but for having waited for a lock."""
        found: dict[str, list[tuple[int, str]]] = {}
        for event in events:
            if event["job"] == job and event["type"] != "locked":
                found.setdefault(event["run"], []).append((event["attempt"], event["type"]))
        return list(found.values())

    once = [(None, "enqueued"), (1, "executing"), (1, "complete")]
    assert histories("order") == [once] * 4
    assert histories("daily_sync") == [once] * 3
    assert [event["type"] for event in of("executing", "complete", job="daily_sync")] == ["executing", "complete"] * 3
    syncs = [[event["run"] for event in of(type, job="daily_sync")] for type in ("enqueued", "executing")]
    assert syncs[0] == syncs[1]

    failed = [(n, what) for n in (1, 2, 3) for what in ("executing", "error", "retrying", "enqueued")]
    assert histories("flaky") == [[(None, "enqueued"), *failed, (4, "executing"), (4, "complete")]]
    errors, starts = of("error", job="flaky"), of("executing", job="flaky")[1:]
    assert all(
        time_of(start) - time_of(error) >= timedelta(seconds=1) for error, start in zip(errors, starts, strict=True)
    )

    first, *later = ("fetch_number", "transform_number", "store_result")
    assert histories(first) == [once]
    for job, before in zip(later, (first, *later), strict=False):
        [(_, beginning), (_, released), *rest] = histories(job)[0]
        assert (beginning, released, rest) == ("enqueued", "released", once[1:])
        assert of("released", job=job)[0]["seq"] > of("complete", job=before)[0]["seq"]
    assert histories("numbers") == [[(None, "enqueued"), (None, "executing"), (None, "complete")]]
    assert (project.dir / "build" / "number.txt").read_text() == "615\n"

    assert histories("remind") == [[(None, "scheduled"), (None, "revoked")], [(None, "scheduled"), *once]]
    due = of("scheduled", job="remind")[1]["data"]["due_at"]
    assert of("executing", job="remind")[0]["time"] >= due
    beats = project.runs("--schedule", "every-15-seconds")
    assert [run["scheduled_at"] for run in beats if run["trigger"] == "manual"] == [None]
    slots = [datetime.fromisoformat(run["scheduled_at"]) for run in beats if run["trigger"] == "schedule"]
    assert all(slot.second % 15 == 0 == slot.microsecond for slot in slots)
