"""The job: what runs together under one application name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from kstate.api.operator import Operator


@dataclass(frozen=True, slots=True)
class Job:
    """Operators that run together; `app` prefixes every topic and is part of the identity of all state.

    `epoch` is the atomic unit of work: results become visible once per epoch, and a crash repeats at most one.
    `dropped` names states ("uid.name") and operators ("uid") of earlier versions that are gone for good. With
    `on_error="stop"` the first record that fails stops the job instead of becoming a dead letter. `idle`: an input at
    its end for so long no longer holds the watermark back.
    Nothing is checked here: `kstate check` and every start do that for the whole job at once.
    """

    app: str
    operators: Sequence[type[Operator[Any]]]
    epoch: timedelta = field(default=timedelta(seconds=1), kw_only=True)
    dropped: Sequence[str] = field(default=(), kw_only=True)
    on_error: Literal["dead-letter", "stop"] = field(default="dead-letter", kw_only=True)
    idle: timedelta = field(default=timedelta(seconds=30), kw_only=True)
