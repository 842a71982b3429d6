"""Notes in memory, which the crash of a process in a simulated world leaves as they are."""

from __future__ import annotations


class MemoryNotes:
    """`Notes` of one worker name, for all its incarnations."""

    def __init__(self) -> None:
        self._note = b""
        self._ledger = b""

    def read(self) -> tuple[bytes, bytes]:
        return self._note, self._ledger

    def note(self, data: bytes) -> None:
        self._note = data

    def keep(self, ledger: bytes) -> None:
        self._note, self._ledger = b"", ledger
