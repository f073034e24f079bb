"""`metrics`: what a Prometheus sees of a store."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
import urllib.request
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families
from shell import Shell

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(autouse=True)
def _jobs(shell: Shell) -> None:
    shell.write("""
        [jobs.fetch]
        command = ["true"]

        [jobs.flaky]
        script = "exit 1"
        queue = "slow"

        [pipelines.etl]
        steps = ["fetch", "flaky"]

        [schedules.nightly]
        job = "fetch"
        cron = "30 2 * * *"
        """)


def parsed(text: str) -> Series:
    """Every series of a document, as Prometheus' own reader reads it; none stands there twice."""
    found: Series = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def of(series: Series, name: str, /, **labels: str) -> float | None:
    return series.get((f"hueyctl_{name}", tuple(sorted(labels.items()))))


def printed(shell: Shell) -> Series:
    return parsed(shell.type("metrics").out)


class Exporter:
    def __init__(self, shell: Shell, *words: str) -> None:
        self.process = shell.spawn("metrics", "--listen", "0", *words)
        assert self.process.stderr
        self.url = ""
        while not self.url:
            line = self.process.stderr.readline().decode()
            assert line, "it ended"
            self.url = line.partition("metrics are at ")[2].strip()

    def text(self) -> str:
        with urllib.request.urlopen(self.url, timeout=20) as answer:
            return str(answer.read().decode())

    def series(self) -> Series:
        return parsed(self.text())

    def ends(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


def test_what_stands_where_is_told_by_queue_job_and_state(shell: Shell) -> None:
    began = datetime.now(UTC)
    for words in (("fetch",), ("fetch", "--priority", "5"), ("flaky",), ("flaky", "--delay", "1h")):
        shell.enqueue(*words)
    shell.claim("flaky")
    seen = printed(shell)
    assert of(seen, "up") == of(seen, "config_ok") == 1
    assert of(seen, "runs", queue="default", job="fetch", state="queued") == 2
    assert of(seen, "runs", queue="slow", job="flaky", state="scheduled") == 1
    assert of(seen, "runs", queue="slow", job="flaky", state="running") == 1
    waited = of(seen, "next_run_waiting_seconds", queue="default", job="fetch")
    assert waited is not None
    assert 0 <= waited <= (datetime.now(UTC) - began).total_seconds()
    assert of(seen, "next_run_waiting_seconds", queue="slow", job="flaky") is None, "none of them is due"
    assert of(seen, "queue_served", queue="default") == 0, "the worker is dead"
    assert [of(seen, "workers", state=state) for state in ("alive", "silent", "dead")] == [0, 0, 1]
    assert of(seen, "worker_concurrency") == 0
    size = of(seen, "store_bytes")
    assert size is not None
    assert size >= shell.place.path.stat().st_size


def test_when_jobs_last_ended_and_schedules_fire_are_times_since_the_epoch(shell: Shell) -> None:
    began = datetime.now(UTC).timestamp()
    for code in (0, 1):
        shell.enqueue("fetch")
        shell.finish("fetch", code=code)
    shell.type("pause", "--queue", "slow", "--note", "for a while")
    seen = printed(shell)
    last, failed = (of(seen, f"last_{state}_timestamp_seconds", job="fetch") for state in ("succeeded", "failed"))
    assert last is not None
    assert failed is not None
    assert began <= last <= failed <= datetime.now(UTC).timestamp()
    assert of(seen, "last_succeeded_timestamp_seconds", job="flaky") is None
    slot = of(seen, "schedule_next_timestamp_seconds", schedule="nightly")
    assert slot is not None
    assert datetime.fromtimestamp(slot, UTC).strftime("%H:%M:%S") == "02:30:00"
    assert of(seen, "paused", kind="queue", name="slow") == 1


def test_as_json_it_is_one_document(shell: Shell) -> None:
    shell.enqueue("fetch")
    found = shell.type("metrics", "--json").json
    assert list(found) == ["schema", "metrics"]
    runs = next(metric for metric in found["metrics"] if metric["name"] == "hueyctl_runs")
    assert runs["type"] == "gauge"
    assert runs["help"]
    assert runs["samples"] == [{"labels": {"queue": "default", "job": "fetch", "state": "queued"}, "value": 1}]


def test_an_exporter_counts_what_happens_from_its_start_on(shell: Shell) -> None:
    shell.enqueue("fetch")
    shell.finish("fetch", code=1)
    exporter = Exporter(shell)
    seen = exporter.series()
    assert of(seen, "events_total", type="failed", job="fetch") == 0, "it was before; and the series is there"
    assert of(seen, "events_total", type="failed", job="etl") == 0
    assert of(seen, "slots_unfired_total", schedule="nightly", outcome="missed") == 0
    for code in (0, 1, 1):
        shell.enqueue("fetch")
        shell.finish("fetch", code=code)
    for _ in range(2):  # nothing is counted twice
        seen = exporter.series()
        assert of(seen, "events_total", type="enqueued", job="fetch") == 3
        assert of(seen, "events_total", type="failed", job="fetch") == 2
        assert of(seen, "attempt_duration_seconds_count", job="fetch") == 3
        assert of(seen, "attempt_duration_seconds_bucket", job="fetch", le="+Inf") == 3
        assert of(seen, "attempt_duration_seconds_bucket", job="fetch", le="0.01") is not None
    assert exporter.ends(signal.SIGTERM) == 0


def test_many_who_ask_at_once_are_told_the_same_and_nothing_is_counted_twice(shell: Shell) -> None:
    shell.enqueue("fetch")
    exporter = Exporter(shell)
    for _ in range(20):
        shell.enqueue("fetch")
    found: list[float | None] = []

    def ask() -> None:
        found.append(of(exporter.series(), "events_total", type="enqueued", job="fetch"))

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert found == [20] * 8


def test_an_exporter_outlives_its_store_and_a_wrong_file_and_says_so(shell: Shell) -> None:
    exporter = Exporter(shell)
    assert of(exporter.series(), "up") == 0, "there is none yet"
    for _ in range(2):
        shell.enqueue("fetch")
    seen = exporter.series()
    assert (of(seen, "up"), of(seen, "config_ok")) == (1, 1)
    assert of(seen, "events_total", type="enqueued", job="fetch") == 2, "what came first was behind its start"
    text = (shell.dir / "jobs.toml").read_text()
    shell.write("[jobs")
    seen = exporter.series()
    assert (of(seen, "up"), of(seen, "config_ok")) == (1, 0)
    shell.write(text + '[jobs.new]\ncommand = ["true"]\n')
    assert of(exporter.series(), "events_total", type="failed", job="new") == 0, "no restart is needed"
    shell.place.path.rename(shell.dir / "away")
    for suffix in ("-wal", "-shm"):
        shell.place.path.with_name(f"queue.db{suffix}").unlink(missing_ok=True)
    seen = exporter.series()
    assert of(seen, "up") == 0
    assert of(seen, "runs", queue="default", job="fetch", state="queued") is None, (
        "nothing is known, so nothing is said"
    )
    shell.enqueue("flaky")
    seen = exporter.series()
    assert of(seen, "up") == 1
    assert of(seen, "events_total", type="enqueued", job="flaky") == 1, "another store, with a history of its own"
    assert exporter.ends(signal.SIGINT) == 130
    assert exporter.process.stderr
    said = [line.partition("hueyctl: ")[2] for line in exporter.process.stderr.read().decode().splitlines()]
    assert [line for line in said if "again" in line] == ["the store can be read again"] * 2
    assert len([line for line in said if "no store yet" in line]) == 2, "once each time"


def test_it_listens_here_alone_unless_told_otherwise(shell: Shell) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", Exporter(shell).url)
    process = shell.spawn("metrics", "--listen", "0.0.0.0:0", "--json")
    assert process.stdout
    assert json.loads(process.stdout.readline())["url"].startswith("http://0.0.0.0:")


@pytest.mark.parametrize("where", ["", "x", ":9815", "9815:", "70000", "-1", "127.0.0.1:", "localhost:http", "٣"])
def test_what_is_no_address_is_refused(shell: Shell, where: str) -> None:
    said = shell.type("metrics", "--listen", where, code=2)
    assert "--listen: expected a port, or a host and a port" in said.err


def test_where_it_cannot_listen_it_says_why(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = run(shell, "--listen", str(taken.getsockname()[1]))
    assert (said.returncode, b"can't be listened on" in said.stderr, said.stdout) == (1, True, b"")
    said = run(shell, "--listen", "no-such-host.invalid:1")
    assert (said.returncode, b"no-such-host.invalid:1 can't be listened on" in said.stderr) == (1, True)


def test_without_its_package_it_names_the_extra(shell: Shell) -> None:
    shell.enqueue("fetch")
    (shell.dir / "prometheus_client.py").write_text("raise ImportError('it is not there')\n")
    environ = shell.env()
    environ["PYTHONPATH"] += f":{shell.dir}"
    for words in ((), ("--listen", "0")):
        said = run(shell, *words, env=environ)
        assert (said.returncode, said.stdout) == (1, b"")
        assert b"pip install 'hueyctl[metrics]'" in said.stderr
    assert run(shell, "--json", env=environ).returncode == 0


def test_without_a_store_there_is_nothing_to_print(shell: Shell) -> None:
    assert "there is no store yet" in shell.type("metrics", code=4).err


def run(shell: Shell, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    process = shell.spawn("metrics", *words, env=env or shell.env())
    out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
