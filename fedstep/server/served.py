"""The model as it is served: its bytes, made once a version."""

from dataclasses import dataclass
from hashlib import blake2b

from starlette.responses import Response

from fedstep.federation.gzipped import deflate
from fedstep.federation.wire import NO_PROMISE, Model, Promise, hour, pack_model
from fedstep.server.records import Current

__all__ = ["Served", "served"]


@dataclass(frozen=True, slots=True)
class Served:
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


def served(digest: str, current: Current, promise: Promise = NO_PROMISE, shares: int = 0, noise: float = 0.0) -> Served:
    """What is served while this is current: head, production, and the snapshots on trial."""
    head, trials = current.head, current.trials
    model = Model(
        schema=digest,
        head_version=head.version,
        production_version=head.production,
        created=hour(head.created),
        head=head.vectors,
        production=current.production,
        trials={name: trial.version for name, trial in trials.items()},
        trial={name: trial.vector for name, trial in trials.items()},
        promise=promise,
        shares=shares,
        noise=noise,
    )
    body = pack_model(model)
    etag = f'"{head.version}-{blake2b(body, digest_size=8).hexdigest()}"'
    return Served(head.version, etag, body, deflate(body))


def _matches(if_none_match: str, etag: str) -> bool:
    return any(part.strip().removeprefix("W/") in (etag, "*") for part in if_none_match.split(","))


def _accepts_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.lower().split(","):
        name, _, weight = part.strip().partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
