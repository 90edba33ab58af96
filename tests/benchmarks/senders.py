"""Senders of distinct updates over real HTTP, which repeat each one until it has its receipt, whatever happens."""

import time
from array import array
from random import Random
from threading import Event, Lock, Thread

from fedstep.errors import AggregatorError, AggregatorUnreachable
from fedstep.federation.client import FetchedModel, Receipt, pull, push
from fedstep.federation.messages import Model, TrialScore, Update, pack_update, shape
from fedstep.federation.transport import RetryPolicy, Transport, requests_transport
from fedstep.federation.update_builder import clip_update
from fedstep.schema.schema import schema

ONCE = RetryPolicy(timeout=15.0, waits=())
HEADS = ("build-failure", "build-duration")  # short ones: the load is on the store, not on the sums
LOOK_EVERY = 20  # updates between looks at the model


class Senders:
    """Threads that send while `url` is set. `sent` has every body by its id, `receipts` what was acknowledged.

    `wrong` is what an aggregator must never do: refuse what fits, or give another receipt for a repeat.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.url, self.sent, self.receipts = "", dict[str, bytes](), dict[str, str]()
        self.wrong: list[str] = []
        self.unanswered = self.repeats = 0
        self._lock, self._stopping, self._seed = Lock(), Event(), seed
        self._threads = [Thread(target=self._send_on, args=(number,), daemon=True) for number in range(count)]

    def start(self) -> None:
        """Begins to send."""
        for thread in self._threads:
            thread.start()

    def finish(self, seconds: float) -> None:
        """Returns once everything that was sent has its receipt; what has none by then is in `wrong`."""
        self._stopping.set()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self.wrong += [f"{number} never got a receipt" for number in sorted(self.sent.keys() - self.receipts.keys())]

    def _send_on(self, number: int) -> None:
        dice, turn = Random(f"{self._seed}/{number}"), 0
        model: Model | None = None
        url, send = "", requests_transport("http://127.0.0.1:1")
        while not self._stopping.is_set():
            url, send = self._reached(url, send)
            if turn % LOOK_EVERY == 0 or model is None:
                model = self._looked(url, send)
            if model is None:
                continue
            made = drawn(dice, number, turn, model)
            self._sent_until_received(made.id, pack_update(made), url, send)
            if turn % 7 == 0:
                self._sent_until_received(made.id, self.sent[made.id], url, send)
            turn += 1

    def _reached(self, url: str, send: Transport) -> tuple[str, Transport]:
        """The aggregator of this moment, and a `Transport` to it; waits while there is none."""
        while not self.url:
            time.sleep(0.01)
        now = self.url
        return (url, send) if now == url else (now, requests_transport(now))

    def _looked(self, url: str, send: Transport) -> Model | None:
        try:
            found = pull(url, "", send, shape(schema()), ONCE)
        except AggregatorUnreachable:
            return None
        assert isinstance(found, FetchedModel)
        return found.model

    def _sent_until_received(self, number: str, body: bytes, url: str, send: Transport) -> None:
        with self._lock:
            self.sent.setdefault(number, body)
        while True:
            try:
                return self._received(push(body, url, send, ONCE))
            except AggregatorUnreachable:
                with self._lock:
                    self.unanswered += 1
                time.sleep(0.02)
            except AggregatorError as error:
                return self.wrong.append(f"{number}: {error}")
            url, send = self._reached(url, send)

    def _received(self, receipt: Receipt) -> None:
        with self._lock:
            self.repeats += receipt.id in self.receipts
            before = self.receipts.setdefault(receipt.id, receipt.receipt)
        if before != receipt.receipt:
            self.wrong.append(f"{receipt.id} has the receipts {before} and {receipt.receipt}")


def drawn(dice: Random, sender: int, turn: int, model: Model) -> Update:
    """An update that fits, with scores that neither promote fast nor reject."""
    ours = schema().tasks
    deltas = {
        name: clip_update(array("f", (dice.gauss(0, 0.01) for _ in range(ours[name].size()))), ours[name].clip)
        for name in HEADS
    }
    scores = {name: TrialScore(model.trials[name], dice.gauss(0, 0.1)) for name in HEADS if name in model.trials}
    number = f"{sender:04x}{turn:012x}{dice.getrandbits(64):016x}"
    return Update(
        schema().digest, model.candidate_version, number, f"{sender:032x}", dict.fromkeys(HEADS, 8), deltas, scores
    )
