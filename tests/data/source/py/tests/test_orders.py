"""Sample: orders of a shop that does not exist."""
import time

import pytest


def helper(clock):
    return clock.tick()


def test_order_is_shipped(warehouse, tmp_path):
    # ghostword lives in a comment and is no word of this test
    parcel = warehouse.pack("brass kettle")
    text = """
def test_not_a_function():
    phantom = 1
"""
    def confirm():
        return parcel.label
    assert confirm() and text


@pytest.mark.parametrize(
    "count",
    [1, 2],
)
def test_many(count):
    total = [
count for _ in range(count)
    ]
    time.sleep(len(total))


class TestRefund:
    currency = "EUR"

    async def test_is_paid(self, ledger):
        await ledger.settle(self.currency)

    def test_many(self):
        assert refund_many()

    class TestPartial:
        def test_half(self):
            halves()


def test_last():
    closing_words()
