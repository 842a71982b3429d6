"""What the processes of kstate say while they run: one readable line per event on stderr, or JSON lines."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

LEVEL_VARIABLE = "KSTATE_LOG_LEVEL"

_QUIET = frozenset({"timestamp", "level", "who", "event"})


def configure(who: str, *, as_json: bool = False) -> structlog.stdlib.BoundLogger:
    """Set logging up for this process; `who` opens every line. Libraries are heard from warnings on.

    KSTATE_LOG_LEVEL=debug adds a line per batch and per epoch.
    """
    renderer = structlog.processors.JSONRenderer() if as_json else _line
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
        _Signed(who),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[_bare, renderer], foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    debug = os.environ.get(LEVEL_VARIABLE, "").lower() == "debug"
    logging.getLogger("kstate").setLevel(logging.DEBUG if debug else logging.INFO)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logger: structlog.stdlib.BoundLogger = structlog.get_logger("kstate")
    return logger


class _Signed:
    """Adds the name of the process to every event."""

    def __init__(self, who: str) -> None:
        self._who = who

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ARG002 (the form of a processor)
        event["who"] = self._who
        return event


def _bare(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop what the formatter adds for its own use."""
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(logger, method, event)


def _line(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:  # noqa: ARG001 (the form of a processor)
    """For people: `12:00:01 worker-1     restarting  exit_code=-9: why`; a reason is a sentence, unquoted."""
    level = str(event.get("level", "info"))
    mark = "" if level in {"info", "debug"} else f"{level.upper()} "
    trace = event.pop("exception", None)
    reason = event.pop("reason", None)
    rest = "".join(f"  {name}={value}" for name, value in event.items() if name not in _QUIET)
    line = f"{event['timestamp']} {event['who']:<12} {mark}{event['event']}{rest}{f': {reason}' if reason else ''}"
    return f"{line}\n{trace}" if trace else line
