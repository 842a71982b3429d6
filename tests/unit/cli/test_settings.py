"""Settings from outside: which source wins, and what is refused."""

from pathlib import Path

import pytest

from kstate.cli.settings import FILE, load_settings, registry_setting
from kstate.config import Settings
from kstate.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, and a broker in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KSTATE_BOOTSTRAP_SERVERS", "environment:1")
    return tmp_path


def write(folder: Path, text: str) -> None:
    """Make kstate.toml."""
    (folder / FILE).write_text(text)


def test_the_command_line_comes_before_the_environment_before_the_file_before_the_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting from the highest place that gives it, also within a group."""
    write(
        folder,
        'bootstrap_servers = "file:1"\nstream_partitions = 3\n[failure]\nheartbeat_ms = 100\nheartbeats_missed = 9\n',
    )
    monkeypatch.setenv("KSTATE_FAILURE__HEARTBEAT_MS", "200")
    monkeypatch.setenv("KSTATE_DATA", "from-environment")
    loaded = load_settings("option:1", None).settings
    assert loaded.bootstrap_servers == "option:1"
    assert loaded.data == Path("from-environment")
    assert loaded.stream_partitions == 3
    assert (loaded.failure.heartbeat_ms, loaded.failure.heartbeats_missed) == (200, 9)
    assert loaded.state == Settings().state
    assert load_settings(None, Path("option")).settings.bootstrap_servers == "environment:1"


def test_an_epoch_given_from_outside_is_told_apart_from_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """It overrides the job's, also when it happens to be the default's value."""
    assert load_settings().epoch_ms is None
    monkeypatch.setenv("KSTATE_EPOCH__INTERVAL_MS", "1000")
    assert load_settings().epoch_ms == 1000


@pytest.mark.parametrize(
    ("variable", "fault"),
    [
        ("KSTATE_EPOCHS__INTERVAL_MS", "no group of settings is meant by KSTATE_EPOCHS__INTERVAL_MS.*epoch, failure"),
        ("KSTATE_EPOCH__INTERVAL", "epoch.interval: extra inputs are not permitted"),
    ],
)
def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, fault: str) -> None:
    """Else the default would rule silently."""
    monkeypatch.setenv(variable, "1000")
    with pytest.raises(ConfigError, match=fault):
        load_settings()


def test_a_plain_variable_with_our_prefix_may_be_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes sets these for a service that is called kstate."""
    monkeypatch.setenv("KSTATE_PORT", "tcp://10.0.0.1:80")
    assert load_settings().settings.bootstrap_servers == "environment:1"


def test_without_a_broker_the_message_names_kstate_dev(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody guesses localhost."""
    monkeypatch.delenv("KSTATE_BOOTSTRAP_SERVERS")
    with pytest.raises(ConfigError, match="kstate dev"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("stream_partition = 3\n", "stream_partition: extra inputs are not permitted"),
        ("[failure]\nheartbeat = 3\n", "failure.heartbeat: extra inputs are not permitted"),
        ('stream_partitions = "many"\n[epoch]\nrecords_max = "x"\n', "stream_partitions: .*epoch.records_max: "),
        ("stream_partitions = 0\n", "stream_partitions is 0"),
        ("= 3\n", "kstate.toml is no TOML"),
        ("", ""),
    ],
)
def test_a_faulty_file_is_refused_by_name(folder: Path, text: str, fault: str) -> None:
    """Misspelt names, wrong types (all of them at once), values out of range, no TOML."""
    write(folder, text)
    if not fault:
        load_settings()
        return
    with pytest.raises(ConfigError, match=fault) as caught:
        load_settings()
    assert "Mend:" in str(caught.value)


def test_client_properties_have_librdkafkas_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dots in the file, underscores in the environment; both together."""
    write(folder, '[client]\n"security.protocol" = "SASL_SSL"\n"sasl.username" = "file-user"\n')
    monkeypatch.setenv("KSTATE_CLIENT__SASL_USERNAME", "anna")
    monkeypatch.setenv("KSTATE_CLIENT__LOG_LEVEL", "3")
    assert load_settings().settings.client == {
        "security.protocol": "SASL_SSL",
        "sasl.username": "anna",
        "log_level": "3",
    }


def test_a_secret_in_the_file_is_refused(folder: Path) -> None:
    """Its name is told, its value is not."""
    write(folder, '[client]\n"sasl.password" = "hunter2"\n')
    with pytest.raises(ConfigError, match=r"secret sasl\.password") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_a_secret_may_be_referred_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By environment variable or by file; the environment itself may hold it."""
    (folder / "secret").write_text("from-file\n")
    monkeypatch.setenv("KAFKA_PASSWORD", "from-variable")
    write(folder, '[client]\n"sasl.password" = "env:KAFKA_PASSWORD"\n"ssl.key.password" = "file:secret"\n')
    client = load_settings().settings.client
    assert client == {"sasl.password": "from-variable", "ssl.key.password": "from-file"}
    monkeypatch.setenv("KSTATE_CLIENT__SASL_PASSWORD", "direct")
    assert load_settings().settings.client["sasl.password"] == "direct"


@pytest.mark.parametrize(("reference", "fault"), [("env:NOBODY_SET", "NOBODY_SET"), ("file:/nowhere", "/nowhere")])
def test_a_reference_that_leads_nowhere_is_named(folder: Path, reference: str, fault: str) -> None:
    """Which property, which place."""
    write(folder, f'[client]\n"sasl.password" = "{reference}"\n')
    with pytest.raises(ConfigError, match=rf"sasl\.password refers to .*{fault}"):
        load_settings()


def test_the_registry_is_a_folder_or_a_url(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file, over it the environment; it can be asked for without a broker."""
    assert load_settings().settings.registry == ""
    write(folder, 'registry = "schemas/registry"\n')
    assert load_settings().settings.registry == "schemas/registry"
    monkeypatch.setenv("KSTATE_REGISTRY", "https://me:secret@host:8081")
    settings = load_settings().settings
    assert settings.registry == "https://me:secret@host:8081"
    assert "secret" not in repr(settings)
    monkeypatch.delenv("KSTATE_BOOTSTRAP_SERVERS")
    assert registry_setting() == "https://me:secret@host:8081"


def test_a_registry_s_password_is_referred_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never stands in kstate.toml, and never in a message."""
    write(folder, 'registry = "https://me:secret@host"\n')
    with pytest.raises(ConfigError, match="holds the password") as raised:
        load_settings()
    assert "secret@" not in str(raised.value)
    write(folder, 'registry = "env:REGISTRY_URL"\n')
    with pytest.raises(ConfigError, match="setting registry refers to the environment variable REGISTRY_URL"):
        load_settings()
    monkeypatch.setenv("REGISTRY_URL", "https://me:secret@host")
    assert load_settings().settings.registry == "https://me:secret@host"
    folder.joinpath("url").write_text("https://me:other@host\n")
    write(folder, f'registry = "file:{folder / "url"}"\n')
    assert load_settings().settings.registry == "https://me:other@host"
