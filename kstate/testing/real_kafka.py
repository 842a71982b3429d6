"""A real Kafka for tests: a container where Docker answers, otherwise the embedded broker, and it says which.

KSTATE_KAFKA_IMAGE      another image than apache/kafka
KSTATE_REQUIRE_DOCKER   1: fail rather than fall back to the embedded broker (continuous integration)
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kstate.adapters.embedded_broker import EmbeddedBroker
from kstate.errors import ConfigError

if TYPE_CHECKING:
    from testcontainers.core.docker_client import DockerClient

    from kstate.testing.kafka_container import KafkaContainer

DOCKER_SECONDS = 5  # a daemon that takes longer to answer a ping does not count as there


@dataclass(frozen=True, slots=True)
class KafkaUnderTest:
    """Where the tests' Kafka is and what it is.

    `cluster_id` was chosen at random for this start; a client that reads the same over the protocol talks to this very
    broker. `remark`: the container's image, or why there is no container.
    """

    bootstrap_servers: str
    cluster_id: str
    kind: Literal["container", "embedded"]
    container_id: str | None
    remark: str

    def __str__(self) -> str:
        what = f"container {(self.container_id or '')[:12]}" if self.kind == "container" else "embedded broker"
        return f"{what} at {self.bootstrap_servers}, cluster id {self.cluster_id} ({self.remark})"


def docker_required() -> bool:
    """Whether the run must not fall back to the embedded broker."""
    return os.environ.get("KSTATE_REQUIRE_DOCKER", "") not in {"", "0"}


@contextmanager
def real_kafka() -> Iterator[KafkaUnderTest]:
    """Start a broker for as long as the block lasts; raises ConfigError where Docker is required and does not serve."""
    container = _started_container()
    if isinstance(container, str):
        if docker_required():
            raise ConfigError(
                f"KSTATE_REQUIRE_DOCKER is set, but there is no Kafka container: {container}.",
                hint="start Docker, name an image in KSTATE_KAFKA_IMAGE, or unset KSTATE_REQUIRE_DOCKER",
            )
        with EmbeddedBroker() as broker:
            yield KafkaUnderTest(broker.bootstrap_servers, broker.cluster_id, "embedded", None, container)
        return
    try:
        name = container.get_wrapped_container().id
        yield KafkaUnderTest(container.bootstrap_servers, container.cluster_id, "container", name, container.image)
    finally:
        container.stop()


def _started_container() -> KafkaContainer | str:
    """A container that serves Kafka, or the reason why there is none."""
    try:
        from testcontainers.core.docker_client import DockerClient

        from kstate.testing.kafka_container import DEFAULT_IMAGE, KafkaContainer
    except ImportError as missing:
        return f"testcontainers is not installed: {missing}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the client of a silent Docker leaves sockets open
        silence = _silence(DockerClient)
        gc.collect()
    if silence is not None:
        return f"Docker does not answer: {silence}"
    container = KafkaContainer(os.environ.get("KSTATE_KAFKA_IMAGE") or DEFAULT_IMAGE)
    try:
        return container.start()
    except Exception as failed:  # noqa: BLE001 - whatever Docker has against it, the reason is shown
        if container._container is not None:  # noqa: SLF001 - started, but it did not get ready
            container.stop()
        return f"{container.image} does not run: {_short(failed)}"


def _silence(client: type[DockerClient]) -> str | None:
    """Why Docker does not answer, None when it does."""
    try:
        daemon = client(timeout=DOCKER_SECONDS).client
        daemon.ping()
        daemon.close()
    except Exception as silent:  # noqa: BLE001 - no socket, no right, no daemon: in any case no Docker
        return _short(silent)
    return None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
