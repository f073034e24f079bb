"""What `hueyctl init` writes: a file that is right, in the host's time zone."""

from __future__ import annotations

import pytest
from toml_file import Toml

from hueyctl.config import load, starter
from hueyctl.config.starter import host_timezone


def test_the_starter_is_right(toml: Toml) -> None:
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
