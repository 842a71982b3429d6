"""The processes of a benchmark: a job's coordinator and workers, and what each of them used, from the operating
system.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process used over its whole life."""

    wall_s: float
    user_s: float
    system_s: float
    memory_mb: float
    """Largest resident set, MiB."""
    exit_code: int

    @property
    def cpu_s(self) -> float:
        """User and system time, every thread, imports and start-up included."""
        return self.user_s + self.system_s


class Process:
    """A kstate command in a process of its own; its output goes to a file."""

    def __init__(self, arguments: Sequence[str], output: Path) -> None:
        self._started = time.monotonic()
        self._output = output
        with output.open("wb") as sink:
            command = [sys.executable, "-m", "kstate", *arguments]
            self._process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def wait(self) -> Usage:
        """Wait for its end; RuntimeError with the end of its output when it failed."""
        _, status, used = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        usage = Usage(
            wall_s=time.monotonic() - self._started,
            user_s=used.ru_utime,
            system_s=used.ru_stime,
            memory_mb=used.ru_maxrss / 1024,
            exit_code=self._process.returncode,
        )
        if usage.exit_code:
            tail = self._output.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self._output.stem} ended with exit code {usage.exit_code}:\n{tail}")
        return usage

    def kill(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
