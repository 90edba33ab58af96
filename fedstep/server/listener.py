"""Run uvicorn with limits on the size and the time of a request's header section, and set up the log."""

import asyncio
import gc
import json
import logging
import signal
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from types import FrameType
from typing import ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fedstep.errors import UsageError
from fedstep.server.http_messages import PATIENCE
from fedstep.server.rate_limits import Allowance, AllowanceMeter, client_of
from fedstep.server.settings import Limits, Settings, Tls

MOST_CONNECTIONS = 1000
MOST_WAITING = 100  # connections of one address that are idle, or whose request is not complete
MOST_OPEN = 200  # connections of one address, whatever they do
SECONDS_TO_FINISH = 10
SWITCH_SECONDS = 0.0005  # interval of thread switches, a tenth of Python's default
GC_THRESHOLD = 10_000  # new objects before a garbage collection
log = logging.getLogger("fedstep.server")


def listener(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raise UsageError if the address is taken or not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {host}:{port} ({getattr(error, 'strerror', None) or error})",
            "Choose another --port or --host, or stop what uses it.",
        ) from error


def check_tls(tls: Tls) -> Tls:
    """Return the same files. Raise UsageError unless they are a certificate and its key."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ssl.SSLError) as error:
        cause = "they do not belong together, or are not PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise UsageError(
            f"{tls.certificate} and {tls.key} cannot be used for TLS ({cause})",
            "Give --tls-cert the certificate with its chain and --tls-key its key without a password, both in PEM.",
        ) from error
    return tls


def run(app: ASGIApp, bound_socket: socket.socket, settings: Settings, stopping: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; then call `stopping` and finish the running requests."""
    config = uvicorn.Config(
        app,
        http=_bounded_protocol(settings.limits, settings.proxies),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        ssl_certfile=settings.tls.certificate if settings.tls else None,
        ssl_keyfile=settings.tls.key if settings.tls else None,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )
    _tune_process()
    # uvicorn raises the signal again for the earlier handler once it is done: ignore it
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with suppress(KeyboardInterrupt):
            _NotifyingServer(config, stopping).run(sockets=[bound_socket])
    finally:
        signal.signal(signal.SIGTERM, before)


def _tune_process() -> None:
    """Switch threads often, to answer during aggregation, and exclude what is loaded from garbage collection."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


class _NotifyingServer(uvicorn.Server):
    """A uvicorn server that calls `stopping` before it shuts down."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping()
        super().handle_exit(sig, frame)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, closing connections whose request is too long, or its header section too slow.

    What is no body counts, too: the trailers after it are kept like headers, and a chunk may have any extensions.
    """

    limits = Limits()
    proxies: ClassVar[tuple[str, ...]] = ()  # send for others, and are not limited
    waiting: ClassVar[dict[str, dict["BoundedProtocol", None]]] = {}  # for a request; by address, the oldest first
    opened: ClassVar[dict[str, dict["BoundedProtocol", None]]] = {}  # likewise, all of them
    header_size = 0
    body_size = 0  # with all that is around its chunks, and behind them
    header_timer: asyncio.TimerHandle | None = None
    is_whole = True  # the request: all of its body is here
    is_rest = False  # the timer and the size are those of a body that nobody reads

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Start the time for the first header section."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client and not is_proxy(self.client[0], self.proxies) else ""
        self._start_header()
        self._wait()
        self._join(self.opened, MOST_OPEN)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of the header section, or of what follows it, and close the connection at the limit."""
        if self.header_timer:
            end = -1 if self.is_rest else data.find(b"\r\n\r\n")  # what follows is the body, or the next request
            self.header_size += len(data) if end < 0 else end
            if self.header_size > (PATIENCE * self.limits.body if self.is_rest else self.limits.header_bytes):
                self._close()
                return
        else:
            self.body_size += len(data)
            if self.body_size > (PATIENCE + 1) * self.limits.body:  # of a body, the answer is 413 before
                self._close()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Start the time for the header section of the next request."""
        super().on_message_begin()
        self.is_whole, self.body_size = False, 0
        self._start_header()
        self._wait()

    def on_message_complete(self) -> None:
        """Note that the whole request is here: the connection waits for its answer."""
        self.is_whole = True
        if self.is_rest:
            self._end_header()
        self._leave(self.waiting)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Count the connection as waiting again, unless the next request is there already.

        The rest of a body that came too late for its answer has the limits of a body that is read.
        """
        next_is_here = bool(self.pipeline)
        super().on_response_complete()
        if not next_is_here and not self.transport.is_closing():
            self._wait()
            if not self.is_whole:
                self._start_header()
                self.is_rest = True

    def on_headers_complete(self) -> None:
        """Stop the timer."""
        self._end_header()
        super().on_headers_complete()

    def _wait(self) -> None:
        """Count the connection as waiting for a request."""
        self._join(self.waiting, MOST_WAITING)

    def _join(self, connections: dict[str, dict["BoundedProtocol", None]], most: int) -> None:
        """Add the connection; of an address with too many, close the one that waits for longest, or the oldest.

        The oldest, not the newest: so an address that floods still gets its health checks answered.
        """
        if not self._address:
            return
        own_connections = connections.setdefault(self._address, {})
        own_connections[self] = None
        if len(own_connections) > most:
            next(iter(self.waiting.get(self._address) or own_connections))._close()

    def _leave(self, connections: dict[str, dict["BoundedProtocol", None]]) -> None:
        own_connections = connections.get(self._address, {})
        own_connections.pop(self, None)
        if not own_connections:
            connections.pop(self._address, None)

    def _forget(self) -> None:
        self._end_header()
        self._leave(self.waiting)
        self._leave(self.opened)

    def _start_header(self) -> None:
        self._end_header()
        self.header_size, self.header_timer = 0, self.loop.call_later(self.limits.seconds, self._close)

    def _end_header(self) -> None:
        if self.header_timer:
            self.header_timer.cancel()
        self.header_timer, self.is_rest = None, False

    def _close(self) -> None:
        self._forget()
        if self.transport and not self.transport.is_closing():
            log.warning("connection closed: a request was too long or too slow, or its address has too many")
            self.transport.abort()


def is_proxy(address: str, proxies: Sequence[str]) -> bool:
    """Return whether an address is one of these addresses and networks.

    >>> is_proxy("10.0.0.2", ["10.0.0.0/24"]), is_proxy("10.0.1.2", ["10.0.0.0/24"])
    (True, False)
    """
    try:
        return any(ip_address(address) in ip_network(each) for each in proxies)
    except ValueError:  # of IPv6 with the name of an interface
        return False


def _bounded_protocol(limits: Limits, proxies: tuple[str, ...] = ()) -> type[BoundedProtocol]:
    """Return the protocol with these limits; uvicorn makes an instance per connection and passes no settings."""
    return type(
        "BoundedProtocol", (BoundedProtocol,), {"limits": limits, "proxies": proxies, "waiting": {}, "opened": {}}
    )


TEXT = "%(asctime)s %(levelname)s %(message)s"
SHOWN_FIELDS = ("owner", "project", "peer", "dropped")  # not part of the message


LINES_OF_CLIENT = 30  # of one kind, in a minute: others refused by the same cause stay visible
LINES_OF_KIND = 300  # in a minute, whoever causes them: about 60 MB a day


class LogLimit(logging.Filter):
    """Drops what a client, or many together, cause beyond a number of lines of one kind in a minute.

    The kind is the message before its words are put in, the client an owner or an address. The next line of the kind
    tells how many were dropped before it. Lines of level debug are not limited.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._lock = clock, threading.Lock()
        self._clients = AllowanceMeter((Allowance(LINES_OF_CLIENT, 60.0),), most_keys=10_000)
        self._kinds = AllowanceMeter((Allowance(LINES_OF_KIND, 60.0),), most_keys=1_000)
        self._dropped: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written."""
        if record.levelno < logging.INFO:
            return True
        kind, now, fields = str(record.msg)[:120], self._clock(), getattr(record, "fields", {})
        client = f"{kind} {fields.get('owner') or client_of(fields.get('peer', ''))}"
        with self._lock:
            levels = self._clients.level(client, now), self._kinds.level(kind, now)
            if any(level.wait for level in levels):
                self._dropped[kind] += 1
                return False
            self._clients.take(client, levels[0])
            self._kinds.take(kind, levels[1])
            dropped = self._dropped.pop(kind, 0)
        if dropped:
            record.fields = {**fields, "dropped": dropped}
        return True


class TextLines(logging.Formatter):
    """Formats one line per record for people, with the sender of the request at its end."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format the line without a traceback."""
        fields = getattr(record, "fields", {})
        who = " ".join(f"{name}={json.dumps(fields[name])}" for name in SHOWN_FIELDS if name in fields)
        line = super().formatMessage(record)
        return f"{line} ({who})" if who else line


class JsonLines(logging.Formatter):
    """Formats one JSON object per record: time, level, logger, message, its fields, and a traceback as a string."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        members = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            members["traceback"] = self.formatException(record.exc_info)
        return json.dumps(members)


def start_logging(form: str, level: str) -> None:
    """Send the log to standard error, as lines of text or of `json`, from this level on: debug, info or warning.

    Level debug applies to fedstep only: the libraries' debug lines quote what was sent. Lines are limited (`LogLimit`).
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    handler.addFilter(LogLimit())
    logging.basicConfig(level=max(logging.INFO, logging.getLevelName(level.upper())), handlers=[handler])
    logging.getLogger("fedstep").setLevel(level.upper())
