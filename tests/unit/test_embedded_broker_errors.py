"""What a person reads when the embedded broker cannot start, and that nothing is left behind."""

from __future__ import annotations

import hashlib
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from kstate.adapters import embedded_broker, kafka_jars
from kstate.adapters.broker_log import LogTail, PortInUseError, explain
from kstate.adapters.broker_setup import free_port, new_cluster_id, open_folder, require_free, server_properties
from kstate.adapters.embedded_broker import BrokerSettings, EmbeddedBroker
from kstate.adapters.guard import GuardedProcess
from kstate.adapters.kafka_jars import PinnedJar, pinned_jars
from kstate.errors import ConfigError, KstateError, RetryableError

DiskUsage = namedtuple("DiskUsage", "total used free")


@pytest.fixture
def no_jars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded, and a Java that starts anyway finds no broker."""
    monkeypatch.setattr(embedded_broker, "kafka_jars", lambda on_progress: [])


@pytest.mark.usefixtures("no_jars")
def test_a_port_in_use_is_named_with_the_mend_before_java_starts(tmp_path: Path) -> None:
    """The check costs nothing and the message says which port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"Port {port} is in use.*any free port"):
            EmbeddedBroker(BrokerSettings(port=port, data=tmp_path)).start()


@pytest.mark.usefixtures("no_jars")
def test_a_data_folder_that_is_a_file_is_refused_by_name(tmp_path: Path) -> None:
    """Not writable, not a folder, not there: one kind of error that names the folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write to its data folder .*file"):
        EmbeddedBroker(BrokerSettings(data=tmp_path / "file")).start()


def test_a_full_disk_is_refused_with_what_is_left_and_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka itself would fail later, in the middle of a transaction."""
    monkeypatch.setattr(
        "kstate.adapters.broker_setup.shutil.disk_usage", lambda folder: DiskUsage(1 << 30, 1 << 30, 5 << 20)
    )
    with pytest.raises(ConfigError, match="has 5 MiB left, the embedded broker needs 200"):
        open_folder(tmp_path)


def test_a_throwaway_folder_is_made_only_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """No empty folders are left behind by starts that cannot succeed."""
    monkeypatch.setattr("kstate.adapters.broker_setup.shutil.disk_usage", lambda folder: DiskUsage(1, 1, 0))
    monkeypatch.setattr(
        "kstate.adapters.broker_setup.tempfile.mkdtemp", lambda prefix: pytest.fail("a folder was made")
    )
    with pytest.raises(ConfigError, match="MiB left"):
        open_folder(None)


@pytest.mark.parametrize(
    ("log", "kind", "says"),
    [
        ("org.apache.kafka.common.KafkaException: Address already in use", PortInUseError, "Port 9092 is in use"),
        ("java.io.IOException: No space left on device", ConfigError, "disk of /data is full"),
        ("Failed to acquire lock on file .lock in /data", ConfigError, "Another broker runs on the data folder /data"),
        ("Could not reserve enough space for object heap", ConfigError, "lower heap_mb"),
        ("java.lang.OutOfMemoryError: Java heap space", ConfigError, "raise heap_mb"),
        ("java.nio.file.AccessDeniedException: /data/x", ConfigError, "may not write to /data"),
        ("first\nInvalid value 0 for configuration num.io.threads", ConfigError, "num.io.threads"),
    ],
)
def test_the_log_of_a_broker_that_ended_becomes_an_error_with_a_mend(
    log: str, kind: type[KstateError], says: str
) -> None:
    """What is known is explained, everything else is shown as the last lines of the log."""
    error = explain(log, Path("/data"), 9092)
    assert type(error) is kind
    assert says in str(error)
    assert error.hint


def test_the_log_of_an_earlier_start_explains_nothing(tmp_path: Path) -> None:
    """Otherwise yesterday's full disk would be reported for ever."""
    broker, java = tmp_path / "broker.log", tmp_path / "java.log"
    broker.write_text("No space left on device\n")
    tail = LogTail(broker, java)
    java.write_text("new\n")
    assert tail.text() == "new\n"
    broker.write_text("x\n")  # rolled over: shorter than before
    assert tail.text() == "x\nnew\n"


def test_a_program_that_does_not_exist_is_an_error_and_leaves_no_guard(tmp_path: Path) -> None:
    """The guard could not start its child: the reason is in the output file."""
    with pytest.raises(OSError, match="could not be started"):
        GuardedProcess([str(tmp_path / "no-java")], output=tmp_path / "out")
    assert "FileNotFoundError" in (tmp_path / "out").read_text()


def test_free_ports_lie_outside_the_range_of_outgoing_connections_and_are_free() -> None:
    """A client that keeps trying a stopped broker must not be given the broker's port as its own."""
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 1
    assert all(15_000 <= port <= 32_000 for port in ports)
    for port in ports:
        require_free(port)


def test_cluster_ids_are_random_and_never_look_like_an_option() -> None:
    """A leading dash would end the format tool with a usage message."""
    ids = {new_cluster_id() for _ in range(500)}
    assert len(ids) == 500
    assert all(len(name) == 22 and not name.startswith("-") for name in ids)


def test_a_users_own_broker_settings_win() -> None:
    """`properties` is the escape hatch for whatever a test needs."""
    settings = server_properties((1, 2), Path("/data"), {"auto.create.topics.enable": "true"})
    assert settings["auto.create.topics.enable"] == "true"
    assert settings["listeners"] == "PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2"


def test_the_lock_file_pins_one_kafka_and_one_version_of_each_jar() -> None:
    """A second version of kafka-clients on the class path would win or lose by the order of files."""
    jars = list(pinned_jars())
    names = [jar.coordinate.rsplit(":", 1)[0] for jar in jars]
    assert len(names) == len(set(names)) > 40
    kafka = {jar.coordinate.rsplit(":", 1)[1] for jar in jars if jar.coordinate.startswith("org.apache.kafka:")}
    assert kafka == {kafka_jars.KAFKA_VERSION}


class FakeMaven:
    """A repository that serves one jar after `torn` answers that are cut short."""

    def __init__(self, torn: int = 0, error: Exception | None = None) -> None:
        self.torn, self.error, self.asked = torn, error, 0

    def __call__(self, jar: PinnedJar, staging: Path, mirrors: dict[str, str]) -> None:
        self.asked += 1
        if self.error:
            raise self.error
        path = jar.path_in(staging)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"ja" if self.asked <= self.torn else b"jar")


JAR = PinnedJar("org.example:a:1", 3, hashlib.sha256(b"jar").hexdigest())


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that needs one jar."""
    monkeypatch.setattr(kafka_jars, "pinned_jars", lambda: iter([JAR]))
    monkeypatch.setattr(
        kafka_jars, "_repositories", lambda: (tmp_path / "m2", {"central": "https://repository.invalid"})
    )
    return tmp_path / "m2"


def test_a_torn_download_is_fetched_again_and_progress_is_told(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an intact jar reaches the cache, and the next start downloads nothing."""
    maven, told = FakeMaven(torn=1), list[tuple[int, int]]()
    monkeypatch.setattr(kafka_jars, "_ask_jgo", maven)
    assert [path.read_bytes() for path in kafka_jars.kafka_jars(lambda *step: told.append(step))] == [b"jar"]
    assert (maven.asked, told) == (2, [(0, 3), (3, 3)])
    kafka_jars.kafka_jars()
    assert maven.asked == 2
    assert [path.name for path in repository.iterdir()] == ["org"]


def test_a_damaged_jar_in_the_cache_is_replaced(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program's interrupted download would otherwise stop every broker."""
    monkeypatch.setattr(kafka_jars, "_ask_jgo", FakeMaven())
    (path,) = kafka_jars.kafka_jars()
    path.write_bytes(b"jax")
    (path,) = kafka_jars.kafka_jars()
    assert path.read_bytes() == b"jar"
    assert path.is_relative_to(repository)


def test_a_failed_download_names_jar_repository_and_reason(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline machines are common: the message says what else can be done."""
    monkeypatch.setattr(kafka_jars, "_ask_jgo", FakeMaven(error=OSError("no route to host")))
    with pytest.raises(RetryableError, match=r"org.example:a:1.*repository\.invalid: no route.*BOOTSTRAP_SERVERS"):
        kafka_jars.kafka_jars()
    assert list(repository.iterdir()) == []


def test_a_full_disk_stops_the_download_at_once(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying again does not make room."""
    maven = FakeMaven(error=OSError(28, "No space left on device"))
    monkeypatch.setattr(kafka_jars, "_ask_jgo", maven)
    with pytest.raises(ConfigError, match="No room left"):
        kafka_jars.kafka_jars()
    assert maven.asked == 1
