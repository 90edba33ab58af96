"""Serve the model: its bytes are made once per version."""

import asyncio
import logging
import re
import time
from dataclasses import dataclass
from hashlib import blake2b

from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from fedstep.federation.client import LINEAGE_HEADER
from fedstep.federation.messages import Model, deflate, hour, pack_model
from fedstep.server.aggregation.inputs import CurrentModels
from fedstep.server.http_messages import HttpProblem
from fedstep.server.mode import ContributionTerms
from fedstep.server.storage.engine import open_engine, read_only
from fedstep.server.storage.version_repository import VersionRepository, schemas_of
from fedstep.server.update_endpoint import schema_mismatch

DIGEST = re.compile("[0-9a-f]{16}")
OPEN_TERMS = ContributionTerms()
BETWEEN = 5.0  # seconds between looks for schemas that are new in the store, however many are made up
log = logging.getLogger("fedstep.server")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version as the response to GET /v1/model: its bytes, the same gzipped, and the id of its store's lineage."""

    version: int
    etag: str
    body: bytes
    packed: bytes
    lineage: str = ""

    def respond(self, if_none_match: str, accept_encoding: str) -> Response:
        """Return 200 with the bytes, gzipped where accepted, or 304 for a client that has them.

        The gzipped form has the weak form of the ETag, because its bytes are others (RFC 9110, 8.8.1).
        """
        zipped = _accepts_gzip(accept_encoding)
        headers = {
            "ETag": f"W/{self.etag}" if zipped else self.etag,
            "Vary": "Accept-Encoding",
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        if self.lineage:
            headers[LINEAGE_HEADER] = self.lineage
        if _matches(if_none_match, self.etag):
            return Response(None, 304, headers)
        if not zipped:
            return Response(self.body, 200, headers, "application/octet-stream")
        return Response(self.packed, 200, headers | {"Content-Encoding": "gzip"}, "application/octet-stream")


def serve_model(digest: str, current: CurrentModels, terms: ContributionTerms = OPEN_TERMS) -> ServedModel:
    """Return what is served while this is current: candidate, production, and the versions on trial."""
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
        **terms._asdict(),
    )
    body = pack_model(model)
    etag = f'"{candidate.version}-{blake2b(body, digest_size=8).hexdigest()}"'
    return ServedModel(candidate.version, etag, body, deflate(body), current.lineage)


def _matches(if_none_match: str, etag: str) -> bool:
    return any(part.strip().removeprefix("W/") in (etag, "*") for part in if_none_match.split(","))


def _accepts_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.lower().split(","):
        name, _, weight = part.strip().partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


class ModelEndpoint:
    """The models that are served: the current one, and the newest one of each schema that the store has."""

    def __init__(self, url: str, digest: str, terms: ContributionTerms = OPEN_TERMS) -> None:
        """Raise UsageError when the database cannot be opened."""
        self._digest, self._terms = digest, terms
        self._legacy = LegacyModels(url, terms)

    def publish(self, current: CurrentModels) -> None:
        """Serve these from now on. Call it before the first request."""
        self._current = serve_model(self._digest, current, self._terms)

    @property
    def version(self) -> int:
        """Return the version of the current candidate."""
        return self._current.version

    async def respond(self, request: Request) -> Response:
        """Return the model of the schema asked for, or 304. Raise HttpProblem where there never was one."""
        digest, model = request.query_params.get("schema", self._digest), self._current
        if digest != self._digest:
            legacy = await asyncio.to_thread(self._legacy.load, digest)
            if legacy is None:
                raise schema_mismatch(self._digest, digest)
            model = legacy
        return model.respond(request.headers.get("if-none-match", ""), request.headers.get("accept-encoding", ""))

    def close(self) -> None:
        """Close the connections."""
        self._legacy.close()


class LegacyModels:
    """The newest model of any schema. It reads the store: call it in a thread other than that of the requests."""

    def __init__(self, url: str, terms: ContributionTerms = OPEN_TERMS) -> None:
        """Raise UsageError when the database cannot be opened."""
        self._terms = terms
        self._engine = open_engine(url)
        self._reader = read_only(self._engine)
        self._models: dict[str, ServedModel] = {}
        self._known: frozenset[str] = frozenset()  # the schemas of the store, as they were at `_asked`
        self._asked = float("-inf")

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def load(self, schema: str) -> ServedModel | None:
        """Return the newest model of a schema, as its own aggregator serves it; None where there never was one.

        Raise HttpProblem while the store cannot be read.
        """
        if not DIGEST.fullmatch(schema):
            return None
        now = time.monotonic()
        if schema not in self._models and now < self._asked + BETWEEN and schema not in self._known:
            return None
        try:
            return self._load_newest(schema)
        except SQLAlchemyError as error:
            log.exception("the model of an earlier schema cannot be read")
            raise HttpProblem(503, "store", "The store cannot be read now. Ask again later.", retry_after=10) from error

    def _load_newest(self, schema: str) -> ServedModel | None:
        with self._reader.begin() as connection:
            if schema not in self._known:
                self._known, self._asked = schemas_of(connection), time.monotonic()
                if schema not in self._known:
                    return None
            versions, cached = VersionRepository(connection, schema), self._models.get(schema)
            if cached and cached.version == versions.latest_version():
                return cached
            if versions.latest() is None:
                return None
            current = versions.current()
        self._models[schema] = serve_model(schema, current, self._terms)
        return self._models[schema]
