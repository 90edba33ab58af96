"""The way of an update to two aggregators: a half to each, the same bytes until both have acknowledged them."""

from os import urandom

from fedstep.errors import AggregatorError, HistoryError, SchemaMismatch, UpdateRefused, WireError
from fedstep.federation.client import Receipt, post
from fedstep.federation.messages import unpack_update
from fedstep.federation.outbox import DeliveryReport, Outbox, flush_with
from fedstep.federation.secagg.share_messages import SEED_BYTES, pack_share
from fedstep.federation.secagg.shares import MAX_DEVIATION, NO_NOISE, ShareNoise, scale_deviations, split_update
from fedstep.federation.transport import Endpoint, RetryPolicy
from fedstep.schema.schema import schema

SHARES_PATH = "/v1/shares"


def flush_shares(
    outbox: Outbox,
    leader: Endpoint,
    helper: Endpoint,
    retry: RetryPolicy | None = None,
    deviation: int = 0,
) -> DeliveryReport:
    """Sends what waits, oldest first, each update in two halves; it leaves the outbox when both are acknowledged.

    `deviation` is the usual one of the noise of an update that is split now. One that was split before goes out as it
    was: two splits with one seed would tell what noise they differ in.
    """
    retry = retry or RetryPolicy()

    def both(update: bytes) -> Receipt:
        try:
            cached = outbox.seed(unpack_update(update).id, lambda: _secrets(deviation))
        except HistoryError as error:
            raise AggregatorError(str(error.args[0]), error.remedy) from error
        seed, noise = _opened(cached)
        return push_shares(update, seed, leader, helper, retry, noise)

    return flush_with(outbox, both, retry)


def push_shares(
    update: bytes,
    seed: bytes,
    leader: Endpoint,
    helper: Endpoint,
    retry: RetryPolicy | None = None,
    noise: ShareNoise = NO_NOISE,
) -> Receipt:
    """The leader's receipt, once both have acknowledged their half of the update. Raises what `push` does.

    The helper comes first: what the leader has, it can propose at once.
    """
    whole = unpack_update(update)
    if whole.schema != schema().digest:
        raise SchemaMismatch(
            f"an update of the feature schema {whole.schema} waits, this fedstep has {schema().digest}",
            "It will not be sent.",
        )
    try:
        first, second = split_update(whole, {name: task.clip for name, task in schema().tasks.items()}, seed, noise)
        masked, seeded = pack_share(first), pack_share(second)
    except WireError as error:
        raise UpdateRefused(f"an update cannot be split ({error.args[0]})", "It will not be sent.") from error
    post(SHARES_PATH, whole.id, seeded, helper.url, helper.send, retry)
    return post(SHARES_PATH, whole.id, masked, leader.url, leader.send, retry)


def _secrets(deviation: int) -> bytes:
    """What one split is made with, to be kept: the seed of the pads, that of the noise, and how much noise."""
    return urandom(2 * SEED_BYTES) + deviation.to_bytes(4, "big")


def _opened(cached: bytes) -> tuple[bytes, ShareNoise]:
    """The seed of the pads, and the noise. Raises UpdateRefused for bytes that are not what was kept."""
    deviation = int.from_bytes(cached[2 * SEED_BYTES :], "big")
    if len(cached) != 2 * SEED_BYTES + 4 or deviation > MAX_DEVIATION:
        raise UpdateRefused("an update cannot be split: its secret is damaged", "It will not be sent.")
    return cached[:SEED_BYTES], ShareNoise(scale_deviations(deviation, schema()), cached[SEED_BYTES : 2 * SEED_BYTES])
