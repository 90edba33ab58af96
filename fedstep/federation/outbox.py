"""Updates that wait until the aggregator has acknowledged or refused them: one file each."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fedstep.errors import AggregatorError, HistoryError, UpdateRefused, WireError
from fedstep.federation.client import Receipt, push
from fedstep.federation.patience import Patience
from fedstep.federation.transport import Send
from fedstep.federation.wire import LARGEST, unpack_update
from fedstep.history.log import write_first

__all__ = ["Flushed", "Outbox", "Waiting", "flush", "flush_by"]

SUFFIX, DAMAGED, SECRET, PARTIAL = ".safetensors", ".damaged", ".seed", ".partial"


@dataclass(frozen=True, slots=True)
class Waiting:
    """The bytes of each update by id, oldest first, and each file that is none with the reason."""

    updates: tuple[tuple[str, bytes], ...]
    damaged: tuple[tuple[Path, str], ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each file that is no update."""
        return tuple(f"{path} is no update ({reason}); delete it" for path, reason in self.damaged)


@dataclass(frozen=True, slots=True)
class Flushed:
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

    def waiting(self) -> Waiting:
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
        return Waiting(tuple(updates), tuple(damaged))

    def seed(self, number: str, fresh: Callable[[], bytes]) -> bytes:
        """The secret that an update is split by: `fresh` the first time, the same until the update is gone.

        Raises HistoryError where it cannot be kept: halves of two splits would not fit together.
        """
        path = self.folder / f"{number}{SECRET}"
        try:
            write_first(str(path), fresh())
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


def flush(outbox: Outbox, url: str, send: Send, patience: Patience | None = None) -> Flushed:
    """Sends what waits, oldest first, until the deadline or the first failure that concerns all of them."""
    patience = patience or Patience()
    return flush_by(outbox, lambda update: push(update, url, send, patience), patience)


def flush_by(outbox: Outbox, post: Callable[[bytes], Receipt], patience: Patience) -> Flushed:
    """As `flush`, in another way of sending: `post` raises AggregatorError like `push`.

    A file that is no update is renamed to *.damaged, with a warning.
    """
    waiting = outbox.waiting()
    warnings = tuple(_set_aside(path, reason) for path, reason in waiting.damaged)
    sent: list[Receipt] = []
    bodies: list[bytes] = []
    refused: list[UpdateRefused] = []
    failures: list[AggregatorError] = []
    for number, update in _until_deadline(waiting.updates, patience):
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
    return Flushed(tuple(sent), tuple(refused), left, tuple(failures), warnings, tuple(bodies))


def _until_deadline(updates: tuple[tuple[str, bytes], ...], patience: Patience) -> Iterator[tuple[str, bytes]]:
    for item in updates:
        if patience.clock() >= patience.deadline:
            return
        yield item


def _update(path: Path) -> bytes:
    with path.open("rb") as file:
        body = file.read(LARGEST + 1)
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
