"""Whether a local copy was made from the log that is there now.

A topic that was deleted and made anew may have grown beyond the old offset, and where epochs are alike in size its
chain of epochs even fits. So the log is asked: the record before the copy's offset is a marker, and of the incarnation
that the copy names.
"""

from __future__ import annotations

from collections.abc import Callable

from kstate.clock import Step, Steps
from kstate.errors import DecodeError
from kstate.interfaces import Log, Reader
from kstate.plan import TopicPartition
from kstate.state.blocks import decode_frame
from kstate.state.lineage import Lineage
from kstate.state.markers import Marker

AWAIT_RECORDS = Step("await-records", wait=0.01)


def drop_foreign(log: Log, source: TopicPartition, kept: Lineage, report: Callable[[str], None]) -> Steps[None]:
    """Clear the slots whose copy was not made from this log."""
    if not len(kept):
        return
    reader, writers = log.reader(), dict[int, str | None]()
    try:
        for key_range, position in list(kept):
            at = position.offset - 1
            if at not in writers:
                writers[at] = yield from _writer_at(reader, source, at)
            if writers[at] != position.incarnation:
                kept.clear(key_range)
                found = f"a marker of {writers[at]}" if writers[at] else "no marker"
                report(
                    f"Local copy of {key_range} follows a marker of {position.incarnation} at {source}@{at}, where "
                    f"{found} stands: it was made from another log and is dropped."
                )
    finally:
        reader.close()


def _writer_at(reader: Reader, source: TopicPartition, offset: int) -> Steps[str | None]:
    """The incarnation that wrote the marker at an offset; None when no committed marker stands there."""
    reader.assign({source: offset})
    while not (batches := reader.poll(1, 0.0)):
        yield AWAIT_RECORDS
    batch = batches[0]
    if batch.offsets[:1] != [offset]:
        return None
    try:
        frame = decode_frame(batch.values[0] or b"")
    except DecodeError:  # whoever reads the whole log says what is wrong with it
        return None
    return frame.incarnation if isinstance(frame, Marker) else None
