"""The model as it is served: its bytes, made once a version."""

import logging
import re
from dataclasses import dataclass
from hashlib import blake2b

from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from fedstep.federation.messages import NO_PROMISE, Model, PrivacyGuarantee, hour, pack_model
from fedstep.federation.tensors import deflate
from fedstep.server.aggregation.inputs import CurrentModels
from fedstep.server.http_messages import HttpProblem
from fedstep.server.storage.engine import open_engine, read_only
from fedstep.server.storage.version_repository import VersionRepository


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version's answer to GET /v1/model."""

    version: int
    etag: str
    body: bytes
    packed: bytes

    def respond(self, if_none_match: str, accept_encoding: str) -> Response:
        """200 with the bytes, gzipped where accepted, or 304 for a reader who has them.

        The gzipped form has the weak form of the ETag, because its bytes are others (RFC 9110, 8.8.1).
        """
        zipped = _accepts_gzip(accept_encoding)
        headers = {
            "ETag": f"W/{self.etag}" if zipped else self.etag,
            "Vary": "Accept-Encoding",
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        if _matches(if_none_match, self.etag):
            return Response(None, 304, headers)
        if not zipped:
            return Response(self.body, 200, headers, "application/octet-stream")
        return Response(self.packed, 200, headers | {"Content-Encoding": "gzip"}, "application/octet-stream")


def served(
    digest: str, current: CurrentModels, promise: PrivacyGuarantee = NO_PROMISE, shares: int = 0, noise: float = 0.0
) -> ServedModel:
    """What is served while this is current: candidate, production, and the snapshots on trial."""
    candidate, trials = current.candidate, current.trials
    model = Model(
        schema=digest,
        candidate_version=candidate.version,
        production_version=candidate.production,
        created=hour(candidate.created),
        candidate=candidate.vectors,
        production=current.production,
        trials={name: trial.version for name, trial in trials.items()},
        trial={name: trial.vector for name, trial in trials.items()},
        promise=promise,
        shares=shares,
        noise=noise,
    )
    body = pack_model(model)
    etag = f'"{candidate.version}-{blake2b(body, digest_size=8).hexdigest()}"'
    return ServedModel(candidate.version, etag, body, deflate(body))


def _matches(if_none_match: str, etag: str) -> bool:
    return any(part.strip().removeprefix("W/") in (etag, "*") for part in if_none_match.split(","))


def _accepts_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.lower().split(","):
        name, _, weight = part.strip().partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


DIGEST = re.compile("[0-9a-f]{16}")
log = logging.getLogger("fedstep.server")


class LegacyModels:
    """What was served last of each schema. In whatever thread, but not in that of the requests: it reads the store."""

    def __init__(self, url: str, promise: PrivacyGuarantee = NO_PROMISE, shares: int = 0, noise: float = 0.0) -> None:
        """Raises UsageError when the database cannot be opened."""
        self._terms = promise, shares, noise
        self._engine = open_engine(url)
        self._reader = read_only(self._engine)
        self._made: dict[str, ServedModel] = {}

    def close(self) -> None:
        """Ends the connections."""
        self._engine.dispose()

    def served(self, schema: str) -> ServedModel | None:
        """The newest model of a schema, as its own aggregator serves it; None where there never was one.

        Raises Problem while the store cannot be read.
        """
        if not DIGEST.fullmatch(schema):
            return None
        try:
            return self._newest(schema)
        except SQLAlchemyError as error:
            log.exception("the model of an earlier schema cannot be read")
            raise HttpProblem(503, "store", "The store cannot be read now. Ask again later.", retry_after=10) from error

    def _newest(self, schema: str) -> ServedModel | None:
        with self._reader.begin() as connection:
            chronicle, known = VersionRepository(connection, schema), self._made.get(schema)
            if known and known.version == chronicle.number():
                return known
            if chronicle.newest() is None:
                return None
            current = chronicle.current()
        made = self._made[schema] = served(schema, current, *self._terms)
        return made
