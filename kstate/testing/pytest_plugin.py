"""pytest fixtures for jobs on kstate; loaded in every pytest run of an environment with kstate, hence cheap.

kstate_driver   makes drivers for tests of operators, see kstate.testing.driver
kstate_kafka    a real Kafka for the session, see kstate.testing.real_kafka
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kstate.api.job import Job
    from kstate.testing.driver import Driver
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


@pytest.fixture
def kstate_driver() -> Iterator[Callable[..., Driver]]:
    """Make a running driver of a job, `kstate_driver(job, workers=1)`; it is checked and closed when the test ends."""
    from kstate.testing.driver import Driver

    drivers: list[Driver] = []

    def start(job: Job, workers: int = 1) -> Driver:
        drivers.append(Driver(job, workers=workers).__enter__())
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.close()
