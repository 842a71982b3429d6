"""The input of a job of which nothing is known but its types: read from JSON lines, or made up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from types import NoneType
from typing import Any

from kstate.adapters.avro import AvroCodecs
from kstate.api.specs import InputSpec, OperatorSpec, Topology
from kstate.errors import ConfigError
from kstate.interfaces import OutMessage
from kstate.testing.feeding import Feed
from kstate.testing.made_up import from_json, some_value, time_value
from kstate.testing.virtual_time import START_MS

SPACING_MS = (100, 1_000, 60_000)
"""Event time between two records that are made up, one of these per input."""


@dataclass(frozen=True, slots=True)
class Message:
    """A record of the input, in the order of sending."""

    topic: str
    message: OutMessage


@dataclass(frozen=True, slots=True)
class Entrance:
    """A topic that somebody outside writes, as the job reads it; `event_time`: field that holds the event time."""

    spec: OperatorSpec
    given: InputSpec
    event_time: str | None


def entrances(topology: Topology) -> dict[str, Entrance]:
    """By topic; a topic that the job itself writes is none."""
    written = {output.topic for spec in topology.operators for output in spec.outputs}
    found: dict[str, Entrance] = {}
    for spec in topology.operators:
        for given in spec.inputs:
            if not given.internal and given.topic not in written:
                found.setdefault(given.topic, Entrance(spec, given, _event_time_field(topology, spec, given)))
    return found


class JobInput:
    """Makes the messages of one job."""

    def __init__(self, topology: Topology, codecs: AvroCodecs, partitions: int) -> None:
        self.entrances = entrances(topology)
        self._codecs = codecs
        self._feed = Feed(topology, codecs)
        self._partitions = dict.fromkeys(self.entrances, partitions)

    def made_up(self, rng: Random, count: int) -> list[Message]:
        """So many records, over all inputs, with few different keys; event times go up by and large."""
        spacing, topics = rng.choice(SPACING_MS), sorted(self.entrances)
        now = START_MS - count * spacing
        return [self._some_message(self.entrances[rng.choice(topics)], now + n * spacing, rng) for n in range(count)]

    def read(self, topic: str, lines: Iterable[str]) -> list[Message]:
        """JSON lines: a record each, or {"key": …, "record": …, "timestamp": ms} where the key is not in the record.

        Raises ConfigError that names the line.
        """
        if topic not in self.entrances:
            known = ", ".join(sorted(self.entrances)) or "none"
            raise ConfigError(f"The job reads no topic {topic!r} from outside.", hint=f"its inputs are: {known}.")
        entrance, found = self.entrances[topic], list[Message]()
        for number, line in enumerate(lines, 1):
            if line.strip():
                found.append(self._read_line(entrance, line, f"{topic}, line {number}", START_MS + number))
        return found

    def _read_line(self, entrance: Entrance, line: str, where: str, timestamp: int) -> Message:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{where} is no JSON: {error}.", hint="write one JSON object per line.") from None
        key = None
        if isinstance(value, dict) and "record" in value and value.keys() <= {"key", "record", "timestamp"}:
            given = value.get("key")
            key = None if given is None else from_json(self._key_shape(entrance), given, f"{where}, key")
            timestamp, value = value.get("timestamp", timestamp), value["record"]
        record = from_json(self._codecs.value(entrance.given.record).shape, value, where)
        return self._message(entrance, record, key, timestamp)

    def _some_message(self, entrance: Entrance, at_ms: int, rng: Random) -> Message:
        given = entrance.given
        record = some_value(self._codecs.value(given.record).shape, rng)
        at_ms -= rng.randint(0, given.lateness_ms)
        if entrance.event_time is not None:
            shape = dict(self._codecs.value(given.record).shape.fields)[entrance.event_time]  # type: ignore[union-attr]
            if (value := time_value(shape, at_ms)) is not None:
                record = _with(record, entrance.event_time, value)
        key = None if given.key_field else self._some_key(entrance, rng)
        return self._message(entrance, record, key, at_ms)

    def _some_key(self, entrance: Entrance, rng: Random) -> Any:
        if entrance.spec.key_type is NoneType and rng.random() < 0.5:
            return None
        return some_value(self._key_shape(entrance), rng)

    def _key_shape(self, entrance: Entrance) -> Any:
        key_type = entrance.spec.key_type
        return self._codecs.value(str if key_type in (NoneType, Any) else key_type).shape

    def _message(self, entrance: Entrance, record: Any, key: Any, timestamp: int) -> Message:
        message = self._feed.message(entrance.spec, entrance.given, record, key, timestamp, self._partitions)
        return Message(entrance.given.topic, message)


def interleaved(messages: Sequence[Message], rng: Random) -> list[Message]:
    """The same messages in another order, but in the same within each partition."""
    lanes: dict[tuple[str, int], list[Message]] = {}
    for each in messages:
        lanes.setdefault((each.topic, each.message["partition"]), []).append(each)
    places = [place for place, lane in lanes.items() for _ in lane]
    rng.shuffle(places)
    waiting = {place: iter(lane) for place, lane in lanes.items()}
    return [next(waiting[place]) for place in places]


def _event_time_field(topology: Topology, spec: OperatorSpec, given: InputSpec) -> str | None:
    """The field that `event_time=` names; None when it is a function, or Kafka's timestamp."""
    owner = topology.operator(spec.hop_of[0]) if spec.hop_of else spec
    declared = getattr(getattr(owner.cls, given.name, None), "declared", None)
    option = getattr(declared, "event_time", None)
    return option if isinstance(option, str) else None


def _with(record: Any, field: str, value: Any) -> Any:
    """A record, dataclass or NamedTuple, with another value of a field."""
    if dataclasses.is_dataclass(record):
        return dataclasses.replace(record, **{field: value})  # type: ignore[type-var]
    return record._replace(**{field: value})
