"""How records stand in users' topics: bare Avro, or framed with the id of their schema in a registry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kstate.api.specs import OutputSpec, Topology
from kstate.interfaces import Codec, Codecs, FramedCodec


def output_codec(spec: OutputSpec, codecs: Codecs) -> Codec[Any]:
    """The codec of an output's records; ConfigError when it needs a registry and has none."""
    return codecs.framed(spec.record, spec.topic) if spec.format == "confluent" else codecs.value(spec.record)


def framed_outputs(topology: Topology, codecs: Codecs) -> Iterator[tuple[str, FramedCodec[Any]]]:
    """The topic and codec of each output whose schema must be claimed before anything is produced."""
    for operator in topology.operators:
        for output in operator.outputs:
            if output.format == "confluent":
                yield output.topic, codecs.framed(output.record, output.topic)
