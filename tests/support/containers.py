"""Proof that a test talks to the very container that the session started, and to nothing else on the machine."""

from __future__ import annotations

from testcontainers.core.docker_client import DockerClient

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.topics import admin


def cluster_id_told_by(bootstrap_servers: str) -> str:
    """The cluster id, asked from the broker over Kafka's protocol."""
    client = admin(bootstrap_servers)
    client.list_topics(timeout=10)  # a new client asks nobody for the id by itself
    return client.cluster_id(10)


def assert_runs_in_its_container(kafka: KafkaUnderTest) -> None:
    """The running container was given, at its start, the random cluster id that the broker tells its clients."""
    assert kafka.kind == "container", f"a container is required, but the tests got {kafka}"
    assert kafka.container_id is not None
    daemon = DockerClient().client
    container = daemon.containers.get(kafka.container_id)
    daemon.close()
    assert container.status == "running"
    given = dict(setting.split("=", 1) for setting in container.attrs["Config"]["Env"])
    assert cluster_id_told_by(kafka.bootstrap_servers) == given["CLUSTER_ID"] == kafka.cluster_id
