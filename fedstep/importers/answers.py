"""Answers of an API that may be asked for again: a resumed import asks whether they changed, which costs nothing."""

import json
import os
import zlib
from typing import NamedTuple

from fedstep.history.home import Home
from fedstep.history.log import list_folder, remove

__all__ = ["Answers", "KeptAnswer"]

FOLDER = "answers"
MOST, LARGEST = 500, 1 << 20  # files; bytes of one, packed


class KeptAnswer(NamedTuple):
    """A body with the ETag that it had, and the link to the next page."""

    etag: str
    link: str
    body: bytes


class Answers:
    """A small cache in a history's folder; names of files are keyed hashes, and the oldest go."""

    def __init__(self, home: Home) -> None:
        self.home, self.folder = home, home.path(FOLDER)
        self.files = len(list_folder(self.folder))

    def find(self, url: str) -> KeptAnswer | None:
        """The answer kept for this URL; None where there is none that can be read."""
        content = self.home.read(self._name(url))
        try:
            fields = json.loads(zlib.decompressobj().decompress(content, 64 << 20)) if content else {}
            return KeptAnswer(fields["etag"], fields["link"], fields["body"].encode()) if fields else None
        except (zlib.error, ValueError, LookupError, TypeError, AttributeError):
            return None

    def keep(self, url: str, answer: KeptAnswer) -> None:
        """Keep an answer, unless it is large. HistoryError where it cannot be written."""
        fields = {**answer._asdict(), "body": answer.body.decode("utf-8", "replace")}
        content = zlib.compress(json.dumps(fields).encode(), 1)
        if len(content) <= LARGEST:
            self.home.write(self._name(url), content)
            self.files += 1
        if self.files > MOST:
            self._forget()

    def _name(self, url: str) -> str:
        return os.path.join(FOLDER, self.home.keyed("answer", url))

    def _forget(self) -> None:
        paths = [os.path.join(self.folder, name) for name in list_folder(self.folder)]
        paths.sort(key=lambda path: os.stat(path).st_mtime)
        for path in paths[: len(paths) - MOST * 4 // 5]:
            remove(path)
        self.files = min(len(paths), MOST * 4 // 5)
