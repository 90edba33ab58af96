"""The outbox: updates that wait until the aggregator acknowledges or refuses them; and the audit log of all sent."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from fedstep.errors import MALFORMED, AggregatorError, HistoryError, UpdateRefused, WireError
from fedstep.federation.client import Receipt, push
from fedstep.federation.messages import LARGEST_MESSAGE, hour, inflate, unpack_update, update_words
from fedstep.federation.transport import HttpResponse, RetryPolicy, Transport
from fedstep.federation.trust import redact_url
from fedstep.files import read_bounded
from fedstep.history.project_store import SENT, ProjectStore, append, list_folder, remove, write_if_absent

AUDIT_SUFFIX = ".safetensors"
KEPT_BODIES = 20  # the newest updates in the audit log whose bytes are stored too


class SentRecord(NamedTuple):
    """One update sent to one host; `answer` is the last HTTP status, 0 where no response came."""

    hour: str  # of the first attempt
    sha256: str
    size: int  # bytes, unpacked
    rows: Mapping[str, int]  # bucketed counts, by task
    base: str
    schema: str
    host: str
    answer: int = 0


class AuditLog(NamedTuple):
    """Everything ever sent from this history, oldest first, and the number of unreadable lines of the log."""

    sent: tuple[SentRecord, ...] = ()
    damaged: int = 0


def audit_transport(
    store: ProjectStore, url: str, send: Transport, clock: Callable[[], float] = time.time
) -> Transport:
    """Return a transport that records every body before sending it. Raise AggregatorError if it cannot be recorded."""
    host = host_of(url)

    def send_recorded(method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpResponse:
        if not body:
            return send(method, path, headers, body, timeout)
        plain = inflate(body, LARGEST_MESSAGE) if headers.get("Content-Encoding") == "gzip" else body
        digest = sha256(plain).hexdigest()
        try:
            _record_body(store, plain, digest, host, clock())
        except (OSError, HistoryError) as error:
            reason = getattr(error, "strerror", None) or error.args[0]
            raise AggregatorError(
                f"nothing is sent, because it cannot be recorded in {store.path('sent')} ({reason})",
                "Free space or make the folder writable; the update waits.",
            ) from error
        response = send(method, path, headers, body, timeout)
        _record_status(store, digest, host, response.status)
        return response

    return send_recorded


def host_of(url: str) -> str:
    """Return the host of an aggregator as the audit log names it.

    >>> host_of("https://me:secret@ci.example:8443/fed?key=1")
    'ci.example:8443'
    """
    return redact_url(url).partition("://")[2].partition("/")[0]


def read_audit(store: ProjectStore) -> AuditLog:
    """Return the audit log. Raise HistoryError where it cannot be read."""
    records: dict[tuple[str, str], SentRecord] = {}
    damaged = 0
    for line in filter(None, store.read(SENT).splitlines()):
        try:
            _apply_line(json.loads(line), records)
        except MALFORMED:
            damaged += 1
    return AuditLog(tuple(records.values()), damaged)


def load_last_sent(store: ProjectStore) -> bytes:
    """Return the bytes of the last acknowledged update, else of the last one sent; b"" where none are stored."""
    records = read_audit(store).sent
    # sorted() is stable: acknowledged ones come last, each group oldest first
    ranked = sorted(records, key=lambda record: record.answer == 202)
    paths = (f"sent/{record.sha256}{AUDIT_SUFFIX}" for record in reversed(ranked))
    return next((body for path in paths if (body := store.read(path))), b"")


def _record_body(store: ProjectStore, body: bytes, digest: str, host: str, now: float) -> None:
    records = read_audit(store).sent
    if any((record.sha256, record.host) == (digest, host) for record in records):
        return
    words = _read_metadata(body)
    counts = [(name.partition("."), value) for name, value in words.items()]
    rows = {task: int(value) for (word, _, task), value in counts if word == "examples"}
    fields = {
        "hour": hour(now),
        "sha256": digest,
        "size": len(body),
        "rows": rows,
        "base": words.get("base", ""),
        "schema": words.get("schema", ""),
        "host": host,
    }
    store.write(f"sent/{digest}{AUDIT_SUFFIX}", body)
    _append(store, fields)
    _remove_old_bodies(store, {digest, *(record.sha256 for record in records[1 - KEPT_BODIES :])})


def _record_status(store: ProjectStore, digest: str, host: str, status: int) -> None:
    try:
        records = read_audit(store).sent
        if not any((record.sha256, record.host, record.answer) == (digest, host, status) for record in records):
            _append(store, {"sha256": digest, "host": host, "answer": status})
    except (OSError, HistoryError):
        pass  # the body is in the log already, and the request itself has succeeded


def _append(store: ProjectStore, fields: Mapping[str, object]) -> None:
    """Append one line to the audit log; the first newline ends a line that a crash cut off."""
    append(store.path(SENT), f"\n{json.dumps(fields)}\n".encode())


def _remove_old_bodies(store: ProjectStore, digests: Set[str]) -> None:
    for name in list_folder(store.path("sent")):
        if name.endswith(AUDIT_SUFFIX) and name.removesuffix(AUDIT_SUFFIX) not in digests:
            remove(os.path.join(store.path("sent"), name))


def _read_metadata(body: bytes) -> Mapping[str, str]:
    try:
        return update_words(body).words
    except WireError:
        return {}


def _apply_line(fields: Mapping[str, object], records: dict[tuple[str, str], SentRecord]) -> None:
    """Add one line to `records`. Raise KeyError, TypeError or ValueError for a line of another form."""
    key = str(fields["sha256"]), str(fields["host"])
    if "answer" in fields:
        records[key] = records[key]._replace(answer=int(str(fields["answer"])))
        return
    rows = dict(_parse_counts(fields["rows"]))
    base, schema, host = (str(fields[name]) for name in ("base", "schema", "host"))
    records[key] = SentRecord(str(fields["hour"]), key[0], int(str(fields["size"])), rows, base, schema, host)


def _parse_counts(rows: object) -> Iterator[tuple[str, int]]:
    if not isinstance(rows, dict):
        raise TypeError("no counts by task")
    return ((str(task), int(count)) for task, count in rows.items())


SUFFIX, DAMAGED, SECRET, PARTIAL = ".safetensors", ".damaged", ".seed", ".partial"


@dataclass(frozen=True, slots=True)
class OutboxContents:
    """The updates as (id, bytes), oldest first; and the files that are not updates, each with the reason."""

    updates: tuple[tuple[str, bytes], ...]
    damaged: tuple[tuple[Path, str], ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each file that is not an update."""
        return tuple(f"{path} is no update ({reason}); delete it" for path, reason in self.damaged)


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What happened to the updates of the outbox."""

    sent: tuple[Receipt, ...]  # acknowledged
    refused: tuple[UpdateRefused, ...]  # and removed from the outbox
    waiting: int  # still in the outbox
    failures: tuple[AggregatorError, ...]
    warnings: tuple[str, ...]
    bodies: tuple[bytes, ...] = ()  # of the acknowledged ones, in the order of `sent`


@dataclass(frozen=True, slots=True)
class Outbox:
    """A folder of at most `max_updates` updates, one file each; it is created with the first one."""

    folder: Path
    max_updates: int = 50

    def add(self, update: bytes) -> str:
        """Store the update under its id, whole or not at all; the oldest makes room for it. Raise as `stage`."""
        with self.stage(update) as update_id:
            return update_id

    @contextmanager
    def stage(self, update: bytes) -> Iterator[str]:
        """Write the update to the disk and yield its id; it is in the outbox once the block has succeeded.

        The block removes the update's examples from the queue: wherever it breaks off, they are sent at most once.
        Raise WireError, HistoryError.
        """
        update_id = unpack_update(update).id
        partial = self.folder / f"{update_id}.{os.urandom(4).hex()}{PARTIAL}"
        try:
            with self._translate_errors():
                self.folder.mkdir(parents=True, exist_ok=True)
                _write_durably(partial, update)
            yield update_id
            with self._translate_errors():
                partial.replace(self._path(update_id))
        finally:
            _remove(partial)
        self._trim()

    def waiting(self) -> OutboxContents:
        """Return all updates, oldest first, and the files that are not updates, which are left alone."""
        updates, damaged = [], []
        for path in self._paths(SUFFIX):
            try:
                updates.append((path.stem, _read_update(path)))
            except FileNotFoundError:
                continue  # another job sent it meanwhile
            except WireError as error:
                damaged.append((path, str(error.args[0])))
            except OSError as error:
                damaged.append((path, str(error.strerror)))
        return OutboxContents(tuple(updates), tuple(damaged))

    def load_secret(self, update_id: str, fresh: Callable[[], bytes]) -> bytes:
        """Return the secret that splits an update: `fresh` the first time, then the same until the update is removed.

        Raise HistoryError where it cannot be stored: shares of two splits would not fit together.
        """
        path = self.folder / f"{update_id}{SECRET}"
        try:
            write_if_absent(str(path), fresh())
            return path.read_bytes()
        except OSError as error:
            raise HistoryError(f"{path} cannot be read ({error.strerror})", "Check its permissions.") from error

    def remove(self, update_id: str) -> None:
        """Remove an update and its secret, where they exist and can be removed."""
        _remove(self._path(update_id))
        _remove(self.folder / f"{update_id}{SECRET}")

    def _path(self, update_id: str) -> Path:
        return self.folder / f"{update_id}{SUFFIX}"

    def _paths(self, suffix: str) -> list[Path]:
        """Return the files with this suffix, oldest first; those of the same time by name."""
        try:
            with os.scandir(self.folder) as entries:
                times_and_names = [(entry.stat(follow_symlinks=False).st_mtime_ns, entry.name) for entry in entries]
        except OSError:
            return []
        return [self.folder / name for _, name in sorted(times_and_names) if name.endswith(suffix)]

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HistoryError(
                f"the update cannot be kept in {self.folder} ({error.strerror})", "Make the folder writable."
            ) from error

    def _trim(self) -> None:
        for path in (*self._paths(DAMAGED)[: -self.max_updates], *self._paths(PARTIAL)[: -self.max_updates]):
            _remove(path)
        for path in self._paths(SUFFIX)[: -self.max_updates]:
            self.remove(path.stem)


def flush(outbox: Outbox, url: str, send: Transport, retry: RetryPolicy | None = None) -> DeliveryReport:
    """Send the updates of the outbox, oldest first, until the deadline or the first failure that concerns all."""
    retry = retry or RetryPolicy()
    return flush_with(outbox, lambda update: push(update, url, send, retry), retry)


def flush_with(outbox: Outbox, post: Callable[[bytes], Receipt], retry: RetryPolicy) -> DeliveryReport:
    """Do what `flush` does with another way of sending, `post`, which raises AggregatorError like `push`.

    A file that is not an update is renamed to *.damaged, with a warning.
    """
    waiting = outbox.waiting()
    warnings = tuple(_set_aside(path, reason) for path, reason in waiting.damaged)
    sent: list[Receipt] = []
    bodies: list[bytes] = []
    refused: list[UpdateRefused] = []
    failures: list[AggregatorError] = []
    for update_id, update in waiting.updates:
        if retry.clock() >= retry.deadline:
            break
        try:
            sent.append(post(update))
            bodies.append(update)
        except UpdateRefused as error:
            refused.append(error)
        except AggregatorError as error:
            failures.append(error)
            break
        outbox.remove(update_id)
    left = len(waiting.updates) - len(sent) - len(refused)
    return DeliveryReport(tuple(sent), tuple(refused), left, tuple(failures), warnings, tuple(bodies))


def _read_update(path: Path) -> bytes:
    body = read_bounded(str(path), LARGEST_MESSAGE)
    if unpack_update(body).id != path.stem:
        raise WireError("the update in it has another id")
    return body


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _set_aside(path: Path, reason: str) -> str:
    try:
        path.replace(path.with_suffix(DAMAGED))
    except OSError:
        return f"{path} is no update ({reason}) and cannot be renamed; delete it"
    return f"{path} is no update ({reason}); set aside as {path.stem}{DAMAGED}"


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
