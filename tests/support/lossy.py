"""A job whose state would lose digits between memory and bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from kstate import Context, Input, Job, Operator, ValueState


@dataclass(frozen=True, slots=True)
class Reading:
    """A measurement, with an Avro float in it."""

    __avro_schema__: ClassVar[str] = json.dumps(
        {"type": "record", "name": "Reading", "fields": [{"name": "x", "type": "float"}]}
    )

    x: float


class Last(Operator[str], uid="last"):
    """Keeps the last reading."""

    readings = Input(Reading, topic="readings")
    last = ValueState(Reading)

    @readings.each
    def keep(self, reading: Reading, ctx: Context) -> None:
        self.last.set(reading)


job = Job("lossy", [Last])
