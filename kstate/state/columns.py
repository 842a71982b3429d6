"""Rows and columns: an entry per key, a column per declared state, and values to stored bytes and back.

Everything is batch-wise: one `decode_many` per column and schema for what is loaded, one `encode_many` per column for
what an epoch changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, TypeAlias

from kstate.errors import ConfigError, CorruptStateError, DecodeError
from kstate.interfaces import Codec
from kstate.state.layout import Timeline
from kstate.state.values import NEVER, Expiring, StoredValue, split_value, value_prefix

KEY_BYTES_MAX = 65_536
"""The room that `StateSettings.value_bytes_max` leaves for a key with its subkey, so that an entry fits a block."""

_PLAIN_HEAD_BYTES = 3
_head_of = itemgetter(slice(0, _PLAIN_HEAD_BYTES))
_body_of = itemgetter(slice(_PLAIN_HEAD_BYTES, None))

Decoder: TypeAlias = Callable[[Sequence[bytes]], list[Any]]
"""Payloads to values, all at once; DecodeError when one is damaged."""


class _Absent:
    """The value of a state that is not there."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


class Entry:
    """One key: `values[i]` is the value of the i-th state or ABSENT, `Expiring` in an expiring column, `Cells` in one
    with subkeys; bit i of `changed` says that it was set this epoch.
    """

    __slots__ = ("changed", "key", "key_bytes", "slot", "suffixes", "values")

    def __init__(self, key: Any, key_bytes: bytes, slot: int, suffixes: tuple[bytes, ...], values: list[Any]) -> None:
        self.key = key
        self.key_bytes = key_bytes
        self.slot = slot
        self.suffixes = suffixes
        self.values = values
        self.changed = 0


class ValueFault(Exception):  # noqa: N818 - it finds a culprit, it is not shown to anyone
    """A value that cannot be stored: it does not encode or is too large. Names state, key and subkey."""


@dataclass(frozen=True, slots=True)
class StateColumn:
    """One declared state of an operator, as it is stored."""

    name: str
    state_id: int
    schema_id: int
    """Of what is written."""
    codec: Codec[Any]
    value_bytes_max: int
    expiring: bool = False
    """Its values are `Expiring`, stored with the header that the local time index is made of."""
    cells: bool = False
    """It has subkeys (kstate.state.cells)."""
    timeline: Timeline | None = None
    """Which agenda its expiries go to; None: not `expiring`."""
    decoder_of: Callable[[int], Decoder] | None = None
    """Reads values that another build wrote, by schema id; None: only those of `schema_id` can be read."""

    def decode(self, stored: Sequence[bytes]) -> list[Any]:
        """The values of stored bytes, in order; `Expiring` ones of an expiring column.

        A value without expiry in an expiring column was stored before its state had a `ttl=`: it never expires.
        Raises CorruptStateError for damaged bytes, ConfigError for a schema that cannot be read.
        """
        try:
            if not self.expiring and {*map(_head_of, stored)} <= {value_prefix(self.schema_id)}:  # nearly always
                return self.codec.decode_many(list(map(_body_of, stored)))
            parts = [split_value(data) for data in stored]
            values = self._payloads(parts)
        except DecodeError as error:  # not the record's fault, and no reason to take it for a dead letter
            raise CorruptStateError(f"State {self.name!r} in the local store is damaged: {error}") from error
        if not self.expiring:
            return values
        return [
            Expiring(value, NEVER if part.expiry is None else part.expiry)
            for value, part in zip(values, parts, strict=True)
        ]

    def _payloads(self, parts: Sequence[StoredValue]) -> list[Any]:
        """Decoded payloads, one call per schema id that occurs."""
        schema_ids = {part.schema_id for part in parts}
        if len(schema_ids) <= 1:
            return self._decoder(min(schema_ids, default=self.schema_id))([part.payload for part in parts])
        values: list[Any] = [None] * len(parts)
        for schema_id in sorted(schema_ids):
            rows = [row for row, part in enumerate(parts) if part.schema_id == schema_id]
            for row, value in zip(rows, self._decoder(schema_id)([parts[row].payload for row in rows]), strict=True):
                values[row] = value
        return values

    def _decoder(self, schema_id: int) -> Decoder:
        if schema_id == self.schema_id:
            return self.codec.decode_many
        if self.decoder_of is None:
            raise ConfigError(
                f"State {self.name!r} holds values of schema {schema_id}, not {self.schema_id}.",
                hint="run the build that wrote them: nothing tells this one how to read them.",
            )
        return self.decoder_of(schema_id)

    def encode(self, values: Sequence[Any], name_of: Callable[[int], tuple[Any, bytes]]) -> list[bytes]:
        """Stored bytes of values, in order; `name_of` gives key and subkey of a row.

        Raises ValueFault that names the first that cannot be stored.
        """
        plain = [value.value for value in values] if self.expiring else values
        try:
            payloads = self.codec.encode_many(plain)
        except (ValueError, TypeError, DecodeError):
            for row, value in enumerate(values):
                self.check(value, *name_of(row))
            raise
        limit = self.value_bytes_max
        if payloads and max(map(len, payloads)) > limit:
            culprit = next(row for row, payload in enumerate(payloads) if len(payload) > limit)
            raise self._too_large(len(payloads[culprit]), *name_of(culprit))
        if self.expiring:
            return [
                value_prefix(self.schema_id, None if value.at == NEVER else value.at) + payload
                for value, payload in zip(values, payloads, strict=True)
            ]
        prefix = value_prefix(self.schema_id)
        return [prefix + payload for payload in payloads]

    def check(self, value: Any, key: Any, subkey: bytes = b"") -> None:
        """Raise ValueFault, naming state, key and subkey, when this value cannot be stored."""
        if value is ABSENT:
            return
        try:
            size = len(self.codec.encode(value.value if self.expiring else value))
        except (ValueError, TypeError) as error:
            raise ValueFault(f"{self._named(key, subkey)} does not encode: {error}") from error
        if size > self.value_bytes_max:
            raise self._too_large(size, key, subkey)

    def _too_large(self, size: int, key: Any, subkey: bytes) -> ValueFault:
        return ValueFault(f"{self._named(key, subkey)} is {size:,} bytes, the limit is {self.value_bytes_max:,}")

    def _named(self, key: Any, subkey: bytes) -> str:
        shown = subkey if len(subkey) <= 64 else subkey[:64] + b"..."
        return f"state {self.name!r} of key {key!r}" + (f" at {shown!r}" if subkey else "")
