"""The broker that the other integration tests share is the one that it claims to be."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from kstate.testing.real_kafka import KafkaUnderTest, docker_required

pytestmark = pytest.mark.integration


def test_the_broker_answers_with_the_cluster_id_that_was_chosen_for_this_start(kstate_kafka: KafkaUnderTest) -> None:
    """The id is random per start, so nothing else on the machine can answer with it."""
    client = AdminClient({"bootstrap.servers": kstate_kafka.bootstrap_servers})
    client.list_topics(timeout=10)  # a new client asks nobody for the id by itself
    seen = client.cluster_id(10)
    assert seen == kstate_kafka.cluster_id


def test_a_claimed_container_is_one_that_this_session_started_and_is_there_where_it_is_required(
    kstate_kafka: KafkaUnderTest,
) -> None:
    """The container was given, in its environment, the very cluster id that clients read from the broker."""
    if docker_required():
        assert kstate_kafka.kind == "container"
    assert (kstate_kafka.kind == "container") == (kstate_kafka.container_id is not None)
    if kstate_kafka.container_id is not None:
        from testcontainers.core.docker_client import DockerClient

        daemon = DockerClient().client
        container = daemon.containers.get(kstate_kafka.container_id)
        daemon.close()
        assert container.status == "running"
        assert f"CLUSTER_ID={kstate_kafka.cluster_id}" in container.attrs["Config"]["Env"]
