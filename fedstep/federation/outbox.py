"""Updates that wait until the aggregator has acknowledged or refused them: one file each."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from fedstep.errors import AggregatorError, HistoryError, UpdateRefused, WireError
from fedstep.federation.client import Receipt, push
from fedstep.federation.messages import hour, unpack_update, update_words
from fedstep.federation.tensors import LARGEST_MESSAGE, inflate
from fedstep.federation.transport import HttpResponse, RetryPolicy, Transport, redact_url
from fedstep.history.project_store import SENT, ProjectStore, append, list_folder, remove, write_if_absent

AUDIT_SUFFIX = ".safetensors"
KEPT_BODIES = 20  # of so many updates, the last ones, the bytes themselves are kept


class SentRecord(NamedTuple):
    """One update that left for one host. `answer` is the last HTTP status that came back, 0 where none did."""

    hour: str  # of the first attempt
    sha256: str
    size: int  # bytes, unpacked
    rows: Mapping[str, int]  # bucketed counts, by task
    base: str
    schema: str
    host: str
    answer: int = 0


class AuditLog(NamedTuple):
    """Everything ever sent from this history, oldest first, and how many lines of the record cannot be read."""

    sent: tuple[SentRecord, ...] = ()
    damaged: int = 0


def audit_transport(
    store: ProjectStore, url: str, send: Transport, clock: Callable[[], float] = time.time
) -> Transport:
    """Return a transport that records every body before sending it. Raise AggregatorError if it cannot be recorded."""
    host = host_of(url)

    def noting(method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpResponse:
        if not body:
            return send(method, path, headers, body, timeout)
        plain = inflate(body, LARGEST_MESSAGE) if headers.get("Content-Encoding") == "gzip" else body
        digest = sha256(plain).hexdigest()
        try:
            _note(store, plain, digest, host, clock())
        except (OSError, HistoryError) as error:
            reason = getattr(error, "strerror", None) or error.args[0]
            raise AggregatorError(
                f"nothing is sent, because it cannot be noted in {store.path('sent')} ({reason})",
                "Free space or make the folder writable; the update waits.",
            ) from error
        answer = send(method, path, headers, body, timeout)
        _note_answer(store, digest, host, answer.status)
        return answer

    return noting


def host_of(url: str) -> str:
    """The host of an aggregator, as the record has it.

    >>> host_of("https://me:secret@ci.example:8443/fed?key=1")
    'ci.example:8443'
    """
    return redact_url(url).partition("://")[2].partition("/")[0]


def read_audit(store: ProjectStore) -> AuditLog:
    """The record. HistoryError where it cannot be read."""
    found: dict[tuple[str, str], SentRecord] = {}
    damaged = 0
    for line in filter(None, store.read(SENT).splitlines()):
        try:
            _take(json.loads(line), found)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            damaged += 1
    return AuditLog(tuple(found.values()), damaged)


def load_last_sent(store: ProjectStore) -> bytes:
    """The bytes of the last update that was acknowledged, else of the last that left; b"" where none are kept."""
    sent = read_audit(store).sent
    ranked = [*(one for one in sent if one.answer != 202), *(one for one in sent if one.answer == 202)]
    return next((body for one in reversed(ranked) if (body := store.read(f"sent/{one.sha256}{AUDIT_SUFFIX}"))), b"")


def _note(store: ProjectStore, body: bytes, digest: str, host: str, now: float) -> None:
    sent = read_audit(store).sent
    if any((one.sha256, one.host) == (digest, host) for one in sent):
        return
    words = _words(body)
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
    _trim(store, {digest, *(one.sha256 for one in sent[1 - KEPT_BODIES :])})


def _note_answer(store: ProjectStore, digest: str, host: str, status: int) -> None:
    try:
        if not any((one.sha256, one.host, one.answer) == (digest, host, status) for one in read_audit(store).sent):
            _append(store, {"sha256": digest, "host": host, "answer": status})
    except (OSError, HistoryError):
        pass  # that it left is on record; an exchange that happened is not called a failure for this


def _append(store: ProjectStore, fields: Mapping[str, object]) -> None:
    """The first newline ends a line that a crash cut."""
    append(store.path(SENT), f"\n{json.dumps(fields)}\n".encode())


def _trim(store: ProjectStore, cached: Set[str]) -> None:
    for name in list_folder(store.path("sent")):
        if name.endswith(AUDIT_SUFFIX) and name.removesuffix(AUDIT_SUFFIX) not in cached:
            remove(os.path.join(store.path("sent"), name))


def _words(body: bytes) -> Mapping[str, str]:
    try:
        return update_words(body).words
    except WireError:
        return {}


def _take(fields: Mapping[str, object], found: dict[tuple[str, str], SentRecord]) -> None:
    """Add what one line says. KeyError, TypeError or ValueError for a line that says nothing."""
    key = str(fields["sha256"]), str(fields["host"])
    if "answer" in fields:
        found[key] = found[key]._replace(answer=int(str(fields["answer"])))
        return
    rows = dict(_counts(fields["rows"]))
    base, schema, host = (str(fields[name]) for name in ("base", "schema", "host"))
    found[key] = SentRecord(str(fields["hour"]), key[0], int(str(fields["size"])), rows, base, schema, host)


def _counts(rows: object) -> Iterator[tuple[str, int]]:
    if not isinstance(rows, dict):
        raise TypeError("no counts by head")
    return ((str(task), int(count)) for task, count in rows.items())


SUFFIX, DAMAGED, SECRET, PARTIAL = ".safetensors", ".damaged", ".seed", ".partial"


@dataclass(frozen=True, slots=True)
class OutboxContents:
    """The bytes of each update by id, oldest first, and each file that is none with the reason."""

    updates: tuple[tuple[str, bytes], ...]
    damaged: tuple[tuple[Path, str], ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each file that is no update."""
        return tuple(f"{path} is no update ({reason}); delete it" for path, reason in self.damaged)


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What became of the updates: acknowledged, refused (and removed), still waiting; what went wrong; warnings.

    `bodies` are the bytes of those that were acknowledged, in the order of `sent`.
    """

    sent: tuple[Receipt, ...]
    refused: tuple[UpdateRefused, ...]
    waiting: int
    failures: tuple[AggregatorError, ...]
    warnings: tuple[str, ...]
    bodies: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Outbox:
    """A folder of at most `most` updates. The folder appears with the first one."""

    folder: Path
    most: int = 50

    def keep(self, update: bytes) -> str:
        """Stores the update under its id, whole or not at all; the oldest goes for it. Raises as `keeping`."""
        with self.keeping(update) as number:
            return number

    @contextmanager
    def keeping(self, update: bytes) -> Iterator[str]:
        """The id of the update, which is on the disk already, and in the outbox once the block has ended well.

        In the block its rows are taken from those that wait: whatever breaks off there, they are sent once at most.
        Raises WireError, HistoryError.
        """
        number = unpack_update(update).id
        partial = self.folder / f"{number}.{os.urandom(4).hex()}{PARTIAL}"
        try:
            with self._explained():
                self.folder.mkdir(parents=True, exist_ok=True)
                _write(partial, update)
            yield number
            with self._explained():
                partial.replace(self._path(number))
        finally:
            _remove(partial)
        self._trim()

    def waiting(self) -> OutboxContents:
        """All updates, oldest first. Files that are none are told of, and left alone."""
        updates, damaged = [], []
        for path in self._paths(SUFFIX):
            try:
                updates.append((path.stem, _update(path)))
            except FileNotFoundError:
                continue  # another job sent it meanwhile
            except WireError as error:
                damaged.append((path, str(error.args[0])))
            except OSError as error:
                damaged.append((path, str(error.strerror)))
        return OutboxContents(tuple(updates), tuple(damaged))

    def seed(self, number: str, fresh: Callable[[], bytes]) -> bytes:
        """The secret that an update is split by: `fresh` the first time, the same until the update is gone.

        Raises HistoryError where it cannot be kept: halves of two splits would not fit together.
        """
        path = self.folder / f"{number}{SECRET}"
        try:
            write_if_absent(str(path), fresh())
            return path.read_bytes()
        except OSError as error:
            raise HistoryError(f"{path} cannot be read ({error.strerror})", "Check its permissions.") from error

    def drop(self, number: str) -> None:
        """Removes an update, if it is there and can be removed, and its secret."""
        _remove(self._path(number))
        _remove(self.folder / f"{number}{SECRET}")

    def _path(self, number: str) -> Path:
        return self.folder / f"{number}{SUFFIX}"

    def _paths(self, suffix: str) -> list[Path]:
        """The files of one kind, oldest first; of the same time, by name."""
        try:
            with os.scandir(self.folder) as entries:
                found = [(entry.stat(follow_symlinks=False).st_mtime_ns, entry.name) for entry in entries]
        except OSError:
            return []
        return [self.folder / name for _, name in sorted(found) if name.endswith(suffix)]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HistoryError(
                f"the update cannot be kept in {self.folder} ({error.strerror})", "Make the folder writable."
            ) from error

    def _trim(self) -> None:
        for path in (*self._paths(DAMAGED)[: -self.most], *self._paths(PARTIAL)[: -self.most]):
            _remove(path)
        for path in self._paths(SUFFIX)[: -self.most]:
            self.drop(path.stem)


def flush(outbox: Outbox, url: str, send: Transport, retry: RetryPolicy | None = None) -> DeliveryReport:
    """Sends what waits, oldest first, until the deadline or the first failure that concerns all of them."""
    retry = retry or RetryPolicy()
    return flush_with(outbox, lambda update: push(update, url, send, retry), retry)


def flush_with(outbox: Outbox, post: Callable[[bytes], Receipt], retry: RetryPolicy) -> DeliveryReport:
    """As `flush`, in another way of sending: `post` raises AggregatorError like `push`.

    A file that is no update is renamed to *.damaged, with a warning.
    """
    waiting = outbox.waiting()
    warnings = tuple(_set_aside(path, reason) for path, reason in waiting.damaged)
    sent: list[Receipt] = []
    bodies: list[bytes] = []
    refused: list[UpdateRefused] = []
    failures: list[AggregatorError] = []
    for number, update in _until_deadline(waiting.updates, retry):
        try:
            sent.append(post(update))
            bodies.append(update)
        except UpdateRefused as error:
            refused.append(error)
        except AggregatorError as error:
            failures.append(error)
            break
        outbox.drop(number)
    left = len(waiting.updates) - len(sent) - len(refused)
    return DeliveryReport(tuple(sent), tuple(refused), left, tuple(failures), warnings, tuple(bodies))


def _until_deadline(updates: tuple[tuple[str, bytes], ...], retry: RetryPolicy) -> Iterator[tuple[str, bytes]]:
    for item in updates:
        if retry.clock() >= retry.deadline:
            return
        yield item


def _update(path: Path) -> bytes:
    with path.open("rb") as file:
        body = file.read(LARGEST_MESSAGE + 1)
    if unpack_update(body).id != path.stem:
        raise WireError("the update in it has another id")
    return body


def _write(path: Path, content: bytes) -> None:
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
