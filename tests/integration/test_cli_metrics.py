"""`metrics`: what a Prometheus sees of a store."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from shell import Shell

from hueyctl.storage.store import Firing, ScheduleDefinition

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
    assert of(seen, "runs", queue="default", job_name="fetch", state="queued") == 2
    assert of(seen, "runs", queue="slow", job_name="flaky", state="scheduled") == 1
    assert of(seen, "runs", queue="slow", job_name="flaky", state="running") == 1
    waited = of(seen, "next_run_waiting_seconds", queue="default", job_name="fetch")
    assert waited is not None
    assert 0 <= waited <= (datetime.now(UTC) - began).total_seconds()
    assert of(seen, "next_run_waiting_seconds", queue="slow", job_name="flaky") is None, "none of them is due"
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
    last, failed = (of(seen, f"last_{state}_timestamp_seconds", job_name="fetch") for state in ("succeeded", "failed"))
    assert last is not None
    assert failed is not None
    assert began <= last <= failed <= datetime.now(UTC).timestamp()
    assert of(seen, "last_succeeded_timestamp_seconds", job_name="flaky") == 0, "an alert on its age fires"
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
    assert runs["samples"] == [{"labels": {"queue": "default", "job_name": "fetch", "state": "queued"}, "value": 1}]


def test_an_exporter_counts_what_happens_from_its_start_on(shell: Shell) -> None:
    shell.enqueue("fetch")
    shell.finish("fetch", code=1)
    exporter = Exporter(shell)
    seen = exporter.series()
    assert of(seen, "events_total", type="failed", job_name="fetch") == 0, "it was before; and the series is there"
    assert of(seen, "events_total", type="failed", job_name="etl") == 0
    assert of(seen, "slots_unfired_total", schedule="nightly", outcome="missed") == 0
    for code in (0, 1, 1):
        shell.enqueue("fetch")
        shell.finish("fetch", code=code)
    for _ in range(2):  # nothing is counted twice
        seen = exporter.series()
        assert of(seen, "events_total", type="enqueued", job_name="fetch") == 3
        assert of(seen, "events_total", type="failed", job_name="fetch") == 2
        assert of(seen, "attempt_duration_seconds_count", job_name="fetch") == 3
        assert of(seen, "attempt_duration_seconds_bucket", job_name="fetch", le="+Inf") == 3
        assert of(seen, "attempt_duration_seconds_bucket", job_name="fetch", le="0.01") is not None
    assert exporter.ends(signal.SIGTERM) == 0


def test_many_who_ask_at_once_are_told_the_same_and_nothing_is_counted_twice(shell: Shell) -> None:
    shell.enqueue("fetch")
    exporter = Exporter(shell)
    for _ in range(20):
        shell.enqueue("fetch")
    found: list[float | None] = []

    def ask() -> None:
        found.append(of(exporter.series(), "events_total", type="enqueued", job_name="fetch"))

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
    assert of(seen, "events_total", type="enqueued", job_name="fetch") == 2, "what came first was behind its start"
    text = (shell.dir / "jobs.toml").read_text()
    shell.write("[jobs")
    seen = exporter.series()
    assert (of(seen, "up"), of(seen, "config_ok")) == (1, 0)
    shell.write(text + '[jobs.new]\ncommand = ["true"]\n')
    assert of(exporter.series(), "events_total", type="failed", job_name="new") == 0, "no restart is needed"
    shell.place.path.rename(shell.dir / "away")
    for suffix in ("-wal", "-shm"):
        shell.place.path.with_name(f"queue.db{suffix}").unlink(missing_ok=True)
    seen = exporter.series()
    assert of(seen, "up") == 0
    assert of(seen, "runs", queue="default", job_name="fetch", state="queued") is None, (
        "nothing is known, so nothing is said"
    )
    shell.enqueue("flaky")
    seen = exporter.series()
    assert of(seen, "up") == 1
    assert of(seen, "events_total", type="enqueued", job_name="flaky") is None, "what another store has had isn't news"
    shell.enqueue("flaky")
    assert of(exporter.series(), "events_total", type="enqueued", job_name="flaky") == 1
    assert exporter.ends(signal.SIGINT) == 130
    assert exporter.process.stderr
    said = [line.partition("hueyctl: ")[2] for line in exporter.process.stderr.read().decode().splitlines()]
    assert [line for line in said if "can be read" in line] == ["the store can be read, and jobs.toml is right"] * 3
    assert len([line for line in said if "no store yet" in line]) == 1, "the first was said at the start"
    assert len([line for line in said if line.startswith("jobs.toml: ")]) == 1, "nor is that told each time"


def test_a_wrong_file_takes_no_series_away_and_leads_to_no_other_store(shell: Shell) -> None:
    text = '[hueyctl]\nstore = "elsewhere.db"\n' + (shell.dir / "jobs.toml").read_text()
    shell.enqueue("flaky")  # in the store at the usual place
    shell.type("pause")
    shell.write(text)
    shell.enqueue("fetch")
    exporter = Exporter(shell)
    assert of(exporter.series(), "config_ok") == 1
    before = exporter.series()
    shell.write("")
    shell.write("[jobs")
    seen = exporter.series()
    assert of(seen, "config_ok") == 0
    assert seen.keys() == before.keys()
    assert of(seen, "last_succeeded_timestamp_seconds", job_name="fetch") == 0
    assert of(seen, "events_total", type="enqueued", job_name="flaky") is None


def test_an_exporter_that_starts_before_its_store_can_be_read_counts_no_history(shell: Shell) -> None:
    for _ in range(3):
        shell.enqueue("fetch")
    content = shell.place.path.read_bytes()
    shell.place.path.write_bytes(b"no database, but a text that is long enough to be looked at" * 100)
    exporter = Exporter(shell)
    assert of(exporter.series(), "up") == 0
    shell.place.path.write_bytes(content)
    seen = exporter.series()
    assert of(seen, "up") == 1
    assert of(seen, "events_total", type="enqueued", job_name="fetch") is None
    shell.enqueue("fetch")
    assert of(exporter.series(), "events_total", type="enqueued", job_name="fetch") == 1


def test_what_was_pruned_is_remembered_as_the_last(shell: Shell) -> None:
    shell.enqueue("fetch")
    shell.finish("fetch")
    exporter = Exporter(shell)
    last = of(exporter.series(), "last_succeeded_timestamp_seconds", job_name="fetch")
    assert last
    shell.type("prune", "--succeeded", "0s")
    assert shell.type("runs", "--json").json["runs"] == []
    assert of(exporter.series(), "last_succeeded_timestamp_seconds", job_name="fetch") == last


def test_a_reload_is_not_its_end_without_a_terminal(shell: Shell) -> None:
    shell.enqueue("fetch")
    exporter = Exporter(shell)
    exporter.process.send_signal(signal.SIGHUP)
    assert of(exporter.series(), "up") == 1
    assert exporter.ends(signal.SIGTERM) == 0


def test_who_connects_and_says_nothing_keeps_nobody_from_asking(shell: Shell) -> None:
    shell.enqueue("fetch")
    exporter = Exporter(shell)
    port = int(exporter.url.rpartition(":")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as silent:
        assert of(exporter.series(), "up") == 1
        silent.settimeout(30)
        assert silent.recv(1) == b"", "it is let go after five seconds"


def test_paused_runs_do_not_wait_and_what_runs_long_is_seen(shell: Shell) -> None:
    shell.enqueue("fetch")
    shell.enqueue("flaky")
    shell.claim("flaky")
    shell.type("pause", "--job", "fetch")
    seen = printed(shell)
    assert of(seen, "next_run_waiting_seconds", queue="default", job_name="fetch") is None
    ran = of(seen, "longest_running_seconds", queue="slow", job_name="flaky")
    assert ran is not None
    assert 0 <= ran < 60


def test_a_missed_slot_is_told_with_when_that_was_found_out(shell: Shell) -> None:
    began = datetime.now(UTC)
    seen_before = began - timedelta(hours=2)
    with shell.store() as store:
        definitions = {"nightly": ScheduleDefinition("rule", "whole")}
        store.define_schedules(definitions, file="jobs.toml", now=began - timedelta(days=1))
        firing = Firing(schedule="nightly", definition="whole", slot=seen_before, run=None, job="fetch")
        store.fire([firing], now=datetime.now(UTC))
    seen = printed(shell)
    missed = of(seen, "schedule_last_missed_timestamp_seconds", schedule="nightly")
    assert missed is not None
    assert missed >= began.timestamp()
    assert of(seen, "schedule_last_fired_timestamp_seconds", schedule="nightly") == 0


def test_it_listens_here_alone_unless_told_otherwise(shell: Shell) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", Exporter(shell).url)
    process = shell.spawn("metrics", "--listen", "0.0.0.0:0", "--json")
    assert process.stdout
    assert json.loads(process.stdout.readline())["url"].startswith("http://0.0.0.0:")


NO_ADDRESSES = [
    *(
        "",
        "x",
        ":9815",
        "9815:",
        "70000",
        "-1",
        "127.0.0.1:",
        "localhost:http",
        "٣",
        "::1",
        "[::1",
        "http://x:1",
        "1:2:3",
    ),
    "h:" + "1" * 5000,
]


@pytest.mark.parametrize("where", NO_ADDRESSES)
def test_what_is_no_address_is_refused(shell: Shell, where: str) -> None:
    said = shell.type("metrics", "--listen", where, code=2)
    assert "--listen: expected a port, or a host and a port" in said.err


def test_where_it_cannot_listen_it_says_why(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = run(shell, "--listen", str(taken.getsockname()[1]))
    assert (said.returncode, b"can't be listened on" in said.stderr, said.stdout) == (1, True, b"")
    for host in ("no-such-host.invalid", "a..b", "h" * 64):
        said = run(shell, "--listen", f"{host}:1")
        assert (said.returncode, f"{host}:1 can't be listened on".encode() in said.stderr) == (1, True)


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


def test_what_cannot_be_read_is_printed_as_such_for_whoever_collects_files(shell: Shell) -> None:
    said = shell.type("metrics", code=4)
    assert "there is no store yet" in said.err
    assert parsed(said.out) == {("hueyctl_up", ()): 0}
    shell.write("[jobs")
    assert parsed(shell.type("metrics", code=2).out) == {("hueyctl_up", ()): 0}
    assert shell.type("metrics", "--json", code=2).out == ""


def run(shell: Shell, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    process = shell.spawn("metrics", *words, env=env or shell.env())
    out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
