"""The committed state of an operator, asked of the workers that run its key ranges: quicker than reading a log.

Each key range is shown as of the last epoch that its owner has written to its store; an answer during which the range
went to somebody else is thrown away, and the new owner is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from kstate.answers import Entry, Query, RangeGone, decode_answer
from kstate.cli.state_past import NOW, Moment
from kstate.cli.state_rows import Rows
from kstate.clock import Clock
from kstate.config import MIB
from kstate.coordinator.observed import Observed
from kstate.errors import ConfigError, DecodeError, RetryableError
from kstate.keyspace import KeyRange
from kstate.plan import Plan, Shard, Tile

ANSWER_BYTES = 64 * MIB
"""An answer that is longer waits in a file until it is whole."""
COPY_BYTES = MIB
AGAIN_S = 0.1

Ask = Callable[[str, Query, float], BinaryIO]
"""Address, query, seconds of silence → the bytes of an answer. Raises RangeGone, RetryableError, ConfigError."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one key range is asked for, and the time."""

    clock: Clock
    seconds: float


class Owners:
    """The workers of one operator; `look` tells what is known of the job by now."""

    def __init__(self, rows: Rows, look: Callable[[], Observed], ask: Ask, patience: Patience) -> None:
        self._rows = rows
        self._look = look
        self._ask = ask
        self._patience = patience

    def entries(self, partition: int, moment: Moment, key_range: KeyRange) -> Iterator[Entry]:
        """All of a key range, in order. Raises ConfigError, RetryableError when an owner does not answer in time."""
        if moment != NOW:
            raise ConfigError("Workers know the present only.", hint="leave --live away: the backup topics go back.")
        shard, lo = Shard(self._rows.uid, partition), key_range.lo
        while lo < key_range.hi:
            part, answer = self._answered(shard, KeyRange(lo, key_range.hi))
            with answer:
                yield from decode_answer(answer)
            lo = part.hi

    def _answered(self, shard: Shard, key_range: KeyRange) -> tuple[KeyRange, BinaryIO]:
        """The first part of a key range that one worker runs, and its whole answer."""
        deadline = self._patience.clock.monotonic() + self._patience.seconds
        while True:
            tile, address = self._owner(shard, key_range.lo)
            part = tile.key_range.overlap(key_range)
            assert part is not None
            try:
                if address is None:
                    raise RetryableError(f"Nobody answers for {tile}: it has no owner, or that is silent.")
                query = Query(shard, self._rows.operator_id, part)
                return part, _whole(self._ask(address, query, self._patience.seconds))
            except RangeGone:
                failed = RetryableError(f"Nobody answers for {tile}: it is on its way to somebody else.")
            except (DecodeError, OSError) as error:
                failed = RetryableError(f"The answer for {tile} was torn: {error}.")
            except RetryableError as error:
                failed = error
            if self._patience.clock.monotonic() >= deadline:
                raise failed
            self._patience.clock.sleep(AGAIN_S)

    def _owner(self, shard: Shard, slot: int) -> tuple[Tile, str | None]:
        """Who runs a slot by the newest plan, and where it answers; None when it was not heard of late."""
        observed = self._look()
        plan = observed.control.plan
        tile = _tile(plan, shard, slot)
        heard = observed.heard.get(tile.worker or "")
        if heard is None:
            return tile, None
        if not heard.beat.queries:
            raise ConfigError(
                f"Worker {heard.beat.name} answers no queries.",
                hint="set queries.host for the workers (KSTATE_QUERIES__HOST=127.0.0.1), or leave --live away.",
            )
        return tile, heard.beat.queries


def _tile(plan: Plan | None, shard: Shard, slot: int) -> Tile:
    tiles = () if plan is None else plan.tiles
    found = next((tile for tile in tiles if tile.shard == shard and slot in tile.key_range), None)
    if found is None:
        raise ConfigError(f"There is no {shard} in the newest plan.", hint="see `kstate status`.")
    return found


def _whole(answer: BinaryIO) -> BinaryIO:
    """An answer that counts, from its beginning: it was read to its end."""
    spooled = cast(BinaryIO, SpooledTemporaryFile(ANSWER_BYTES))  # noqa: SIM115 (the caller's)
    try:
        with answer:
            while data := answer.read(COPY_BYTES):
                spooled.write(data)
        spooled.seek(0)
        for _ in decode_answer(spooled):
            pass
    except BaseException:
        spooled.close()
        raise
    spooled.seek(0)
    return spooled
