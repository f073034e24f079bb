"""What an operator's monitoring sees, beside a worker that works."""

from __future__ import annotations

import contextlib
import signal
import urllib.request
from collections.abc import Iterator

import pytest
from harness import Project, eventually
from prometheus_client.parser import text_string_to_metric_families

JOBS = """
    [jobs.gate]
    script = 'until [ -e go ]; do sleep 0.05; done'
    [jobs.bad]
    script = "exit 3"
    retries = 1
    """


@contextlib.contextmanager
def exporter(project: Project) -> Iterator[str]:
    process = project.popen("metrics", "--listen", "0")
    assert process.stderr
    try:
        yield process.stderr.readline().decode().partition("metrics are at ")[2].strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


def value(url: str, name: str, **labels: str) -> float | None:
    with urllib.request.urlopen(url, timeout=20) as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return next((each.value for each in samples if each.name == f"hueyctl_{name}" and each.labels == labels), None)


@pytest.mark.parametrize("on", ["sqlite", "postgres"])
def test_alerts_have_what_they_need(projects: tuple[Project, Project], on: str, request: pytest.FixtureRequest) -> None:
    # On a server the exporter is on another machine than the worker.
    here, there = projects if on == "postgres" else (projects[0], projects[0])
    for project in (here, there):
        project.write(JOBS)
        if on == "postgres":
            project.env["HUEYCTL_STORE"] = request.getfixturevalue("postgres_database")
    here.enqueue("gate")
    with exporter(there) as url:
        assert value(url, "queue_served", queue="default") == 0
        with here.worker("-c", "1") as worker:
            here.online(worker)
            eventually(lambda: value(url, "runs", queue="default", job_name="gate", state="running") == 1)
            assert value(url, "queue_served", queue="default") == 1
            assert value(url, "workers", state="alive") == 1
            assert value(url, "worker_concurrency") == 1
            failed = here.enqueue("bad")
            eventually(lambda: (value(url, "next_run_waiting_seconds", queue="default", job_name="bad") or 0) > 0)
            (here.dir / "go").touch()
            here.reaches(failed, "failed")
            assert value(url, "events_total", type="failed", job_name="bad") == 1
            assert value(url, "events_total", type="retrying", job_name="bad") == 1
            assert value(url, "attempt_duration_seconds_count", job_name="bad") == 2
            assert value(url, "last_failed_timestamp_seconds", job_name="bad")
            assert value(url, "next_run_waiting_seconds", queue="default", job_name="bad") is None
            worker.signal(signal.SIGTERM)
            assert worker.ended() == 0
        assert value(url, "workers", state="alive") == 0
