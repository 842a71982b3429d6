"""Brokers with a second door: behind a proxy, or for users with a password and limited rights.

The first listener is always plain and unlimited; tests talk to the broker through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from kstate.adapters.broker_setup import HOST, free_port
from kstate.adapters.embedded_broker import BrokerSettings, EmbeddedBroker
from tests.support.tcp_proxy import TcpProxy
from tests.support.topics import admin

USER, PASSWORD = "kstate-user", "pass-5af1c2"


@dataclass(frozen=True, slots=True)
class Door:
    """A second listener: its security protocol, the port it listens on and the one that clients are told."""

    protocol: str
    port: int
    advertised: int
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where clients are sent."""
        return f"{HOST}:{self.advertised}"


def with_door(door: Door) -> BrokerSettings:
    """Settings of a broker with this door beside the plain one."""
    plain, controller = free_port(), free_port()
    return BrokerSettings(
        port=plain,
        properties={
            "listeners": f"PLAINTEXT://{HOST}:{plain},DOOR://{HOST}:{door.port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{plain},DOOR://{HOST}:{door.advertised}",
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DOOR:{door.protocol}",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            **door.properties,
        },
    )


@contextmanager
def proxied_broker() -> Iterator[tuple[EmbeddedBroker, TcpProxy]]:
    """A broker and a proxy before its second listener: what is told the proxy's address never gets around it."""
    with TcpProxy() as proxy:
        door = Door("PLAINTEXT", free_port(), proxy.port)
        proxy.target = f"{HOST}:{door.port}"
        with EmbeddedBroker(with_door(door)) as broker:
            yield broker, proxy


@contextmanager
def guarded_broker() -> Iterator[tuple[EmbeddedBroker, str]]:
    """A broker that lets USER in with PASSWORD, allowed nothing but what a test grants; (broker, guarded address)."""
    port = free_port()
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    door = Door(
        "SASL_PLAINTEXT",
        port,
        port,
        {
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.door.plain.sasl.jaas.config": f'{module} required user_{USER}="{PASSWORD}";',
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        },
    )
    with EmbeddedBroker(with_door(door)) as broker:
        yield broker, door.address


def allow(bootstrap_servers: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
    """Grant USER operations on all resources whose name begins so."""
    _acl(bootstrap_servers, kind, name, AclPermissionType.ALLOW, *operations)


def deny(bootstrap_servers: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
    """Forbid them; a denial is stronger than any permission."""
    _acl(bootstrap_servers, kind, name, AclPermissionType.DENY, *operations)


def _acl(
    bootstrap_servers: str, kind: ResourceType, name: str, permission: AclPermissionType, *operations: AclOperation
) -> None:
    pattern = ResourcePatternType.LITERAL if name == "*" else ResourcePatternType.PREFIXED
    bindings = [AclBinding(kind, name, pattern, f"User:{USER}", "*", operation, permission) for operation in operations]
    client = admin(bootstrap_servers)
    for future in client.create_acls(bindings).values():
        future.result(30)
