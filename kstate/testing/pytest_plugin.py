"""pytest fixtures for jobs on kstate; loaded in every pytest run of an environment with kstate, hence cheap.

kstate_kafka    a real Kafka for the session, see kstate.testing.real_kafka
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kstate.testing.real_kafka import KafkaUnderTest

KAFKA_OF_SESSION: pytest.StashKey[KafkaUnderTest] = pytest.StashKey()


@pytest.fixture(scope="session")
def kstate_kafka(pytestconfig: pytest.Config) -> Iterator[KafkaUnderTest]:
    """A real Kafka broker: a container where Docker answers, otherwise the embedded one."""
    from kstate.testing.real_kafka import real_kafka

    with real_kafka() as kafka:
        pytestconfig.stash[KAFKA_OF_SESSION] = kafka
        yield kafka


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which Kafka the tests ran against."""
    kafka = config.stash.get(KAFKA_OF_SESSION, None)
    if kafka is not None:
        terminalreporter.write_line(f"kstate_kafka: {kafka}")
