"""From schema files to record classes: deterministic, formatted, complete; and the commands that do it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from kstate import ConfigError, Int32
from kstate.adapters.avro import AvroCodecs
from kstate.cli.main import app
from kstate.cli.record_classes import record_classes

ROOT = Path(__file__).parents[2]


def record(name: str, *fields: object, **more: object) -> str:
    """The text of a schema file."""
    return json.dumps({"type": "record", "name": name, "fields": fields, **more})


def field(name: str, kind: object, **more: object) -> dict[str, object]:
    """A field of a record."""
    return {"name": name, "type": kind, **more}


def loaded(files: dict[str, str], name: str) -> Any:
    """The generated module, imported."""
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(record_classes(files), name, "exec"), module.__dict__)
    return module


EVERYTHING = {
    "everything.avsc": record(
        "Everything",
        field("flag", "boolean", default=True),
        field("small", "int"),
        field("n", "long", doc="A number, counted\n from 1"),
        field("half", "float"),
        field("x", "double"),
        field("text", "string"),
        field("raw", "bytes"),
        field("hash", {"type": "fixed", "name": "Hash", "size": 4}),
        field("hash2", "Hash"),
        field("id", {"type": "string", "logicalType": "uuid"}),
        field("at", {"type": "long", "logicalType": "timestamp-micros"}),
        field("day", {"type": "int", "logicalType": "date"}),
        field("clock", {"type": "long", "logicalType": "time-micros"}),
        field("price", {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}),
        field("tax", {"type": "fixed", "name": "Tax", "size": 4, "logicalType": "decimal", "precision": 8}),
        field("ref", {"type": "fixed", "name": "Ref", "size": 16, "logicalType": "uuid"}),
        field("ref2", "Ref"),
        field("local", {"type": "long", "logicalType": "local-timestamp-millis"}),
        field("nanos", {"type": "long", "logicalType": "timestamp-nanos"}),
        field("lasts", {"type": "fixed", "name": "Lasts", "size": 12, "logicalType": "duration"}),
        field("color", {"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"], "doc": "Two of them."}),
        field("part", "other.Part"),
        field("parts", {"type": "array", "items": "other.Part"}),
        field("counts", {"type": "map", "values": {"type": "array", "items": "long"}}),
        field("maybe", ["null", "other.Part"], default=None),
        field("number", "int", default=3),
        field("ratio", "double", default=1),
        field("word", "string", default='it\'s "so"'),
        field("many", {"type": "array", "items": "long"}, default=[]),
        field("table", {"type": "map", "values": "long"}, default={}),
        doc="One field of each type, with a description so long that it has to be wrapped before it reaches the end "
        'of what fits; and with a \\ and three """ in it',
    ),
    "part.avsc": record("Part", field("name", "string"), field("n", "long"), namespace="other"),
}


def test_a_class_has_a_field_of_the_right_type_for_each_field() -> None:
    """Read off the module's text, as a reader would."""
    text = record_classes(EVERYTHING)
    for line in (
        "flag: bool", "small: Int32", "n: int", "half: float", "x: float", "text: str", "raw: bytes", "hash: bytes",
        "hash2: bytes", "id: UUID", "at: datetime", "day: date", "clock: time", "price: Decimal", "color: Color",
        "tax: Decimal", "ref: UUID", "ref2: UUID", "local: datetime", "nanos: int", "lasts: bytes",
        "part: Part", "parts: tuple[Part, ...]", "counts: Mapping[str, tuple[int, ...]]", "maybe: Part | None = None",
        "number: Int32 = field(default=Int32(3))", "ratio: float = 1.0", "many: tuple[int, ...] = ()",
    ):  # fmt: skip
        assert f"    {line}\n" in text, line
    assert '    """A number, counted from 1."""\n' in text


def test_generated_classes_work_with_the_codecs() -> None:
    """Also the enum and the record from another file, in another namespace."""
    module = loaded(EVERYTHING, "generated_everything")
    part = module.Part("p", 1)
    at = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    value = module.Everything(
        True, Int32(1), 2, 0.5, 1.5, "t", b"r", b"hash", b"hush", module.UUID(int=7), at, at.date(), at.time(),
        module.Decimal("1.25"), module.Decimal(5), module.UUID(int=8), module.UUID(int=9), at.replace(tzinfo=None), 1,
        bytes(12), module.Color.BLUE, part, (part, part), MappingProxyType({"a": (1, 2)}), part,
    )  # fmt: skip
    codec = AvroCodecs().value(module.Everything)
    assert codec.decode(codec.encode(value)) == value
    assert (value.number, value.ratio, value.word, value.many, value.table) == (3, 1.0, 'it\'s "so"', (), {})


def test_generated_text_is_what_the_formatter_makes_of_it(tmp_path: Path) -> None:
    """Nobody should have to format or lint a generated module."""
    path = tmp_path / "records.py"
    path.write_text(record_classes(EVERYTHING), encoding="utf-8")
    for command in (["format", "--diff"], ["check", "--ignore", "INP001"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", path],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr


def test_generated_classes_pass_the_strict_type_checker(tmp_path: Path) -> None:
    """They are the types that users' handlers are checked against."""
    path = tmp_path / "records.py"
    path.write_text(record_classes(EVERYTHING), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", path],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout


def test_the_order_of_the_files_does_not_matter() -> None:
    """The same schemas make the same module on every machine."""
    assert record_classes(EVERYTHING) == record_classes(dict(reversed(EVERYTHING.items())))


def test_a_class_stands_behind_those_it_needs() -> None:
    """Also across files."""
    files = {"a.avsc": record("A", field("b", "B")), "b.avsc": record("B", field("c", "C")), "c.avsc": record("C")}
    text = record_classes(files)
    assert text.index("class C:") < text.index("class B:") < text.index("class A:")


def test_earlier_fields_lose_their_default() -> None:
    """Python wants fields with defaults last; the schema keeps it."""
    text = record_classes(
        {"r.avsc": record("R", field("a", "long", default=1), field("b", "long"), field("c", "long", default=2))}
    )
    assert "    a: int\n    b: int\n    c: int = 2\n" in text
    assert '"default":1' in text


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"r.avsc": "{"}, "r.avsc is no Avro schema"),
        ({"r.avsc": '"string"'}, "r.avsc defines no record"),
        ({"r.avsc": '["null", "string"]'}, "r.avsc defines no record"),
        ({"r.avsc": record("R", field("a", ["string", "long"]))}, "R.a: a union of other than null and one type"),
        ({"r.avsc": record("R", field("a", "Missing"))}, "type 'Missing' is not supported, or defined in none"),
        ({"r.avsc": record("R", field("a", "null"))}, "type 'null' is not supported"),
        ({"r.avsc": record("R", field("next", ["null", "R"]))}, "a record inside itself"),
        ({"r.avsc": record("R", field("class", "long"))}, "'class' cannot be a name in Python"),
        ({"r.avsc": record("class")}, "'class' cannot be a name in Python"),
        ({"r.avsc": record("R", field("a", {"type": "enum", "name": "E", "symbols": ["None"]}))}, "'None' cannot be"),
        ({"r.avsc": record("R", field("a", {"type": "bytes", "logicalType": "decimal"}))}, "decimal without precision"),
        ({"r.avsc": record("R", field("a", "long"), field("a", "long"))}, "R.a: two fields have this name"),
        ({"r.avsc": record("R", field("a", "long", default="x"))}, "not legal Avro"),
        ({"r.avsc": record("R-2")}, "cannot be a name in Python"),
        ({"a.avsc": record("R"), "b.avsc": record("R", field("a", "long"))}, "a.avsc defines it differently"),
        ({"a.avsc": record("x.R"), "b.avsc": record("y.R")}, "its class would be named as that of x.R"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(files: dict[str, str], reason: str) -> None:
    """File, type and field, before anything is written."""
    with pytest.raises(ConfigError) as raised:
        record_classes(files)
    assert reason in str(raised.value)


def test_the_committed_records_are_current() -> None:
    """Whoever changes a schema generates the classes anew: kstate schema generate."""
    files = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "schemas").glob("*.avsc")}
    assert ROOT.joinpath("operators/records.py").read_text(encoding="utf-8") == record_classes(files)


def test_generate_writes_and_check_compares(tmp_path: Path) -> None:
    """A stale or missing module: exit code 1 and a diff; afterwards neither."""
    schemas, out = tmp_path / "schemas", tmp_path / "jobs" / "records.py"
    schemas.mkdir()
    schemas.joinpath("r.avsc").write_text(record("R", field("a", "long")))
    options = ["--schemas", str(schemas), "--out", str(out)]
    missing = CliRunner().invoke(app, ["schema", "check", *options])
    assert (missing.exit_code, "+class R:" in missing.output) == (1, True)
    assert CliRunner().invoke(app, ["schema", "generate", *options]).exit_code == 0
    assert CliRunner().invoke(app, ["schema", "check", *options]).exit_code == 0
    schemas.joinpath("r.avsc").write_text(record("R", field("a", "string")))
    stale = CliRunner().invoke(app, ["schema", "check", *options])
    told = json.loads(CliRunner().invoke(app, ["schema", "check", *options, "--json"]).output)
    assert told["state"].startswith("stale")
    assert "+    a: str" in told["diff"]
    assert (stale.exit_code, "-    a: int" in stale.output, "+    a: str" in stale.output) == (1, True, True)


def test_a_schema_that_cannot_be_used_exits_with_code_2(tmp_path: Path) -> None:
    """And writes nothing."""
    tmp_path.joinpath("r.avsc").write_text("{")
    out = tmp_path / "records.py"
    result = CliRunner().invoke(app, ["schema", "generate", "--schemas", str(tmp_path), "--out", str(out)])
    assert (result.exit_code, out.exists()) == (2, False)
    assert "r.avsc" in result.output
    empty = CliRunner().invoke(app, ["schema", "generate", "--schemas", str(tmp_path / "none"), "--out", str(out)])
    assert (empty.exit_code, "no *.avsc file" in empty.output) == (2, True)
