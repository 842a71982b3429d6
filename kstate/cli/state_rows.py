"""Stored entries as rows that people and JSON can read, by what the plan says of them: the job's code is not needed.

    {"operator": "count", "partition": 0, "slot": 4711, "state": "n", "key": "apple", "value": 3}

Beside these: `at` is the key within a map, `index` the place in a list, `window` start and end (ms since the epoch,
half open), `tag` that of a timer, `range` the slots of an object of partial state; `deadline` of a timer, and
`expires` of a value with a ttl, in ms since the epoch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kstate.adapters.avro_plain import PlainKeys, PlainValues
from kstate.errors import ConfigError
from kstate.plan import Plan
from kstate.state.layout import parse_suffix
from kstate.state.partial_cells import parse_cell
from kstate.state.values import split_value
from kstate.worker.window_handles import window_of

_LIST_LAST = (1 << 64) - 1
"""Elements of a list are numbered down from here, so that the newest comes first (kstate.state.cells)."""
_FOREVER = ("table", "window", "partial")
"""Forms whose entries have no ttl: an expiry, if there is one, is the end of the window."""


@dataclass(frozen=True, slots=True)
class Row:
    """An entry of a state; `details` are those of its kind (see the module)."""

    operator: str
    partition: int
    slot: int
    state: str
    key: Any
    details: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The names of the module's docstring; an object of partial state has no key."""
        place = {"operator": self.operator, "partition": self.partition, "slot": self.slot, "state": self.state}
        return place | ({} if "range" in self.details else {"key": self.key}) | dict(self.details)

    def __str__(self) -> str:
        place = f"{self.operator}[{self.partition}] 0x{self.slot:04x}"
        details = dict(self.details)
        value = details.pop("value", None)
        inner = "".join(f" {name}={json.dumps(each)}" for name, each in details.items() if name != "range")
        key = str(details["range"]) if "range" in details else _shown(self.key)
        timer = "deadline" in details
        return f"{place}  {key}  {self.state}{inner}" + ("" if timer else f" = {json.dumps(value, ensure_ascii=False)}")


class Rows:
    """Makes the rows of one operator."""

    def __init__(self, plan: Plan, uid: str) -> None:
        """Raises ConfigError when the plan knows no such operator."""
        registry = plan.registry
        if uid not in registry.operators:
            known = ", ".join(sorted(registry.operators)) or "none"
            raise ConfigError(f"Job '{plan.app}' has no operator '{uid}'.", hint=f"its operators are: {known}.")
        self.uid = uid
        self.operator_id = registry.operators[uid]
        self.keys = PlainKeys(registry.keys.get(uid, "none"))
        self._names = {number: name for (owner, name), number in registry.states.items() if owner == uid}
        self._forms = {name: form for (owner, name), form in registry.forms.items() if owner == uid}
        self._schemas = registry.schemas
        self._values: dict[int, PlainValues] = {}
        self._subkeys: dict[str, PlainKeys] = {}

    @property
    def partial(self) -> frozenset[int]:
        """The ids of its partial states."""
        return frozenset(number for number, name in self._names.items() if self._forms.get(name) == "partial")

    def state_id(self, name: str) -> int:
        """Of a state by its name. Raises ConfigError."""
        found = next((number for number, known in self._names.items() if known == name), None)
        if found is None:
            known = ", ".join(sorted(self._names.values())) or "none"
            raise ConfigError(f"Operator '{self.uid}' has no state '{name}'.", hint=f"its states are: {known}.")
        return found

    def row(self, partition: int, suffix: bytes, data: bytes, watermark: int) -> Row | None:
        """The row of an entry; None for one that has expired by this watermark, or whose state was dropped."""
        slot, state_id, key, subkey = parse_suffix(suffix)
        name = self._names.get(state_id)
        if name is None:
            return None
        stored = split_value(data)
        form, _, of = self._forms.get(name, "value").partition(" by ")
        details: dict[str, Any] = {}
        if form.endswith((" timer", " timers")):
            details |= {"tag": self._subkey(of).decode(subkey)} if of else {}
            return Row(self.uid, partition, slot, name, self.keys.decode(key), details | {"deadline": stored.expiry})
        match form:
            case "list":
                details["index"] = _LIST_LAST - int.from_bytes(subkey, "big")
            case "map":
                details["at"] = self._subkey(of).decode(subkey)
            case "window":
                window = window_of(subkey)
                details["window"] = [window.start, window.end]
            case "partial":
                details["range"] = str(parse_cell(suffix).valid)
        if stored.expiry is not None and form not in _FOREVER:
            if stored.expiry <= watermark:
                return None
            details["expires"] = stored.expiry
        details["value"] = self._value(stored.schema_id).decode(stored.payload)
        return Row(self.uid, partition, slot, name, None if form == "partial" else self.keys.decode(key), details)

    def _value(self, schema_id: int) -> PlainValues:
        if schema_id not in self._values:
            self._values[schema_id] = PlainValues(self._schemas[schema_id])
        return self._values[schema_id]

    def _subkey(self, signature: str) -> PlainKeys:
        if signature not in self._subkeys:
            self._subkeys[signature] = PlainKeys(signature)
        return self._subkeys[signature]


def _shown(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key, ensure_ascii=False)
