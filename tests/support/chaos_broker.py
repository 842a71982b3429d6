"""The broker of a chaos run: a container where Docker answers, otherwise the embedded one, with doors behind proxies.

A door is a listener of its own that advertises a proxy's address: a process that is sent there never gets around the
proxy. The first listener is plain and direct.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kstate.adapters.broker_setup import HOST, free_port
from kstate.adapters.embedded_broker import BrokerSettings, EmbeddedBroker
from kstate.testing.real_kafka import _short, _silence, docker_required
from tests.support.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from kstate.testing.kafka_container import KafkaContainer

HEAP_MB = 768
STOP_SECONDS = 90
"""A broker that does not end in order within that time would have to be killed, and a single node that is killed may
leave a transaction hanging for good, which is Kafka's own defect: the run would prove nothing."""


class Machine(Protocol):
    """What a broker runs on: stopped in order, and started again on the same port and data."""

    def stop(self) -> None: ...

    def start(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ChaosBroker:
    """A broker, what it runs on, and the proxies before its doors."""

    servers: str
    kind: str
    machine: Machine
    proxies: tuple[TcpProxy, ...]


class _Embedded:
    """The embedded broker, given the time that an orderly stop takes on a machine that is busy."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker

    def stop(self) -> None:
        process = self._broker._process
        assert process is not None
        code = process.stop(STOP_SECONDS)
        self._broker._process = None
        assert code != -9, f"the broker did not stop in order within {STOP_SECONDS} s"

    def start(self) -> None:
        self._broker.start()


class _Container:
    """The container, stopped and started in place."""

    def __init__(self, container: KafkaContainer) -> None:
        self._container = container

    def stop(self) -> None:
        self._container.get_wrapped_container().stop(timeout=STOP_SECONDS)

    def start(self) -> None:
        self._container.get_wrapped_container().start()


@contextmanager
def chaos_broker(doors: int) -> Iterator[ChaosBroker]:
    """A broker with so many doors for as long as the block lasts."""
    with ExitStack() as stack:
        proxies = tuple(stack.enter_context(TcpProxy()) for _ in range(doors))
        inner = [free_port() for _ in proxies]
        for proxy, port in zip(proxies, inner, strict=True):
            proxy.target = f"{HOST}:{port}"
        container = _container(inner, proxies)
        if not isinstance(container, str):
            stack.callback(container.stop)
            yield ChaosBroker(container.bootstrap_servers, "container", _Container(container), proxies)
            return
        assert not docker_required(), f"KSTATE_REQUIRE_DOCKER is set, but there is no container: {container}"
        broker = stack.enter_context(EmbeddedBroker(_settings(inner, proxies)))
        yield ChaosBroker(broker.bootstrap_servers, "embedded broker", _Embedded(broker), proxies)


def _settings(inner: list[int], proxies: tuple[TcpProxy, ...]) -> BrokerSettings:
    """The embedded broker's."""
    plain, controller = free_port(), free_port()
    doors = range(len(inner))
    listeners = [f"PLAINTEXT://{HOST}:{plain}", *(f"DOOR{n}://{HOST}:{inner[n]}" for n in doors)]
    advertised = [f"PLAINTEXT://{HOST}:{plain}", *(f"DOOR{n}://{proxies[n].address}" for n in doors)]
    return BrokerSettings(
        port=plain,
        heap_mb=HEAP_MB,
        long_lived=True,
        properties={
            "listeners": ",".join([*listeners, f"CONTROLLER://{HOST}:{controller}"]),
            "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": _protocols(len(inner)),
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
        },
    )


def _protocols(doors: int) -> str:
    names = ["PLAINTEXT", "CONTROLLER", "BROKER", *(f"DOOR{n}" for n in range(doors))]
    return ",".join(f"{name}:PLAINTEXT" for name in names)


def _container(inner: list[int], proxies: tuple[TcpProxy, ...]) -> KafkaContainer | str:
    """A container that serves, or the reason why there is none."""
    from testcontainers.core.docker_client import DockerClient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the client of a silent Docker leaves sockets open
        silence = _silence(DockerClient)
        gc.collect()
        if silence is not None:
            return f"Docker does not answer: {silence}"
        container = _with_doors(inner, proxies)
        try:
            return container.start()
        except Exception as failed:  # noqa: BLE001 - whatever Docker has against it, the reason is shown
            if container._container is not None:
                container.stop()
            return f"{container.image} does not run: {_short(failed)}"


def _with_doors(inner: list[int], proxies: tuple[TcpProxy, ...]) -> KafkaContainer:
    """The container of the tests with more listeners, each published on a port of this machine."""
    from kstate.testing.kafka_container import CLIENT_PORT, DEFAULT_IMAGE, KafkaContainer

    container = KafkaContainer(os.environ.get("KSTATE_KAFKA_IMAGE") or DEFAULT_IMAGE)
    doors = range(len(inner))
    ports = [9100 + n for n in doors]
    listeners = [f"PLAINTEXT://:{CLIENT_PORT}", "BROKER://:9094", "CONTROLLER://:9093"]
    advertised = [f"PLAINTEXT://{container.bootstrap_servers}", "BROKER://localhost:9094"]
    container.with_env("KAFKA_LISTENERS", ",".join([*listeners, *(f"DOOR{n}://:{ports[n]}" for n in doors)]))
    container.with_env(
        "KAFKA_ADVERTISED_LISTENERS", ",".join([*advertised, *(f"DOOR{n}://{proxies[n].address}" for n in doors)])
    )
    container.with_env("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", _protocols(len(inner)))
    container.with_env("KAFKA_HEAP_OPTS", f"-Xmx{HEAP_MB}m")
    for n in doors:
        container.with_bind_ports(ports[n], inner[n])
        proxies[n].target = f"{container.host}:{inner[n]}"
    return container
