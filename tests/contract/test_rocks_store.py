"""The local store in RocksDB: the contract, a machine against a plain map, and a real kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.contract.store_contract import Pairs, StoreContract, content
from tests.support.rocks_bench import RocksBench, opened


class TestRocksStore(StoreContract):
    """The contract over the real thing."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[RocksBench]:
        """An empty store in a folder of its own."""
        bench = RocksBench(tmp_path)
        yield bench
        bench.store.close()


keys = st.binary(min_size=1, max_size=2).map(lambda key: b"k" + key)
changes = st.dictionaries(keys, st.none() | st.binary(max_size=12), min_size=1, max_size=6)


def apply(model: dict[bytes, bytes], made: dict[bytes, bytes | None]) -> None:
    """What a write or run does to a plain map."""
    for key, value in made.items():
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value


class StoreMachine(RuleBasedStateMachine):
    """RocksStore against a dict; after a crash, against every content that the contract allows."""

    def __init__(self) -> None:
        super().__init__()
        self._root = tempfile.TemporaryDirectory()
        self._bench = RocksBench(Path(self._root.name))
        self._model: dict[bytes, bytes] = {}
        self._allowed: list[dict[bytes, bytes]] = [{}]
        """Contents that a crash may leave: one for each prefix of the writes since the last flush."""

    @rule(made=changes)
    def write(self, made: dict[bytes, bytes | None]) -> None:
        self._bench.store.write(list(made), list(made.values()))
        apply(self._model, made)
        self._allowed.append(dict(self._model))

    @rule(lo=keys, hi=keys)
    def delete_range(self, lo: bytes, hi: bytes) -> None:
        if lo < hi:
            self._bench.store.delete_range(lo, hi)
            self._model = {key: value for key, value in self._model.items() if not lo <= key < hi}
            self._allowed.append(dict(self._model))

    @rule(made=changes)
    def ingest(self, made: dict[bytes, bytes | None]) -> None:
        """Durable at once, over whichever prefix a crash will leave."""
        self._bench.store.ingest(sorted(made.items()))
        for content_ in (self._model, *self._allowed):
            apply(content_, made)

    @rule()
    def flush(self) -> None:
        self._bench.store.flush()
        self._allowed = [dict(self._model)]

    @rule()
    def reopen(self) -> None:
        self._bench.reopen()
        self._allowed = [dict(self._model)]

    @rule()
    def crash(self) -> None:
        self._bench.crash(Random(0))
        found = dict(content(self._bench.store))
        assert found in self._allowed
        self._model = found
        self._allowed = [dict(found)]

    @invariant()
    def content_is_the_models(self) -> None:
        pairs: Pairs = sorted(self._model.items())
        assert content(self._bench.store) == pairs
        asked = [*self._model, b"kabsent"]
        assert self._bench.store.get_many(asked) == [self._model.get(key) for key in asked]

    def teardown(self) -> None:
        self._bench.store.close()
        self._root.cleanup()


StoreMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStoreMachine = StoreMachine.TestCase

WRITER = """
import sys
from pathlib import Path
from kstate.adapters.rocksdb import open_store
store = open_store(Path(sys.argv[1]), (b"\\x00", b"mine"), 1 << 20).store
(last,) = store.get_many([b"n"])
for i in range(int(last or 0) + 1, 1_000_000):
    store.write([b"n", *(b"%d/%d" % (i % 50, j) for j in range(20))], [b"%d" % i, *[b"%d" % i + bytes(500)] * 20])
    if i % 40 == 0:
        store.ingest([(b"run", b"%d" % i)])
    print(i, flush=True)
"""


def test_a_killed_process_leaves_whole_writes_in_order(tmp_path: Path) -> None:
    """SIGKILL at any moment: the counter and what was written with it agree, run after run; nothing is wiped."""
    rng = Random(5)
    flushed = 0
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(rng.randint(300, 2_000))]
        os.kill(writer.pid, signal.SIGKILL)
        said += writer.stdout.read().splitlines()
        writer.stdout.close()
        writer.wait()
        with opened(tmp_path) as (store, wiped):
            assert wiped is None
            last = int(store.get_many([b"n"])[0] or 0)
            assert flushed < last <= int(said[-1]) + 1
            flushed = last
            for key, value in store.scan(b"0", b":"):
                number, j = map(int, key.split(b"/"))
                expected = last - (last - number) % 50
                assert value == b"%d" % expected + bytes(500), (key, j, last)
