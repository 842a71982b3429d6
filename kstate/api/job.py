"""The job: what runs together under one application name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kstate.api.operator import Operator


@dataclass(frozen=True, slots=True)
class Job:
    """Operators that run together; `app` prefixes every topic and is part of the identity of all state.

    `epoch` is the atomic unit of work: results become visible once per epoch, and a crash repeats at most one.
    Nothing is checked here: `kstate check` and every start do that for the whole job at once.
    """

    app: str
    operators: Sequence[type[Operator[Any]]]
    epoch: timedelta = field(default=timedelta(seconds=1), kw_only=True)
