"""The log: lines for people, or one JSON object a line."""

import json
import logging
import sys
import time

__all__ = ["FORMATS", "LEVELS", "JsonLines", "start_logging"]

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning")
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


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
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=max(logging.INFO, logging.getLevelName(level.upper())), handlers=[handler])
    logging.getLogger("fedstep").setLevel(level.upper())
