"""`stats`: how runs ended, by job."""

from __future__ import annotations

import re

import pytest
from shell import Shell


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write("""
        [jobs.fetch]
        command = ["true"]

        [jobs.flaky]
        script = "exit 1"

        [pipelines.etl]
        steps = ["fetch", "flaky"]
        """)


def some_ends(shell: Shell) -> None:
    for code in (0, 0, 1):
        shell.enqueue("fetch")
        shell.finish("fetch", code=code)
    shell.enqueue("flaky")
    shell.type("revoke", "last")


def test_the_document_says_of_each_job_how_its_runs_ended_and_of_all(shell: Shell) -> None:
    some_ends(shell)
    found = shell.type("stats", "--json").json
    assert list(found) == ["schema", "stats", "total", "since", "until"]
    fetch, flaky = found["stats"]
    assert list(fetch) == "job succeeded failed other failure_rate retried lost per_hour waited took".split()
    assert [fetch[key] for key in ("job", "succeeded", "failed", "other", "retried", "lost")] == [
        "fetch",
        2,
        1,
        0,
        0,
        0,
    ]
    assert fetch["failure_rate"] == pytest.approx(1 / 3)
    assert fetch["per_hour"] == 3 / 24
    for spread in (fetch["waited"], fetch["took"]):
        assert list(spread) == ["p50", "p95", "max"]
        assert 0 <= spread["p50"] <= spread["p95"] == spread["max"] < 60
    assert [flaky[key] for key in ("job", "other", "failure_rate", "waited", "took")] == ["flaky", 1, None, None, None]
    total = found["total"]
    assert [total[key] for key in ("job", "succeeded", "failed", "other", "per_hour")] == [None, 2, 1, 1, 4 / 24]


def test_the_text_has_a_line_for_each_job_and_one_for_all(shell: Shell) -> None:
    some_ends(shell)
    ends, times = shell.type("stats").out.split("\n\n")
    title, *lines = ends.splitlines()
    assert title.startswith("ended from ")
    assert [line.split() for line in lines] == [
        "JOB SUCCEEDED FAILED OTHER FAILING RETRIED LOST RATE".split(),
        "fetch 2 1 0 33.3% 0 0 3/d".split(),
        "flaky 0 0 1 0 0 1/d".split(),
        "total 2 1 1 33.3% 0 0 4/d".split(),
    ]
    columns = "WAITED P50, WAITED P95, WAITED MAX, TOOK P50, TOOK P95, TOOK MAX".split(", ")
    assert re.split("  +", times.splitlines()[1]) == ["JOB", *columns]
    assert [line.split()[0] for line in times.splitlines()[2:]] == ["fetch", "flaky", "total"]


def test_one_job_has_a_line_even_if_nothing_of_it_ended(shell: Shell) -> None:
    some_ends(shell)
    (fetch,) = shell.type("stats", "fetch", "--json").json["stats"]
    assert (fetch["job"], fetch["succeeded"]) == ("fetch", 2)
    assert "total" not in shell.type("stats", "fetch").out
    since = ("--since", "2001-01-01", "--until", "2001-01-02")
    said = shell.type("stats", "fetch", *since)
    assert said.out.splitlines()[2].split() == ["fetch", "0", "0", "0", "0", "0", "0/d"]
    assert said.err == "hueyctl: no run ended from 2001-01-01T00:00:00Z to 2001-01-02T00:00:00Z\n"
    nothing = shell.type("stats", *since)
    assert (nothing.out, nothing.err) == ("", said.err)


def test_until_alone_means_the_day_before_it(shell: Shell) -> None:
    shell.enqueue("fetch")
    found = shell.type("stats", "--until", "2026-03-01", "--json").json
    assert (found["since"], found["until"]) == ("2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z")


def test_a_pipeline_is_counted_by_its_name_and_its_steps_by_their_jobs(shell: Shell) -> None:
    shell.enqueue("etl")
    shell.finish("fetch")
    shell.finish("flaky", code=1)
    assert [each["job"] for each in shell.type("stats", "--json").json["stats"]] == ["fetch", "flaky"]
    (etl,) = shell.type("stats", "etl", "--json").json["stats"]
    assert (etl["job"], etl["failed"], etl["took"] is None) == ("etl", 1, False)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["fetsh"], 3, 'there is no job "fetsh"; did you mean "fetch"?'),
        (["--since", "whenever"], 2, "--since: expected a time"),
        (["--until", "whenever"], 2, "--until: expected a time"),
        (["--since", "1h", "--until", "2h"], 2, "is not before --until"),
        (["--since", "now"], 2, "is not before --until"),
    ],
)
def test_what_is_wrong_is_said(shell: Shell, words: list[str], code: int, said: str) -> None:
    shell.enqueue("fetch")
    assert said in shell.type("stats", *words, code=code).err
    assert said in shell.type("stats", *words, "--json", code=code).error["message"]


def test_without_a_store_there_are_none_and_none_is_made(shell: Shell) -> None:
    assert shell.type("stats", "--json", code=4).error["code"] == "store-missing"
    assert not shell.place.dir.exists()
