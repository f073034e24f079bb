"""`inspect RUN` says which lock or limit keeps a run waiting."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from shell import Shell

from hueyctl.model.definition import RateLimit
from hueyctl.storage.locks import hold
from hueyctl.storage.store import JobPolicy, Want

JOBS = """
    [queues.narrow]
    concurrency = 1

    [jobs.sync]
    script = "true"
    params = { tenant = "acme" }
    lock = "crm-{tenant}"

    [jobs.few]
    script = "true"
    max_concurrent = 1

    [jobs.rare]
    script = "true"
    rate_limit = "1/1h"

    [jobs.narrow]
    script = "true"
    queue = "narrow"

    [jobs.login]
    script = "true"
    params = { token = { type = "string", secret = true, required = true } }
    lock = "{token}"
    """


def why(shell: Shell, run: str) -> list[str]:
    return list(shell.type("inspect", run, "--json").json["why"])


def test_the_lock_and_each_limit_that_is_full_is_named(shell: Shell) -> None:
    shell.write(JOBS)
    jobs = {job: JobPolicy() for job in ("sync", "few", "rare", "narrow", "login")}
    jobs["rare"] = JobPolicy(rate_limit=RateLimit(count=1, per=timedelta(hours=1)))
    shell.register(jobs=tuple(jobs))
    lock = hold(shell.place.worker_lock("w1"))
    assert lock
    first = {job: enqueue(shell, job) for job in jobs}
    with shell.store() as store:
        claims = store.exchange([], Want(worker="w1", limit=9, jobs=jobs), now=datetime.now(UTC)).claims
    assert {claim.run.id for claim in claims} == set(first.values())
    second = {job: enqueue(shell, job) for job in jobs}
    (line,) = why(shell, second["sync"])
    assert re.fullmatch(rf"waiting for lock crm-acme, held by run {first['sync'][:8]} for [0-9.]+m?s", line)
    assert why(shell, second["few"]) == ["max_concurrent 1 of job few reached"]
    assert why(shell, second["narrow"]) == ['concurrency 1 of the queue "narrow" reached']
    (line,) = why(shell, second["rare"])
    assert re.fullmatch(r"rate limit 1/1h: next in 59m.*", line)
    assert "waiting for lock ***, held by run" in shell.type("inspect", second["login"]).out
    assert "hunter22" not in shell.type("events", "--run", second["login"], "--json").out

    glance = shell.type("inspect", "--json").json
    assert {run["id"] for run in glance["next_up"]} == set(second.values())
    for run in second.values():
        seen, whole = glance["in_the_way"][run], why(shell, run)
        assert [line.rsplit(" ", 1)[0] for line in seen] == [line.rsplit(" ", 1)[0] for line in whole], "but the time"
    table = shell.type("inspect").out
    for words in ("max_concurrent 1 of job few reached", "waiting for lock ***, held by run", "rate limit 1/1h"):
        assert words in table

    for claim in claims:
        shell.settle(claim)
    assert why(shell, second["sync"]) == ["it is about to start"]
    assert second["sync"] not in shell.type("inspect", "--json").json["in_the_way"]
    assert not any("reached" in line for job in ("few", "narrow") for line in why(shell, second[job]))
    lock.release()


def test_inspect_shows_the_lock_and_the_limits_of_a_job(shell: Shell) -> None:
    shell.write(JOBS.replace('rate_limit = "1/1h"', 'rate_limit = "90/90s"\nunique = "params"'))
    assert re.search("lock: +crm-{tenant}\n", shell.type("inspect", "sync").out)
    assert re.search("at once: +1 of it\n", shell.type("inspect", "few").out)
    rare = shell.type("inspect", "rare").out
    assert re.search("rate limit: +90/1m30s\nunique: +one live run with the same params\n", rare)
    jobs = {job["name"]: job for job in shell.type("jobs", "--json").json["jobs"]}
    assert (jobs["sync"]["lock"], jobs["few"]["max_concurrent"]) == ("crm-{tenant}", 1)
    assert (jobs["rare"]["rate_limit"], jobs["rare"]["unique"]) == ({"count": 90, "per": 90.0}, "params")
    assert jobs["narrow"]["lock"] is jobs["narrow"]["rate_limit"] is jobs["narrow"]["unique"] is None


def enqueue(shell: Shell, job: str) -> str:
    return shell.enqueue(job, *(["token=hunter22"] if job == "login" else []))
