"""Canonical schema text and fingerprint: part of every block and plan ever written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastavro import parse_schema

from kstate.schemas import canonical, fingerprint

# Canonical texts written by hand; fingerprints: the first 16 digits that `sha256sum` prints for them.
GOLDEN: list[dict[str, Any]] = json.loads(
    Path(__file__).parents[1].joinpath("golden/fingerprints.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("row", GOLDEN, ids=[row["what"] for row in GOLDEN])
def test_canonical_text_and_fingerprint_are_those_written_down(row: dict[str, Any]) -> None:
    """They must never change: stored bytes name their schema by them."""
    assert canonical(row["schema"]) == row["canonical"]
    assert fingerprint(row["canonical"]).hex() == row["fingerprint"]


@pytest.mark.parametrize("row", GOLDEN, ids=[row["what"] for row in GOLDEN])
def test_canonical_text_is_a_schema_and_its_own_canonical_text(row: dict[str, Any]) -> None:
    """It is kept in the plan and must be enough to read with."""
    parse_schema(json.loads(row["canonical"]))
    assert canonical(json.loads(row["canonical"])) == row["canonical"]


def test_what_decides_how_bytes_are_read_decides_the_fingerprint() -> None:
    """Avro's own parsing canonical form would make one of the first three."""
    long = {"type": "long"}
    schemas = [
        long,
        long | {"logicalType": "timestamp-millis"},
        long | {"logicalType": "timestamp-micros"},
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3},
        {"type": "record", "name": "R", "fields": [{"name": "n", "type": "long", "default": 0}]},
        {"type": "record", "name": "R", "fields": [{"name": "n", "type": "long", "default": 1}]},
        {"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}]},
    ]
    assert len({fingerprint(canonical(schema)) for schema in schemas}) == len(schemas)


@pytest.mark.parametrize(
    "schema",
    [None, 5, {}, {"name": "x"}, {"type": "record", "name": "R"}, {"type": "array"}, {"type": "record", "fields": []},
     {"type": "record", "name": "R", "fields": ["f"]}, {"type": "record", "name": "R", "fields": [{"name": "f"}]}],
)  # fmt: skip
def test_what_has_not_the_form_of_a_schema_is_refused(schema: Any) -> None:
    """With a ValueError that shows it."""
    with pytest.raises(ValueError, match=r"lacks|is no"):
        canonical(schema)
