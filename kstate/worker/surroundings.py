"""What processing asks of the worker around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kstate.interfaces import Store


@dataclass(slots=True)
class Surroundings:
    """The local store, the partition count of each topic by the newest plan, and whether the running epoch is full."""

    store: Store
    partitions: Mapping[str, int] = field(default_factory=dict)
    full: Callable[[], bool] = lambda: False

    def is_full(self) -> bool:
        """Whether nothing more should be taken into the running epoch."""
        return self.full()
