"""What users need to test their operators: no broker, no waiting, virtual time.

Imported on first use, because pytest loads this package's plugin in every run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kstate.testing.driver import DeadLetter, Driver

__all__ = ["DeadLetter", "Driver"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kstate.testing import driver

    return getattr(driver, name)
