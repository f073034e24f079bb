"""`hueyctl metrics`: the only importer of prometheus_client."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from types import ModuleType
from typing import TYPE_CHECKING, Annotated
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer

from hueyctl.app.clock import utc_now
from hueyctl.app.metrics import Counts, Latest, Metric, gauges, up
from hueyctl.app.session import Session, open_store_session
from hueyctl.cli.answer import Answer
from hueyctl.cli.render import say
from hueyctl.cli.settings import here, settings
from hueyctl.errors import ConfigError, HueyctlError, Refused, StoreError, UsageError
from hueyctl.model.definition import Project
from hueyctl.model.wording import quoted

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

LOOPBACK = "127.0.0.1"
ENDING = (signal.SIGTERM, signal.SIGINT)


def metrics(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Serve them at http://HOST:PORT/metrics until it is ended; without HOST, on this machine only.",
        ),
    ] = None,
) -> Iterable[Answer]:
    """Print metrics for Prometheus; --listen serves them.

    Printed, they are the state of the store; served, they also count what happens from then on:
    hueyctl metrics --listen 9815

    Both need the package prometheus-client (pip install 'hueyctl[metrics]'); --json needs nothing.
    """
    if listen is not None:
        host, port = _address(listen)
        return _serve(settings.store_session(), host, port)
    return [_printed()]


def _printed() -> Answer:
    if settings.as_json:
        found = gauges(settings.store_session(), Latest(), now=utc_now())
        return Answer(documents=[{"metrics": [metric.public() for metric in found]}])
    _client()
    try:
        return Answer(content=_text([*gauges(settings.store_session(), Latest(), now=utc_now())]))
    except (StoreError, ConfigError) as exc:
        # A file of them that is left as it was would go on to say that all is well.
        return Answer(content=_text([up(False)]), errors=[exc])


def _serve(session: Session, host: str, port: int) -> Iterator[Answer]:
    client = _client()
    exporter = _Exporter(settings.file)
    try:
        exporter.counts.begin(session)
    except StoreError as exc:
        exporter.trouble = exc.message
        yield Answer(notes=[f"the store can't be read yet: {exc.message}"])
    settings.close()  # an open one would be in the way of who puts another in its place
    registry = client.CollectorRegistry(auto_describe=False)
    registry.register(exporter)
    if not any(map(os.isatty, range(3))):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # "look again": it does so each time
    # Before there are threads, so that none of them is who hears it.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        kind = _Server6 if ":" in host else _Server
        server = make_server(host, port, client.make_wsgi_app(registry), kind, _Handler)
    except (OSError, UnicodeError) as exc:
        said = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise Refused(f"--listen: {host}:{port} can't be listened on: {said}") from exc
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics"
    yield Answer(documents=[{"url": url}], notes=[f"metrics are at {url}"])
    if signal.sigwait(ENDING) == signal.SIGINT:
        raise KeyboardInterrupt


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each who asks, and none that is waited for at the end."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Who hangs up, or says nothing, is nobody's concern."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 5  # seconds for who has connected to ask, and to take the answer

    def log_message(self, format: str, *args: object) -> None:
        """Each question isn't news."""


class _Exporter:
    """What is asked for all metrics, by one thread for each who asks. Each time it looks afresh, at the file too: so
    what has been changed, replaced or restarted meanwhile needs nothing."""

    def __init__(self, file: Path | None) -> None:
        self.counts = Counts()
        self.trouble = ""  # that was said last
        self._file, self._cwd = file, here()
        self._latest = Latest()
        self._project: Project | None = None  # the last that was right
        self._lock = threading.Lock()
        self._looked_at = -math.inf
        self._found: list[Metric] = []

    def describe(self) -> Sequence[Family]:
        return ()  # or it would be asked for all of them when it is registered

    def collect(self) -> Iterator[Family]:
        asked_at = time.monotonic()
        with self._lock:
            # Who has waited is content with a look that began meanwhile: where each takes long, they don't pile up.
            if self._looked_at < asked_at:
                self._looked_at = time.monotonic()
                self._found = self._look()
            found = self._found
        return map(_family, found)

    def _look(self) -> list[Metric]:
        trouble = ""
        try:
            session = self._session()
            try:
                found = [*gauges(session, self._latest, now=utc_now())]
                self.counts.go_on(session)
            finally:
                session.close()
            if session.file_error is not None:
                trouble = session.file_error.problems[0]
        except Exception as exc:  # whatever it is: the next look may find it mended, and this one is to tell
            found = [up(False)]
            trouble = exc.message if isinstance(exc, HueyctlError) else f"{type(exc).__name__}: {exc}"
        if trouble != self.trouble:
            say(trouble or "the store can be read, and jobs.toml is right")
            self.trouble = trouble
        return [*found, *self.counts.metrics()]

    def _session(self) -> Session:
        session = open_store_session(self._file, cwd=self._cwd, environ=os.environ)
        if session.file_error is None:
            self._project = session.project
        elif self._project is not None:
            # As workers go on with what they have read; where its store is can't be told by a wrong file.
            session.close()
            return Session(self._project, by=session.by, file_error=session.file_error)
        return session


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

    rows = [([sample.labels[name] for name in metric.labels], sample) for sample in metric.samples]
    if metric.kind == "histogram":
        histogram = core.HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, sample in rows:
            buckets = [("+Inf" if math.isinf(most) else str(most), count) for most, count in sample.buckets]
            histogram.add_metric(labels, buckets, sum_value=sample.value)
        return histogram
    kind = core.CounterMetricFamily if metric.kind == "counter" else core.GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, sample in rows:
        family.add_metric(labels, sample.value)
    return family


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
    host, _, port = text.rpartition(":") if ":" in text else (LOOPBACK, ":", text)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:  # of an IPv6 address without brackets, nobody knows where it ends
        host = ""
    if not (
        host
        and not set("[]/ ") & set(host)
        and port.isascii()
        and port.isdecimal()
        and len(port) < 6
        and int(port) < 65536
    ):
        raise UsageError(f"--listen: expected a port, or a host and a port like 0.0.0.0:9815, got {quoted(text)}")
    return host, int(port)
