"""What can be said in jobs.toml and can't be done yet is an error that says so, never silence."""

from __future__ import annotations

import pytest
from toml_file import Toml

from hueyctl import __version__
from hueyctl.config import load, starter
from hueyctl.config.starter import host_timezone
from hueyctl.errors import ConfigError

STORE = '[hueyctl]\nstore = "postgresql://ada:hunter2@localhost/jobs"\n'


def problems(toml: Toml, text: str, **environ: str) -> list[str]:
    toml.path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(toml.path, environ=environ)
    return [problem.removeprefix("jobs.toml: ") for problem in caught.value.problems]


def test_what_is_not_built_yet_is_named_together_with_all_else_that_is_wrong(toml: Toml) -> None:
    script, store = problems(toml, f"{STORE}[jobs.a]\nscript = 5\n")
    assert script == 'jobs.a.script: expected text, got 5; write "5"'
    assert store.startswith(f"hueyctl.store: PostgreSQL: not built yet in hueyctl {__version__}")
    assert "hunter2" not in store
    assert toml.read(STORE).store.startswith("postgresql://")


def test_a_postgres_store_from_the_environment_is_refused_without_its_password(toml: Toml) -> None:
    (problem,) = problems(toml, "", HUEYCTL_STORE="postgresql://ada:hunter2@localhost/jobs")
    assert "HUEYCTL_STORE" in problem
    assert "hunter2" not in problem


def test_the_starter_is_right_and_uses_nothing_that_is_not_built(toml: Toml) -> None:
    toml.path.write_text(starter("Europe/Berlin"))
    project = load(toml.path, environ={})
    assert project.timezone == "Europe/Berlin"
    assert [job.kind for job in project.jobs.values()] == ["command", "script", "script"]


@pytest.mark.parametrize(("variable", "expected"), [("Europe/Berlin", "Europe/Berlin"), (":Asia/Tokyo", "Asia/Tokyo")])
def test_the_hosts_time_zone_is_first_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, expected: str
) -> None:
    monkeypatch.setenv("TZ", variable)
    assert host_timezone() == expected


def test_a_time_zone_that_is_no_iana_name_is_passed_over(monkeypatch: pytest.MonkeyPatch, toml: Toml) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    assert toml.read(f"[hueyctl]\ntimezone = '{host_timezone()}'").timezone == host_timezone() != "CET-1CEST"
