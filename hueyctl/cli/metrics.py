"""`hueyctl metrics`: the only importer of prometheus_client."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hueyctl.app.changes import utc_now
from hueyctl.app.metrics import Counts, Metric, gauges, newest_event, up
from hueyctl.app.session import Session, open_store_session
from hueyctl.cli.answer import Answer
from hueyctl.cli.render import say
from hueyctl.cli.settings import settings
from hueyctl.errors import HueyctlError, Refused, StoreError, UsageError
from hueyctl.model.wording import quoted

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

LOOPBACK = "127.0.0.1"
ENDING = (signal.SIGTERM, signal.SIGINT)


def metrics(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT", help="Serve them over HTTP, until it is ended; without a host, here alone."
        ),
    ] = None,
) -> Iterable[Answer]:
    """Tell Prometheus what stands in the store; --listen serves it.

    Served, it counts what happens from then on, too.

    It needs the package prometheus-client: pip install 'hueyctl[metrics]'.
    """
    if listen is not None:
        host, port = _address(listen)
        return _serve(settings.store_session(), host, port)
    session = settings.store_session()
    found = [up(True), *gauges(session, now=utc_now())]
    if settings.as_json:
        return [Answer(documents=[{"metrics": [metric.public() for metric in found]}])]
    return [Answer(content=_text(found))]


def _serve(session: Session, host: str, port: int) -> Iterator[Answer]:
    client = _client()
    try:
        after = newest_event(session)
    except StoreError as exc:
        yield Answer(notes=[f"the store can't be read yet: {exc.message}"])
        after = 0
    registry = client.CollectorRegistry(auto_describe=False)
    registry.register(_Exporter(settings.file, Counts(after)))
    # Before there are threads, so that none of them is who hears it.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        server, _ = client.start_http_server(port, host, registry)
    except OSError as exc:
        raise Refused(f"--listen: {host}:{port} can't be listened on: {exc.strerror or exc}") from exc
    url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics"
    yield Answer(documents=[{"url": url}], notes=[f"metrics are at {url}"])
    if signal.sigwait(ENDING) == signal.SIGINT:
        raise KeyboardInterrupt


class _Exporter:
    """What is asked for all metrics, by one thread for each who asks. Each time it looks afresh, at the file too: so
    what has been changed, replaced or restarted meanwhile needs nothing."""

    def __init__(self, file: Path | None, counts: Counts) -> None:
        self._file, self._cwd = file, Path.cwd()
        self._counts = counts
        self._lock = threading.Lock()
        self._trouble = ""

    def describe(self) -> Sequence[Family]:
        return ()  # or it would be asked for all of them when it is registered

    def collect(self) -> Iterator[Family]:
        with self._lock:
            found = self._look()
        return map(_family, found)

    def _look(self) -> list[Metric]:
        try:
            session = open_store_session(self._file, cwd=self._cwd, environ=os.environ)
            try:
                found = [up(True), *gauges(session, now=utc_now())]
                self._counts.go_on(session.reader(), session.project)
            finally:
                session.close()
            trouble = ""
        except HueyctlError as exc:
            found, trouble = [up(False)], exc.message
        if trouble != self._trouble:
            say(trouble or "the store can be read again")
            self._trouble = trouble
        return [*found, *self._counts.metrics()]


def _text(metrics: Sequence[Metric]) -> bytes:
    client = _client()
    registry = client.CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(metrics))
    text: bytes = client.generate_latest(registry)
    return text


class _Fixed:
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Family]:
        return map(_family, self._metrics)


def _family(metric: Metric) -> Family:
    from prometheus_client import core

    family: Any
    match metric.kind:
        case "gauge":
            family = core.GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        case "counter":
            family = core.CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        case "histogram":
            family = core.HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for sample in metric.samples:
        labels = [sample.labels[name] for name in metric.labels]
        if metric.kind == "histogram":
            buckets = [("+Inf" if most == float("inf") else str(most), count) for most, count in sample.buckets]
            family.add_metric(labels, buckets, sum_value=sample.value)
        else:
            family.add_metric(labels, sample.value)
    found: Family = family
    return found


def _client() -> ModuleType:
    try:
        import prometheus_client
    except ImportError as exc:
        raise Refused(
            f"this needs the package prometheus-client, and it can't be loaded: {exc}",
            hint="pip install 'hueyctl[metrics]'; --json needs nothing",
        ) from exc
    return prometheus_client


def _address(text: str) -> tuple[str, int]:
    """`9815`, `0.0.0.0:9815` or `[::1]:9815` as host and port; raises UsageError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else LOOPBACK
    if not (host and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise UsageError(f"--listen: expected a port, or a host and a port like 0.0.0.0:9815, got {quoted(text)}")
    return host, int(port)
