"""Brokers for the tests on real Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kstate.adapters.embedded_broker import EmbeddedBroker


@pytest.fixture
def private_broker() -> Iterator[EmbeddedBroker]:
    """A broker of the test's own, that it may kill, pause and restart."""
    with EmbeddedBroker() as broker:
        yield broker
