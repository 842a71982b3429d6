"""Settings from outside: command line over KSTATE_* over kstate.toml over the defaults of kstate.config.

    KSTATE_BOOTSTRAP_SERVERS=host:9092        bootstrap_servers = "host:9092"
    KSTATE_FAILURE__HEARTBEAT_MS=400          [failure]
                                              heartbeat_ms = 400
    KSTATE_CLIENT__SASL_PASSWORD=…            [client]
                                              "sasl.password" = "env:KAFKA_PASSWORD"
    KSTATE_REGISTRY=https://user:password@host    registry = "env:REGISTRY_URL"

Client properties are librdkafka's; in the name of an environment variable `_` stands for `.`. The registry is a folder
or a URL. A secret, and a URL that holds one, stands in the environment or in a file that is referred to (`env:NAME`,
`file:/path`), never in kstate.toml itself.
"""

from __future__ import annotations

import os
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from kstate.config import (
    EpochSettings,
    FailureSettings,
    QuerySettings,
    RebaseSettings,
    RecoverySettings,
    Settings,
    StateSettings,
    is_secret,
)
from kstate.errors import ConfigError

FILE = "kstate.toml"
"""Looked for in the working directory."""

Bootstrap = Annotated[str | None, typer.Option("--bootstrap", help="Kafka's bootstrap servers, host:port[,host:port].")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder of the local stores; default .kstate.")]

_PREFIX = "KSTATE_"
_GROUPS: dict[str, type[Any]] = {
    "epoch": EpochSettings,
    "state": StateSettings,
    "rebase": RebaseSettings,
    "failure": FailureSettings,
    "recovery": RecoverySettings,
    "queries": QuerySettings,
}


class _Sources(BaseSettings):
    """The environment over the file."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter="__", toml_file=FILE, extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the signature is the library's)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (as above)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings as given from outside; `epoch_ms` is the epoch's length where one was given: it overrides the job's."""

    settings: Settings
    epoch_ms: int | None


def load_settings(bootstrap: str | None = None, data: Path | None = None) -> Loaded:
    """The settings of this process, options of the command line first. Raises ConfigError that names every fault."""
    given = _given({"bootstrap_servers": bootstrap, "data": data})
    if not given.get("bootstrap_servers"):
        raise ConfigError(
            "No Kafka broker is named.",
            hint="give --bootstrap HOST:PORT or set KSTATE_BOOTSTRAP_SERVERS; "
            "`kstate dev` in another terminal starts a broker on this machine, from pip alone.",
        )
    epoch_ms = given.get("epoch", {}).get("interval_ms")
    groups = {name: kind(**given.pop(name, {})) for name, kind in _GROUPS.items()}
    known = {**given, **groups, "client": _client(given.get("client", {})), "registry": _registry(given)}
    return Loaded(Settings(**known), epoch_ms)


def registry_setting() -> str:
    """The registry of this process, empty when none is set: all that is asked of the settings before a broker is."""
    return _registry(_given({}))


def _given(options: Mapping[str, object]) -> dict[str, Any]:
    """What is set anywhere, options of the command line first."""
    _refuse_unknown_groups()
    try:
        read = _model()(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        raise _named(error) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{FILE} is no TOML: {error}.", hint=f"correct {Path(FILE).resolve()}.") from error
    given: dict[str, Any] = read.model_dump(exclude_unset=True, exclude_none=True)
    return given


def _refuse_unknown_groups() -> None:
    """pydantic-settings looks for the names it knows. Plain KSTATE_NAME may be anybody's: Kubernetes sets some."""
    named = {name: name.upper().removeprefix(_PREFIX).partition("__") for name in os.environ if _is_ours(name)}
    known = sorted({*_GROUPS, "client"})
    unknown = sorted(name for name, (group, nested, _) in named.items() if nested and group.lower() not in known)
    if unknown:
        raise ConfigError(
            f"Settings: no group of settings is meant by {', '.join(unknown)}.",
            hint=f"unset it; the groups are {', '.join(known)}, as in KSTATE_EPOCH__INTERVAL_MS.",
        )


def _is_ours(name: str) -> bool:
    return name.upper().startswith(_PREFIX)


def _model() -> type[_Sources]:
    """The settings as pydantic reads them: the fields of the dataclasses and no others; nothing has a default."""
    groups: dict[str, Any] = {name: (_group(kind) | None, None) for name, kind in _GROUPS.items()}
    return create_model(
        "Settings",
        __base__=_Sources,
        bootstrap_servers=(str | None, None),
        data=(Path | None, None),
        stream_partitions=(int | None, None),
        replication=(int | None, None),
        registry=(str | None, None),
        client=(dict[str, str] | None, None),
        **groups,
    )


def _group(kind: type[Any]) -> type[BaseModel]:
    hints = typing.get_type_hints(kind)
    found: dict[str, Any] = {f.name: (hints[f.name], f.default) for f in fields(kind)}
    return create_model(kind.__name__, __config__=ConfigDict(extra="forbid"), **found)


def _client(given: Mapping[str, str]) -> dict[str, str]:
    """Client properties by librdkafka's names, references to secrets resolved."""
    properties = {_property(name): value for name, value in given.items()}
    open_secrets = sorted(name for name in _file_client() if is_secret(name) and not _is_reference(properties[name]))
    if open_secrets:
        raise ConfigError(
            f"{FILE} holds the secret {', '.join(open_secrets)} itself.",
            hint='refer to it, as in "sasl.password" = "env:KAFKA_PASSWORD" or "file:/run/secrets/kafka", '
            "or set KSTATE_CLIENT__SASL_PASSWORD.",
        )
    return {name: _resolved(name, value) for name, value in properties.items()}


def _file_client() -> dict[str, str]:
    """Client properties that stand in the file and not in the environment."""
    path = Path(FILE)
    table = tomllib.loads(path.read_text("utf-8")).get("client", {}) if path.exists() else {}
    prefix = "KSTATE_CLIENT__"
    overridden = {_property(name.removeprefix(prefix)) for name in os.environ if name.startswith(prefix)}
    names = {_property(name): value for name, value in table.items()}
    return {name: value for name, value in names.items() if name not in overridden}


def _registry(given: Mapping[str, Any]) -> str:
    """The registry's URL or folder, the reference to it resolved."""
    place = str(given.get("registry", ""))
    in_file = "KSTATE_REGISTRY" not in {name.upper() for name in os.environ}
    if in_file and "@" in urlsplit(place).netloc:
        raise ConfigError(
            f"{FILE} holds the password of the schema registry itself.",
            hint='refer to the URL, as in registry = "env:REGISTRY_URL" or "file:/run/secrets/registry", '
            "or set KSTATE_REGISTRY.",
        )
    return _resolved("registry", place)


def _property(name: str) -> str:
    """The name of a client property as librdkafka has it; one of them has an underscore."""
    dotted = name.lower().replace("_", ".")
    return "log_level" if dotted == "log.level" else dotted


def _is_reference(value: str) -> bool:
    return value.startswith(("env:", "file:"))


def _resolved(name: str, value: str) -> str:
    kind, _, place = value.partition(":")
    if kind == "env" and _is_reference(value):
        if place not in os.environ:
            raise ConfigError(
                f"The setting {name} refers to the environment variable {place}, which is not set.",
                hint="set it, or refer to another one.",
            )
        return os.environ[place]
    if kind == "file" and _is_reference(value):
        try:
            return Path(place).read_text("utf-8").strip()
        except OSError as error:
            raise ConfigError(
                f"The setting {name} refers to the file {place}: {error.strerror}.",
                hint="correct the path, or let this user read the file.",
            ) from error
    return value


def _named(error: ValidationError) -> ConfigError:
    faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}" for fault in error.errors()]
    return ConfigError(
        f"Settings: {'; '.join(faults)}.", hint=f"correct {FILE}, the variables KSTATE_* or the options of the command."
    )
