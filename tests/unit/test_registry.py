"""Schema registries: one contract for folder and service, and how each of them fails."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from socket import socket

import pytest
from fastavro import parse_schema

from kstate import ConfigError
from kstate.adapters import registry_http
from kstate.adapters.registry import open_registry
from kstate.adapters.registry_folder import FolderRegistry
from kstate.adapters.registry_http import HttpRegistry
from kstate.errors import RetryableError
from kstate.interfaces import Registry
from kstate.schemas import canonical
from tests.support.registry_server import RegistryServer, Schemas, registry_server


def schema(*fields: str, **defaults: object) -> str:
    """A record of longs; fields with a default by name."""
    found: list[dict[str, object]] = [{"name": name, "type": "long"} for name in fields]
    found += [{"name": name, "type": "long", "default": value} for name, value in defaults.items()]
    return canonical({"type": "record", "name": "R", "fields": found})


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    """Empty."""
    with registry_server() as made:
        yield made


@pytest.fixture(params=["folder", "service"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """Either of them, empty."""
    if request.param == "service":
        return HttpRegistry(request.getfixturevalue("server").url)
    opened = open_registry(str(tmp_path))
    assert isinstance(opened, FolderRegistry)
    return opened


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated requests follow at once."""
    monkeypatch.setattr(registry_http, "PAUSES_SECONDS", (0.0, 0.0))


def test_what_was_registered_is_found_by_its_id(registry: Registry) -> None:
    """Whatever else stands there."""
    one, two = registry.register("a-value", schema("x")), registry.register("b-value", '"string"')
    assert one != two
    assert canonical(json.loads(registry.schema(one) or "")) == schema("x")
    assert canonical(json.loads(registry.schema(two) or "")) == '"string"'


def test_a_schema_keeps_its_id(registry: Registry) -> None:
    """However often it is registered, and after others."""
    first = registry.register("a-value", schema("x"))
    second = registry.register("a-value", schema("x", y=0))
    assert first != second
    assert [registry.register("a-value", schema("x", y=0)), registry.register("a-value", schema("x"))] == [
        second,
        first,
    ]


def test_an_id_that_is_not_there_has_no_schema(registry: Registry) -> None:
    """None, not an error: it is the record's fault."""
    assert registry.schema(4_000_000_000) is None


def test_an_incompatible_schema_is_refused_and_nothing_is_registered(registry: Registry) -> None:
    """With the registry's reason, and the subject's name."""
    first = registry.register("a-value", schema("x"))
    with pytest.raises(ConfigError) as raised:
        registry.register("a-value", schema("x", "y"))
    assert "'a-value'" in str(raised.value)
    assert "default" in str(raised.value).lower()
    assert registry.schema(first + 1) is None
    assert registry.register("b-value", schema("x", "y")) > first


# The folder


def test_the_folder_is_made_for_people(tmp_path: Path) -> None:
    """One readable file per id, its subject in it; files may be added by hand."""
    tmp_path.joinpath("7.avsc").write_text('{"type": "long", "doc": "by hand"}')
    assert FolderRegistry(tmp_path).register("a-value", schema("x")) == 8
    text = tmp_path.joinpath("8.avsc").read_text()
    assert text.startswith('{\n  "subject": "a-value",\n')
    assert canonical(json.loads(text)) == schema("x")
    assert canonical(json.loads(FolderRegistry(tmp_path).schema(7) or "")) == '"long"'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7.avsc", "8.avsc"]


def test_ids_are_given_once_whoever_registers_at_the_same_time(tmp_path: Path) -> None:
    """Workers that start together, with the same schemas and with different ones."""
    gate = threading.Barrier(8)
    ids: list[tuple[str, int]] = []

    def register(number: int) -> None:
        gate.wait()
        subjects = ("shared", f"own-{number}")
        ids.extend((each, FolderRegistry(tmp_path).register(each, schema(f"f{each[:3]}"))) for each in subjects)

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 16
    assert len({number for subject, number in ids if subject == "shared"}) == 1
    assert len({number for _, number in ids}) == 9
    assert len(list(tmp_path.iterdir())) == 9


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [("orders.avsc", '"long"', "not named by an id"), ("3.avsc", "{", "is no Avro schema"), ("04.avsc", "1", "no")],
)
def test_a_file_that_does_not_belong_there_is_named(tmp_path: Path, name: str, text: str, reason: str) -> None:
    """Before an id is given."""
    tmp_path.joinpath(name).write_text(text)
    with pytest.raises(ConfigError, match=reason) as raised:
        FolderRegistry(tmp_path).register("a-value", schema("x"))
    assert name in str(raised.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """It is not created in the wrong place."""
    for ask in (
        lambda: FolderRegistry(tmp_path / "no").schema(1),
        lambda: FolderRegistry(tmp_path / "no").register("s", "1"),
    ):
        with pytest.raises(ConfigError, match=r"is no folder.*create it"):
            ask()


def test_a_folder_that_may_not_be_written_says_what_to_add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read-only mounts are usual; then ids are added by hand, and found."""

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", denied)
    with pytest.raises(ConfigError, match="Permission denied") as raised:
        FolderRegistry(tmp_path).register("a-value", schema("x"))
    tmp_path.joinpath("1.avsc").write_text(str(raised.value).partition("its content is\n")[2])
    assert FolderRegistry(tmp_path).register("a-value", schema("x")) == 1


# The service


def test_an_id_is_asked_for_once(server: RegistryServer) -> None:
    """Its schema never changes."""
    number = server.schemas.add("a-value", schema("x"))
    registry = HttpRegistry(server.url)
    assert registry.schema(number) == registry.schema(number) == schema("x")
    assert server.requests == [f"GET /schemas/ids/{number}"]


def test_an_id_that_is_not_there_is_asked_for_again_after_a_while(
    server: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for every record; but a follower may lag behind its leader."""
    registry = HttpRegistry(server.url)
    assert registry.schema(1) is None is registry.schema(1)
    assert len(server.requests) == 1
    server.schemas.add("a-value", schema("x"))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + registry_http.MISSING_SECONDS + 1)
    assert registry.schema(1) == schema("x")


def test_bytes_that_are_no_ids_do_not_flood_the_registry(server: RegistryServer) -> None:
    """A topic of other bytes would ask for another id with each record."""
    registry = HttpRegistry(server.url)
    assert [registry.schema(number) for number in range(1_000)] == [None] * 1_000
    assert len(server.requests) == registry_http.MISSING_MAX


def test_a_schema_that_differs_in_its_documentation_is_the_registered_one(server: RegistryServer) -> None:
    """Classes do not keep `doc`: nothing needs to be registered, nothing may have to be allowed."""
    documented = {**json.loads(schema("x")), "doc": "An R."}
    number = server.schemas.add("a/value", documented)
    server.read_only = True
    assert HttpRegistry(server.url).register("a/value", schema("x")) == number
    assert server.requests == ["GET /subjects/a%2Fvalue/versions/latest"]


def test_types_of_other_schemas_are_put_in_place(server: RegistryServer) -> None:
    """A schema may refer to versions of other subjects, these again to others."""
    grain = schema("g").replace('"R"', '"shop.Grain"')
    part = {"type": "record", "name": "Part", "namespace": "shop", "fields": [{"name": "g", "type": "Grain"}]}
    fields = [{"name": "one", "type": "shop.Part"}, {"name": "many", "type": {"type": "array", "items": "shop.Part"}}]
    whole = {"type": "record", "name": "Whole", "fields": [*fields, {"name": "g", "type": ["null", "shop.Grain"]}]}
    ids = [server.schemas.add(subject, each) for subject, each in (("g", grain), ("p", part), ("w", whole))]
    server.schemas.answers[ids[1]] = {"references": [{"name": "shop.Grain", "subject": "g", "version": 1}]}
    server.schemas.answers[ids[2]] = {"references": [{"name": "shop.Part", "subject": "p", "version": 1}]}
    registry = HttpRegistry(server.url)
    complete = json.loads(registry.schema(ids[2]) or "")
    parse_schema(complete)
    inner = {**part, "namespace": "shop", "fields": [{"name": "g", "type": json.loads(grain)}]}
    assert canonical(complete) == canonical({**whole, "fields": [{"name": "one", "type": inner}, *whole["fields"][1:]]})
    assert registry.register("w", canonical(complete)) == ids[2]


def test_failures_that_pass_are_repeated_and_then_retryable(server: RegistryServer) -> None:
    """Twice at once; then the caller waits."""
    number = server.schemas.add("a-value", schema("x"))
    registry = HttpRegistry(server.url)
    server.fail_next = [500, 503]
    assert registry.schema(number) == schema("x")
    server.fail_next = [500, 429, 503]
    with pytest.raises(RetryableError, match=r"answers 503: ordered"):
        HttpRegistry(server.url).schema(number)


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (401, "answers 401 to this user: ordered"),
        (403, "answers 403 to this user: ordered"),
        (404, "does not speak as a schema registry"),
        (400, "does not speak as a schema registry"),
        (b"<html>", "does not answer in JSON"),
        (b"[]", "does not answer with an object"),
        (b"{}", "gives no schema text"),
        (b'{"schema": "x", "schemaType": "PROTOBUF"}', "is of type PROTOBUF"),
        (
            b'{"schema": "\\"x\\"", "references": [{"name": "x", "subject": "s", "version": 1}]}',
            "lacks version 1 of 's'",
        ),
    ],
)
def test_answers_that_will_not_change_are_refused(server: RegistryServer, order: int | bytes, reason: str) -> None:
    """Waiting would not help: people must do something."""
    server.fail_next = [order]
    with pytest.raises(ConfigError, match=reason) as raised:
        HttpRegistry(server.url).schema(1)
    assert str(server.port) in str(raised.value)


def test_a_registration_that_is_not_allowed_names_the_subject_s_needs(server: RegistryServer) -> None:
    """The user may read only."""
    server.read_only = True
    with pytest.raises(ConfigError, match="not allowed to write"):
        HttpRegistry(server.url).register("a-value", schema("x"))


def test_user_and_password_are_used_and_never_shown(server: RegistryServer) -> None:
    """Neither in the name nor in any message; letters that a URL does not allow are %-encoded."""
    server.user = "me:p@ss/word"
    secret = server.url.replace("//", "//me:p%40ss%2Fword@")
    registry = HttpRegistry(secret)
    registry.register("a-value", schema("x"))
    assert registry.name == server.url
    for url in (secret.replace("me:", "you:"), f"ftp://me:{'p%40ss'}@host", "http://me:p%40ss@host:port"):
        with pytest.raises(ConfigError) as raised:
            HttpRegistry(url).schema(1)
        assert "ss" not in str(raised.value).replace("password", "").replace("passes", "").replace("class", "")
        assert raised.value.__cause__ is None or "p%40ss" not in str(raised.value.__cause__)


def test_a_registry_that_is_away_is_retryable() -> None:
    """Refused, silent in time, or cut off."""
    with closing(socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RetryableError, match="does not answer"):
            HttpRegistry(url).schema(1)
        taken.listen()
        with pytest.raises(RetryableError, match="does not answer"):
            HttpRegistry(url, timeout=0.1).schema(1)


def test_a_server_s_schemas_outlive_it() -> None:
    """The stand-in can be restarted where it was."""
    schemas = Schemas()
    with registry_server(schemas) as first:
        number = HttpRegistry(first.url).register("a-value", schema("x"))
    with registry_server(schemas, first.port) as second:
        assert second.url == first.url
        assert HttpRegistry(second.url).schema(number) == schema("x")


def test_no_setting_means_no_registry() -> None:
    """And a URL of another kind is not taken for a folder."""
    assert open_registry("") is None
    with pytest.raises(ConfigError, match="no URL of a schema registry"):
        open_registry("redis://host")
