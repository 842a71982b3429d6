"""What must become of the records of the sample job whatever happens, computed offline and without the engine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kstate.testing.sample_job import LATENESS_MS, PARTITIONS, QUIET_MS, WINDOW_MS, Closed, Fed, Line, Payment
from kstate.times import UNKNOWN_TIME


@dataclass(frozen=True, slots=True)
class Expected:
    """What the fed records must become."""

    lines_of: Mapping[str, Counter[int]]
    """Word → the lines it stands in, as often as it does."""
    authors: Mapping[int, str | None]
    """Line → its key, within which order is kept; in the order of sending."""
    balances: Mapping[str, Sequence[tuple[int, int]]]
    """Account → (payment, total) in order."""
    quiets: Mapping[str, int]
    """Account → how often it was quiet."""
    closed: Mapping[tuple[str, str], Sequence[Closed]]
    """("word" or "account", which one) → its windows that are over, in order of their ends."""
    paid: int
    """Payments in all."""

    def states(self) -> Iterator[tuple[str, str, str, int]]:
        """(operator uid, state, key, value) of every state of a key whose value is known and was ever set."""
        for word, lines in self.lines_of.items():
            yield "count", "seen", word, lines.total()
        for account, balances in self.balances.items():
            yield "totals", "total", account, balances[-1][1]
        for account, number in self.quiets.items():
            yield "totals", "quiets", account, number


def expected(fed: Sequence[Fed]) -> Expected:
    """The result of the job."""
    words, accounts = _Words(), _Accounts()
    for each in fed:
        match each.record:
            case Line():
                words.add(each.record, each)
            case Payment():
                accounts.add(each.record, each)
    closed = [*words.closed(), *accounts.closed()]
    by_key: dict[tuple[str, str], list[Closed]] = defaultdict(list)
    for window in sorted(closed, key=lambda window: window.end):
        by_key[window.what, window.key].append(window)
    return Expected(
        words.lines_of,
        words.authors,
        accounts.balances,
        accounts.quiets,
        by_key,
        sum(map(len, accounts.balances.values())),
    )


@dataclass(slots=True)
class _Watermarks:
    """Of the partitions of an input."""

    highest: list[int] = field(default_factory=lambda: [UNKNOWN_TIME] * PARTITIONS)

    def saw(self, partition: int, at: int) -> int:
        """The watermark once this record was read."""
        self.highest[partition] = max(self.highest[partition], at - LATENESS_MS)
        return self.highest[partition]


@dataclass(slots=True)
class _Words:
    lines_of: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    authors: dict[int, str | None] = field(default_factory=dict)
    windows: Counter[tuple[str, int]] = field(default_factory=Counter)
    watermarks: _Watermarks = field(default_factory=_Watermarks)

    def add(self, line: Line, fed: Fed) -> None:
        self.watermarks.saw(fed.partition, line.at)
        self.authors[line.id] = fed.key
        for word in line.text.split():
            self.lines_of[word][line.id] += 1
            self.windows[word, _window_end(line.at)] += 1

    def closed(self) -> Iterable[Closed]:
        """The counting side knows of time what both partitions of lines have told it."""
        over = min(self.watermarks.highest)
        return [Closed("word", word, end, n) for (word, end), n in self.windows.items() if end <= over]


@dataclass(slots=True)
class _Accounts:
    balances: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    quiets: Counter[str] = field(default_factory=Counter)
    windows: Counter[tuple[str, int]] = field(default_factory=Counter)
    partitions: dict[str, int] = field(default_factory=dict)
    deadlines: dict[str, int] = field(default_factory=dict)
    watermarks: _Watermarks = field(default_factory=_Watermarks)

    def add(self, payment: Payment, fed: Fed) -> None:
        account = fed.key or ""
        self.partitions[account] = fed.partition
        self._fire(fed.partition, self.watermarks.saw(fed.partition, payment.at))
        before = self.balances[account][-1][1] if self.balances[account] else 0
        self.balances[account].append((payment.id, before + payment.amount))
        self.windows[account, _window_end(payment.at)] += payment.amount
        self.deadlines[account] = payment.at + QUIET_MS

    def closed(self) -> Iterable[Closed]:
        """Those of each partition by its own watermark."""
        return [
            Closed("account", account, end, n)
            for (account, end), n in self.windows.items()
            if end <= self.watermarks.highest[self.partitions[account]]
        ]

    def _fire(self, partition: int, watermark: int) -> None:
        """Timers that fall due at a record fire before it is handled."""
        due = [a for a, at in self.deadlines.items() if self.partitions[a] == partition and at <= watermark]
        for account in due:
            del self.deadlines[account]
            self.quiets[account] += 1


def _window_end(at: int) -> int:
    return at // WINDOW_MS * WINDOW_MS + WINDOW_MS
