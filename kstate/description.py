"""A job as plain data: what the control plane needs to know of it, free of the user's classes and of codecs.

The coordinator never imports the declarations of user code: `kstate.api.describe` turns a job into this value. All that
a plan is made from stands here; what the cluster adds (partition counts, offsets) is asked by the leader.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Literal

StartPosition = Literal["earliest", "latest"] | int
"""Where an external input starts when there is no marker; an int is a time in ms since the epoch."""


@dataclass(frozen=True, slots=True)
class InputDescription:
    """One input of an operator; `internal` says that kstate owns the topic: an edge from operator `source_uid`.

    `table` says that its records are kept: it is read to its end before the other inputs.
    """

    name: str
    topic: str
    start: StartPosition = "earliest"
    internal: bool = False
    source_uid: str | None = None
    table: bool = False

    def __str__(self) -> str:
        return f"input '{self.name}' (topic '{self.topic}')"


@dataclass(frozen=True, slots=True)
class OutputDescription:
    """One output of an operator; `internal` says that kstate owns the topic."""

    name: str
    topic: str
    internal: bool = False
    schema: str = ""
    """Canonical text of the records of an internal stream, which do not name their schema themselves."""


@dataclass(frozen=True, slots=True)
class StateDescription:
    """One state of an operator and the canonical text of the schema its values are written with.

    `form` is a text that changes when stored values of one kind cannot be read as the other (`StateSpec.form`).
    """

    name: str
    schema: str
    form: str = "value"


@dataclass(frozen=True, slots=True)
class OperatorDescription:
    """One operator; `key_type` is a canonical text that changes exactly when the key bytes of equal keys change."""

    uid: str
    key_type: str
    inputs: tuple[InputDescription, ...]
    outputs: tuple[OutputDescription, ...] = ()
    states: tuple[StateDescription, ...] = ()


@dataclass(frozen=True, slots=True)
class JobDescription:
    """A whole job, operators in the order of declaration; `dropped` names states ("uid.name") and operators ("uid") of
    earlier versions that are gone for good.
    """

    app: str
    operators: tuple[OperatorDescription, ...]
    dropped: tuple[str, ...] = ()

    @property
    def build(self) -> str:
        """Eight hex digits of all that is described here: equal for processes whose wiring, state and schemas are.

        Other code in a handler alone makes no other build.
        """
        return _digest(self)

    def operator(self, uid: str) -> OperatorDescription | None:
        """The operator with this uid."""
        return next((operator for operator in self.operators if operator.uid == uid), None)


@lru_cache(maxsize=16)
def _digest(job: JobDescription) -> str:
    """It is asked for at every decision of the leader."""
    return sha256(json.dumps(asdict(job), sort_keys=True).encode()).hexdigest()[:8]
