"""Brokers for the tests on real Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kstate.adapters.embedded_broker import EmbeddedBroker
from kstate.testing.real_kafka import docker_required


@pytest.fixture
def private_broker() -> Iterator[EmbeddedBroker]:
    """A broker of the test's own, that it may kill, pause and restart."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(autouse=True)
def broker_of_the_container(request: pytest.FixtureRequest) -> None:
    """Where Docker is required, each test on the shared broker asserts that it is the session's container."""
    if docker_required() and "kstate_kafka" in request.fixturenames:
        from tests.support.containers import assert_runs_in_its_container

        assert_runs_in_its_container(request.getfixturevalue("kstate_kafka"))
