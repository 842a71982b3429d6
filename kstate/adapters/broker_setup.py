"""Where a broker of one small node lives: its settings, its folder, its ports, its cluster id."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kstate.adapters.broker_log import PortInUseError
from kstate.errors import ConfigError

HOST = "127.0.0.1"
FREE_MIB_MIN = 200  # empty logs and indexes of a few topics
PORTS_MIN, PORTS_MAX = 15_000, 32_000  # below the ports that systems give to outgoing connections

SMALL_CLUSTER: Final[Mapping[str, str]] = {
    # one node keeps one copy
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # few internal partitions: less to open at a start
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    # a lost broker is noticed, and a restarted one serves, within seconds
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    # a misspelt topic is an error, not a new topic
    "auto.create.topics.enable": "false",
    # small threads and buffers
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": "8388608",
}
"""Broker settings that suit one small node; the container of the tests uses the same."""

LOGGING = """\
appender.file.type = RollingFile
appender.file.name = FILE
appender.file.fileName = ${sys:kstate.log}
appender.file.filePattern = ${sys:kstate.log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d] %p %m (%c)%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 16MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 1
rootLogger.level = INFO
rootLogger.appenderRef.file.ref = FILE
"""


def free_port() -> int:
    """A port on which nobody listens now, outside the range from which systems take ports for outgoing connections.

    A client that keeps trying a stopped broker's port of that range may one day be given the very same port as its own,
    connect to itself and block the broker's restart.
    """
    for _ in range(100):
        port = random.randint(PORTS_MIN, PORTS_MAX)
        with contextlib.suppress(OSError):
            _bind(port)
            return port
    raise ConfigError(f"No free port was found between {PORTS_MIN} and {PORTS_MAX}.", hint="name a port")


def require_free(port: int) -> None:
    """Raise ConfigError unless a broker can listen on the port."""
    try:
        _bind(port)
    except PermissionError as denied:
        raise ConfigError(
            f"Port {port} is reserved to the system's administrator.", hint="name one >= 1024"
        ) from denied
    except OSError as taken:
        raise PortInUseError(port) from taken


def open_folder(data: Path | None) -> Path:
    """The broker's folder, made if need be, writable and with room."""
    folder = data.absolute() if data else Path(tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free_mib = shutil.disk_usage(folder).free >> 20
        if free_mib >= FREE_MIB_MIN:
            return folder if data else Path(tempfile.mkdtemp(prefix="kstate-kafka-"))
    except OSError as unwritable:
        raise ConfigError(
            f"The embedded broker cannot write to its data folder {folder}: {unwritable.strerror or unwritable}.",
            hint="name a folder that this user may write to",
        ) from unwritable
    raise ConfigError(
        f"The disk of {folder} has {free_mib} MiB left, the embedded broker needs {FREE_MIB_MIN}.",
        hint="free some space, or name a folder on another disk",
    )


def server_properties(ports: tuple[int, int], data: Path, own: Mapping[str, str]) -> dict[str, str]:
    """The broker's settings: (client port, controller port), the folder of its logs, and what overrides ours."""
    client, controller = ports
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{client},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{client}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data.as_posix(),
        **SMALL_CLUSTER,
        **own,
    }


def new_cluster_id() -> str:
    """A random UUID as Kafka writes it: URL-safe base64, no padding, no leading dash (it would look like an option)."""
    text = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return new_cluster_id() if text.startswith("-") else text


def _bind(port: int) -> None:
    with socket.socket() as probe:
        if os.name == "posix":  # as Java does: ports of connections just closed are free; on Windows it means "share"
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
