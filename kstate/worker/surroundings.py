"""What processing asks of the worker around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kstate.interfaces import Store
from kstate.worker.in_hand import InHand


@dataclass(slots=True)
class Surroundings:
    """The local store, the partition count of each topic by the newest plan, whether the running epoch is full,
    and where it is noted what is in hand.
    """

    store: Store
    partitions: Mapping[str, int] = field(default_factory=dict)
    full: Callable[[], bool] = lambda: False
    in_hand: InHand = field(default_factory=InHand)

    def is_full(self) -> bool:
        """Whether nothing more should be taken into the running epoch."""
        return self.full()
