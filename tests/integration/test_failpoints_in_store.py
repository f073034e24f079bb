"""What the store makes of a disk that fails at a bad moment; failpoints are chosen once for a process, so the scene is
played in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# `a` has failed once and is queued again, `b` runs: settling `b` and claiming `a` takes two transactions, since the
# claim of a second attempt must be durable. Prints what the exchange raised, and the states that it left.
SCENE = """
import sys
from pathlib import Path
from hueyctl.errors import StoreError
from hueyctl.model.outcome import Exited
from hueyctl.model.transition import Done
from hueyctl.storage.sqlite import open_store
from scene import Scene

scene = Scene(lambda: open_store(Path(sys.argv[1]), create=True))
scene.register("w1")
scene.accept("a"), scene.accept("b")
a, b = scene.claim(2)
scene.fail_for_now(a)
try:
    scene.store.exchange([scene.settlement(b, Done(), Exited(0))], scene.want(1), now=scene.now)
except StoreError as exc:
    print(type(exc).__name__)
scene.check_history()
print(scene.get(a).state, scene.get(b).state)
"""


def play(tmp_path: Path, failpoints: str) -> list[str]:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "contract")))
    env = {**os.environ, "PYTHONPATH": paths, "HUEYCTL_FAILPOINTS": failpoints}
    command = [sys.executable, "-c", SCENE, str(tmp_path / "queue.db")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_without_a_failure_the_one_is_settled_and_the_other_claimed(tmp_path: Path) -> None:
    assert play(tmp_path, "") == ["running", "succeeded"]


@pytest.mark.parametrize(
    ("failpoints", "left"),
    [
        ("settle.before=error@2", ["queued", "running"]),
        ("settle.after=error@2", ["queued", "succeeded"]),
        ("claim.before=error@2", ["queued", "succeeded"]),
        ("claim.after=error@2", ["running", "succeeded"]),
    ],
)
def test_a_disk_that_fails_is_never_kept_quiet(tmp_path: Path, failpoints: str, left: list[str]) -> None:
    """The worker that claims has to end then, or what it claimed without knowing would run for ever."""
    assert play(tmp_path, failpoints) == ["StoreError", *left]
