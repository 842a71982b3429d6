"""Notes in a file: what a killed process leaves, and folders that are of no use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kstate.adapters.in_hand import NOTE_BYTES, FileNotes
from kstate.errors import ConfigError
from kstate.keyspace import FULL_RANGE
from kstate.plan import Shard
from kstate.worker.in_hand import Place, decode_note, encode_note

BUSY = """
import sys
from pathlib import Path
from kstate.adapters.in_hand import FileNotes
from kstate.keyspace import FULL_RANGE
from kstate.plan import Shard
from kstate.worker.in_hand import Place, encode_note
notes = FileNotes(Path(sys.argv[1]))
a, b = (encode_note(Place(Shard("count" * n, n), FULL_RANGE, "lines" * n, n)) for n in (1, 9))
notes.note(a)
print("busy", flush=True)
while True:
    notes.note(b)
    notes.note(a)
"""


def test_what_was_noted_before_a_kill_9_is_read_by_the_next_process(tmp_path: Path) -> None:
    """Written without a system call, in an endless loop: a kill leaves one of two notes, or a torn one, no other."""
    whole = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", BUSY, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "busy\n"
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        found = decode_note(FileNotes(tmp_path).read()[0])
        assert found is None or found in [Place(Shard("count" * n, n), FULL_RANGE, "lines" * n, n) for n in (1, 9)]
        whole += found is not None
    assert whole


def test_the_ledger_is_kept_and_takes_the_note_away(tmp_path: Path) -> None:
    """In one step: the whole file is replaced."""
    notes = FileNotes(tmp_path)
    assert notes.read() == (bytes(NOTE_BYTES), b"") or notes.read() == (b"", b"")
    notes.note(b"note")
    notes.keep(b"a ledger longer than the next")
    notes.keep(b"ledger")
    assert FileNotes(tmp_path).read() == (bytes(NOTE_BYTES), b"ledger")
    notes.note(b"again")
    assert FileNotes(tmp_path).read() == (b"again".ljust(NOTE_BYTES, b"\0"), b"ledger")
    notes.close()


@pytest.mark.parametrize("left", [b"", b"rubbish", b"\xff" * 5000])
def test_whatever_stands_there_is_no_obstacle(tmp_path: Path, left: bytes) -> None:
    """A file cut short, or of somebody else."""
    (tmp_path / "in-hand").write_bytes(left)
    notes = FileNotes(tmp_path)
    place = Place(Shard("count", 1), FULL_RANGE, "lines", 5)
    notes.note(encode_note(place))
    assert decode_note(FileNotes(tmp_path).read()[0]) == place


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Something else stands in its place."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match="taken/in-hand cannot be used: File exists"):
        FileNotes(tmp_path / "taken")


def test_a_ledger_that_cannot_be_written_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The disk is full, say: notes go on, the old ledger stays."""
    notes = FileNotes(tmp_path)
    notes.keep(b"old")
    (tmp_path / "in-hand.draft").mkdir()
    notes.keep(b"new")
    assert "in-hand was not written" in caplog.text
    notes.note(b"note")
    assert FileNotes(tmp_path).read() == (b"note".ljust(NOTE_BYTES, b"\0"), b"old")
