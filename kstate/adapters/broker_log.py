"""What a broker wrote, and what it means to the one who started it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from kstate.errors import ConfigError, KstateError

LOG_LINES_SHOWN = 12


class PortInUseError(ConfigError):
    """Somebody else listens on the port."""

    def __init__(self, port: int) -> None:
        super().__init__(
            f"Port {port} is in use by another process.",
            hint="stop what listens there, or let kstate take any free port",
        )


@dataclass(frozen=True, slots=True)
class LogTail:
    """What broker and Java wrote since this was made."""

    broker: Path
    java: Path
    starts: dict[Path, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in (self.broker, self.java):
            self.starts[path] = path.stat().st_size if path.exists() else 0

    def text(self) -> str:
        """Both logs, the broker's first."""
        return "".join(self._read(path) for path in (self.broker, self.java))

    def last_lines(self) -> str:
        """The end, for people."""
        return _last_lines(self.text())

    def _read(self, path: Path) -> str:
        with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:
            start = self.starts[path]
            file.seek(start if path.stat().st_size >= start else 0)  # smaller: it was rolled over
            return file.read()
        return ""


def explain(log: str, folder: Path, port: int) -> KstateError:
    """The error that a person can act on, from what a broker that ended wrote."""
    known = (
        ("Address already in use", PortInUseError(port)),
        (
            "No space left on device",
            ConfigError(f"The disk of {folder} is full: the embedded broker cannot start.", hint="free some space"),
        ),
        (
            "Failed to acquire lock on file .lock",
            ConfigError(
                f"Another broker runs on the data folder {folder}.", hint="stop that one, or name another folder"
            ),
        ),
        (
            "Could not reserve enough space",
            ConfigError("There is not enough memory for the embedded broker's heap.", hint="lower heap_mb"),
        ),
        (
            "java.lang.OutOfMemoryError",
            ConfigError("The embedded broker's heap is too small.", hint="raise heap_mb"),
        ),
        (
            "AccessDeniedException",
            ConfigError(f"The embedded broker may not write to {folder}.", hint="check owner and mode of its files"),
        ),
    )
    for sign, error in known:
        if sign in log:
            return error
    return ConfigError(
        f"The embedded broker ended while it started; its log ends with:\n{_last_lines(log)}",
        hint="change what it names; the whole log is broker.log in the data folder, where one was named",
    )


def _last_lines(log: str) -> str:
    """The end of a log without the frames of Java's stack traces, which would push out the message above them."""
    lines = [line for line in log.splitlines() if not line.startswith(("\tat ", "\t..."))]
    return "\n".join(lines[-LOG_LINES_SHOWN:])
