"""A stand-in for one of two aggregators that each take half of an update."""

import json
from collections.abc import Mapping

from fedstep.errors import AggregatorUnreachable
from fedstep.federation.transport import Endpoint, HttpResponse

__all__ = ["Listener"]


class Listener:
    """Answers with these statuses, the last one for ever, and keeps what came. `served` is the model that it names."""

    def __init__(self, *statuses: int, served: bytes = b"") -> None:
        self.statuses, self.served, self.asked = list(statuses), served, 0
        self.bodies: list[bytes] = []
        self.peer = Endpoint("https://one.example", self._send)

    def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, _timeout: float) -> HttpResponse:
        if method == "GET":
            self.asked += 1
            return HttpResponse(200, {}, self.served)
        assert path == "/v1/shares"
        self.bodies.append(body)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if not status:
            raise AggregatorUnreachable("nobody is there")
        receipt = {"receipt": f"r-{headers['Idempotency-Key']}", "version": 1}
        return HttpResponse(status, {}, json.dumps(receipt).encode())
