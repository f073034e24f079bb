"""Failpoints: what a text asks for, when each fires, and that every one that is listed is there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hueyctl.errors import StoreError, UsageError
from hueyctl.failpoints import POINTS, Armed, Rule, parse, without

SOURCE = Path(__file__).resolve().parents[2] / "hueyctl"


def fires(spec: str, times: int) -> list[int]:
    """At which of so many times `accept.before` raises."""
    armed = Armed(parse(spec))
    fired = []
    for time in range(1, times + 1):
        try:
            armed("accept.before")
        except StoreError:
            fired.append(time)
    return fired


def test_a_spec_names_points_actions_and_times() -> None:
    assert parse("claim.after=kill@3; settle.before=stall:2@1;accept.before=error;renew.after=stall:0.5%0.1:42") == (
        Rule("claim.after", "kill", hit=3),
        Rule("settle.before", "stall", stall_s=2.0, hit=1),
        Rule("accept.before", "error"),
        Rule("renew.after", "stall", stall_s=0.5, probability=0.1, seed=42),
    )


@pytest.mark.parametrize(
    "spec",
    """claim.after claim.after=explode claim.after=stall claim.after=stall:-1 claim.after=kill:2 claim.after=kill@0
    claim.after=kill@x claim.after=kill%2 claim.after=kill@1%0.5 claim.after=stall:nan claim.after=kill%0.5:x
    nowhere.before=kill""".split(),
)
def test_a_wrong_spec_is_refused_by_name(spec: str) -> None:
    with pytest.raises(UsageError, match=re.escape(spec.partition("=")[0])):
        parse(spec)


def test_a_point_fires_each_time_or_at_the_time_given_alone() -> None:
    assert fires("accept.before=error", 3) == [1, 2, 3]
    assert fires("accept.before=error@2", 4) == [2]
    assert fires("claim.before=error", 3) == []


def test_a_probability_fires_the_same_times_for_the_same_seed() -> None:
    fired = fires("accept.before=error%0.3:7", 1000)
    assert fired == fires("accept.before=error%0.3:7", 1000)
    assert fired != fires("accept.before=error%0.3:8", 1000)
    assert 200 < len(fired) < 400


def test_a_point_that_was_not_reached_is_not_counted() -> None:
    armed = Armed(parse("claim.after=error@1"))
    armed("claim.after", [])
    with pytest.raises(StoreError, match=r"the disk failed .*claim\.after"):
        armed("claim.after", ["a claim"])


def test_an_error_of_the_guard_is_the_systems_own() -> None:
    with pytest.raises(OSError, match=r"Input/output error.*start\.before"):
        Armed(parse("start.before=error"))("start.before")


def test_every_point_that_is_listed_is_in_the_source_and_no_other_is() -> None:
    sources = (path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    found = {name for source in sources for name in re.findall(r'\bfailpoint\("([^"]+)"', source)}
    assert found == set(POINTS)


def test_jobs_do_not_inherit_it() -> None:
    assert without({"HUEYCTL_FAILPOINTS": "claim.after=kill", "HOME": "/"}) == {"HOME": "/"}


def python(code: str, spec: str | None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(SOURCE.parent)} | ({"HUEYCTL_FAILPOINTS": spec} if spec else {})
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_without_the_variable_a_point_does_nothing_at_all() -> None:
    code = "from hueyctl import failpoints; assert failpoints.failpoint is failpoints._nothing"
    assert python(code, None).returncode == 0


def test_what_fires_says_so_before_it_kills() -> None:
    done = python(
        "from hueyctl.failpoints import failpoint as f; f('claim.after'); f('claim.after')", "claim.after=kill@2"
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stderr.startswith("failpoint claim.after: kill in MainThread of ")
    assert done.stderr.count("\n") == 1


def test_a_command_refuses_a_wrong_spec_with_exit_code_2(tmp_path: Path) -> None:
    code = "import sys; sys.argv[1:] = ['runs']; from hueyctl.cli.main import main; main()"
    done = python(f"import os; os.chdir({str(tmp_path)!r}); {code}", "nowhere=kill")
    assert done.returncode == 2
    assert 'HUEYCTL_FAILPOINTS: there is no failpoint "nowhere"' in done.stderr
