"""The log: lines for people, or one JSON object a line."""

import json
import logging
import sys
import time

__all__ = ["FORMATS", "LEVELS", "JsonLines", "TextLines", "start_logging"]

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning")
TEXT = "%(asctime)s %(levelname)s %(message)s"
WHO = ("owner", "project", "peer")  # what a line's message does not say of its fields


class TextLines(logging.Formatter):
    """One line for a person; at its end whose request it is about, as far as that is known."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback."""
        fields = getattr(record, "fields", {})
        who = " ".join(f"{name}={json.dumps(fields[name])}" for name in WHO if name in fields)
        line = super().formatMessage(record)
        return f"{line} ({who})" if who else line


class JsonLines(logging.Formatter):
    """time, level, logger, message; the fields that a line was given; a traceback as one string."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
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
    """Sends the log of this process to standard error, in one of the FORMATS, from one of the LEVELS on.

    Only ours is debugged: the libraries' debug lines quote what was sent.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=max(logging.INFO, logging.getLevelName(level.upper())), handlers=[handler])
    logging.getLogger("fedstep").setLevel(level.upper())
