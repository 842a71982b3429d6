"""A one-node Kafka in a container: apache/kafka, or whatever image KSTATE_KAFKA_IMAGE names.

Not testcontainers' own KafkaContainer: that one needs the scripts of another vendor's image.
"""

from __future__ import annotations

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from kstate.adapters.broker_setup import SMALL_CLUSTER, free_port, new_cluster_id
from kstate.adapters.kafka_jars import KAFKA_VERSION

DEFAULT_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
CLIENT_PORT = 9092  # inside the container


class KafkaContainer(DockerContainer):
    """Kafka on a host port that is fixed before the start, so that it survives a restart of the container.

    The broker talks to itself through a listener of its own: inside the container the clients' address leads nowhere,
    and transactions would time out.
    """

    def __init__(self, image: str = DEFAULT_IMAGE) -> None:
        super().__init__(image)
        self.cluster_id = new_cluster_id()
        self.port = free_port()
        host = self.get_docker_client().host()
        self.host = "127.0.0.1" if host == "localhost" else host  # no detour over IPv6, where nobody listens
        settings = {
            **SMALL_CLUSTER,
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": "1@localhost:9093",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://:{CLIENT_PORT},BROKER://:9094,CONTROLLER://:9093",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "BROKER",
            "advertised.listeners": f"PLAINTEXT://{self.host}:{self.port},BROKER://localhost:9094",
            "log.dirs": "/var/lib/kafka/data",
        }
        for name, value in settings.items():
            self.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
        self.with_env("CLUSTER_ID", self.cluster_id)
        self.with_env("KAFKA_HEAP_OPTS", "-Xmx512m")
        self.with_bind_ports(CLIENT_PORT, self.port)
        self.waiting_for(
            LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(90).with_poll_interval(0.2)
        )

    @property
    def bootstrap_servers(self) -> str:
        """host:port for clients."""
        return f"{self.host}:{self.port}"
