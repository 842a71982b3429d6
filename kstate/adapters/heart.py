"""Heartbeats from a thread of their own: a handler that computes for long must not make its worker look dead."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

_logger = logging.getLogger(__name__)

_JOIN_SECONDS = 2.0
"""How long an end waits for a beat that is being sent; the thread never keeps a process alive."""


class HeartbeatThread:
    """Calls `send` every `interval` seconds while it is entered; what it raises is logged, the next beat comes."""

    def __init__(self, send: Callable[[], None], interval: float) -> None:
        self._send = send
        self._interval = interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> HeartbeatThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        while not self._over.wait(self._interval):
            try:
                self._send()
            except Exception as error:  # noqa: BLE001 (a thread that dies of one bad beat is a worker declared dead)
                _logger.warning("a heartbeat was not sent: %s", error)
