"""Send an update to two aggregators, one share to each; the same bytes until both have acknowledged them."""

from os import urandom

from fedstep.errors import AggregatorError, HistoryError, SchemaMismatch, UpdateRefused, WireError
from fedstep.federation.client import Receipt, post
from fedstep.federation.messages import unpack_update
from fedstep.federation.outbox import DeliveryReport, Outbox, flush_with
from fedstep.federation.secagg.shares import (
    MAX_DEVIATION,
    NO_NOISE,
    SEED_BYTES,
    ShareNoise,
    pack_share,
    scale_deviations,
    split_update,
)
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
    """Send the updates of the outbox as `flush` does, each as two shares; one is removed when both are acknowledged.

    `deviation` is the standard deviation of the noise, in grid steps, of an update that is split now. One that was
    split before keeps its noise: two splits with one seed would reveal the difference of their noise.
    """
    retry = retry or RetryPolicy()

    def post_shares(update: bytes) -> Receipt:
        try:
            secret = outbox.load_secret(unpack_update(update).id, lambda: _make_secret(deviation))
        except HistoryError as error:
            raise AggregatorError(str(error.args[0]), error.remedy) from error
        seed, noise = _parse_secret(secret)
        return push_shares(update, seed, leader, helper, retry, noise)

    return flush_with(outbox, post_shares, retry)


def push_shares(
    update: bytes,
    seed: bytes,
    leader: Endpoint,
    helper: Endpoint,
    retry: RetryPolicy | None = None,
    noise: ShareNoise = NO_NOISE,
) -> Receipt:
    """Send the two shares of an update and return the leader's receipt. Raise what `push` raises.

    The helper's share goes first: the leader may put an update into a sum as soon as it has its share.
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


def _make_secret(deviation: int) -> bytes:
    """Return what one split is made from: the seed of the pads, that of the noise, and the deviation (4 bytes)."""
    return urandom(2 * SEED_BYTES) + deviation.to_bytes(4, "big")


def _parse_secret(secret: bytes) -> tuple[bytes, ShareNoise]:
    """Return the seed of the pads and the noise. Raise UpdateRefused for bytes that `_make_secret` did not make."""
    deviation = int.from_bytes(secret[2 * SEED_BYTES :], "big")
    if len(secret) != 2 * SEED_BYTES + 4 or deviation > MAX_DEVIATION:
        raise UpdateRefused("an update cannot be split: its secret is damaged", "It will not be sent.")
    return secret[:SEED_BYTES], ShareNoise(scale_deviations(deviation, schema()), secret[SEED_BYTES : 2 * SEED_BYTES])
