"""The short form of `make torture`: every failpoint is come to, and at a handful of them nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from history import check
from storm import HARMLESS, Plan, play

from hueyctl.failpoints import POINTS


@pytest.mark.timeout(240)  # a busy machine makes a storm slow
def test_every_failpoint_is_come_to_by_a_round(tmp_path: Path) -> None:
    """Also: where nothing dies or fails, and a worker is killed once, every promise is kept."""
    played = play(Plan(dict.fromkeys(POINTS, HARMLESS), seed=1, seconds=1.5), tmp_path)
    assert [point for point in POINTS if not played.fired[point]] == []
    assert check(played.history) == []
    assert played.left == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "points",
    [
        {"accept.after": "kill@1", "claim.after": "kill@4", "exit.before": "kill@9", "rescue.after": "kill@1"},
        {
            "accept.before": "error@1",
            "settle.before": "error@3",
            "start.after": "error@4",
            "renew.after": "stall:0.5@1",
        },
    ],
    ids=["kills", "faults"],
)
def test_promises_are_kept_when_steps_go_wrong(tmp_path: Path, points: dict[str, str]) -> None:
    played = play(Plan(points, seed=1, seconds=1.5), tmp_path)
    assert check(played.history) == []
    assert played.left == []
    assert len(played.history.accepted) > 5
    assert played.fired
