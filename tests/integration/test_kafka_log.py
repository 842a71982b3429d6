"""The log on real Kafka: the contract, and what only a real broker shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient

from kstate.adapters.kafka import KafkaLog
from kstate.clock import SystemClock
from kstate.config import Settings
from kstate.plan import TopicPartition
from tests.contract.log_contract import DeleteBefore, DeleteTopic
from tests.contract.places_contract import PlacesContract

if TYPE_CHECKING:
    from kstate.testing.real_kafka import KafkaUnderTest

pytestmark = pytest.mark.integration


@pytest.fixture
def log(kstate_kafka: KafkaUnderTest) -> KafkaLog:
    """A log on the session's broker."""
    return KafkaLog(Settings(bootstrap_servers=kstate_kafka.bootstrap_servers), SystemClock())


@pytest.fixture
def admin(kstate_kafka: KafkaUnderTest) -> AdminClient:
    """An administrator of the session's broker."""
    return AdminClient({"bootstrap.servers": kstate_kafka.bootstrap_servers})


class TestKafkaLog(PlacesContract):
    """The contract over a real broker."""

    @pytest.fixture
    def delete_before(self, admin: AdminClient) -> DeleteBefore:
        """DeleteRecords."""

        def delete(source: TopicPartition, offset: int) -> None:
            futures = admin.delete_records([ClientPartition(source.topic, source.partition, offset)])
            for future in futures.values():
                future.result(10)

        return delete

    @pytest.fixture
    def delete_topic(self, admin: AdminClient) -> DeleteTopic:
        """Somebody deletes a topic."""

        def delete(topic: str) -> None:
            for future in admin.delete_topics([topic]).values():
                future.result(10)

        return delete
