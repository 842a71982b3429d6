"""RocksStore on damaged, foreign and busy folders: found, wiped, never believed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from kstate.adapters import rocksdb
from kstate.adapters.rocksdb import _FolderLock, open_store
from kstate.adapters.rocksdb_manifest import manifest_fault
from kstate.errors import ConfigError, CorruptStateError, RetryableError
from kstate.state.layout import identity_entry
from tests.support.rocks_bench import MEMORY_BYTES, STAMP, opened

KEYS = [b"k%05d" % i for i in range(3_000)]
VALUES: list[bytes | None] = [Random(i).randbytes(30) for i in range(3_000)]
PAIRS = list(zip(KEYS, VALUES, strict=True))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three sorted files; copied, never changed."""
    folder = tmp_path_factory.mktemp("sound")
    with opened(folder) as (store, _):
        for part in range(3):
            store.write(KEYS[part::3], VALUES[part::3])
            store.flush()
    assert len(list(folder.glob("db/*.sst"))) >= 2
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(sound, tmp_path / "store"))


def manifest(folder: Path) -> Path:
    """The MANIFEST in force."""
    return folder / "db" / (folder / "db" / "CURRENT").read_text().strip()


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def outcome(folder: Path) -> str:
    """Open the folder and read all of it in both ways: where the damage is found, and never a wrong value."""
    with opened(folder) as (store, wiped):
        if wiped is not None:
            assert list(store.scan(b"a", b"z")) == []
            return "open"
        try:
            assert store.get_many(KEYS) == VALUES
            assert list(store.scan(b"a", b"z")) == PAIRS
        except CorruptStateError:
            return "read"
    return "sound"


def test_a_sound_store_is_kept(folder: Path) -> None:
    """Nothing is wiped without a reason."""
    assert outcome(folder) == "sound"


def test_flipped_bits_in_every_sorted_file_are_found(folder: Path, tmp_path: Path) -> None:
    """At the opening or at the read, by get and by scan; afterwards the next opening wipes."""
    rng = Random(7)
    found: list[str] = []
    for name in sorted(path.name for path in folder.glob("db/*.sst")):
        size = (folder / "db" / name).stat().st_size
        for at in [*(rng.randrange(size) for _ in range(12)), size - 1, size - 60]:
            victim = Path(shutil.copytree(folder, tmp_path / "victim"))
            flip(victim / "db" / name, at, rng.randrange(8))
            found.append(outcome(victim))
            if found[-1] == "read":
                assert outcome(victim) == "open"
            shutil.rmtree(victim)
    assert found.count("read") > len(found) / 2
    assert found.count("open") > 0
    assert found.count("sound") < len(found) / 4  # a bit that no read needs


def test_a_scan_does_not_end_early_on_a_damaged_block(folder: Path) -> None:
    """The binding's own iterators end silently there."""
    for path in folder.glob("db/*.sst"):
        if (size := path.stat().st_size) > 10_000:  # the first one holds the stamp only, which every opening reads
            flip(path, size // 4)
    with opened(folder) as (store, wiped):
        assert wiped is None
        with pytest.raises(CorruptStateError, match=f"{folder} is damaged: Corruption"):
            list(store.scan(b"a", b"z"))


@pytest.mark.parametrize("damage", ["short", "gone"])
def test_a_short_or_missing_sorted_file_is_found_at_the_opening(folder: Path, damage: str) -> None:
    """Paranoid checks compare sizes with the MANIFEST."""
    path = next(iter(folder.glob("db/*.sst")))
    if damage == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    assert outcome(folder) == "open"


def test_a_manifest_cut_anywhere_is_found_or_gives_an_older_state(folder: Path, tmp_path: Path) -> None:
    """Between two records a shorter MANIFEST is a sound older one: whole flushes are missing, from the end."""
    size = manifest(folder).stat().st_size
    files = [set(KEYS[part::3]) for part in range(3)]
    older = [set[bytes](), files[0], files[0] | files[1], set(KEYS)]
    wiped = 0
    for end in range(0, size, 5):
        victim = Path(shutil.copytree(folder, tmp_path / "victim"))
        os.truncate(manifest(victim), end)
        with opened(victim) as (store, why):
            wiped += why is not None
            assert why is not None or {key for key, _ in store.scan(b"a", b"z")} in older
        shutil.rmtree(victim)
    assert wiped > size / 5 * 0.9


def test_every_flipped_bit_of_the_manifest_is_found_before_rocksdb_sees_it(folder: Path) -> None:
    """Some of them would keep RocksDB busy for ever, some it would not notice."""
    path = manifest(folder)
    data = path.read_bytes()
    assert manifest_fault(folder / "db") is None
    for at in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        assert manifest_fault(folder / "db") is not None, at
    path.write_bytes(data)
    assert outcome(folder) == "sound"


def test_a_manifest_of_several_blocks_is_sound(tmp_path: Path) -> None:
    """Records are split over blocks of 32 KiB, whose last bytes may be zeros."""
    with opened(tmp_path) as (store, _):
        for i in range(300):
            store.write([b"k" * 400 + b"%d" % i], [b"v"])
            store.flush()
        assert manifest(tmp_path).stat().st_size > 2 * 32 * 1024
        assert manifest_fault(tmp_path / "db") is None


def empty(folder: Path) -> None:
    """Remove every file of a folder."""
    for path in folder.iterdir():
        path.unlink()


Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "CURRENT is gone": lambda db: (db / "CURRENT").unlink(),
    "CURRENT is empty": lambda db: (db / "CURRENT").write_bytes(b""),
    "CURRENT names nothing": lambda db: (db / "CURRENT").write_bytes(b"MANIFEST-999999\n"),
    "CURRENT names another file": lambda db: (db / "CURRENT").write_bytes(b"IDENTITY\n"),
    "CURRENT is no text": lambda db: (db / "CURRENT").write_bytes(b"\xff\xfe"),
    "the MANIFEST is gone": lambda db: manifest(db.parent).unlink(),
    "the MANIFEST is empty": lambda db: os.truncate(manifest(db.parent), 0),
    "the MANIFEST is another's": lambda db: manifest(db.parent).write_bytes(bytes(400)),
    "all files are gone": empty,
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_at_the_top_is_found_and_the_store_made_anew(folder: Path, what: str) -> None:
    """The reason names the folder; the new store works and is kept the next time."""
    DAMAGES[what](folder / "db")
    with opened(folder) as (store, wiped):
        assert wiped is not None
        assert str(folder) in wiped
        store.write([b"k"], [b"v"])
    with opened(folder) as (store, wiped):
        assert wiped is None
        assert list(store.scan(b"a", b"z")) == [(b"k", b"v")]


def test_a_store_that_was_condemned_is_wiped_at_the_next_start(folder: Path) -> None:
    """Damage that only a reader of its content can see, as in an entry of a later release."""
    with opened(folder) as (store, wiped):
        assert wiped is None
        store.condemn("a lineage that does not decode")
    with opened(folder) as (store, wiped):
        assert wiped is not None
        assert "a lineage that does not decode" in wiped
        assert store.get_many(KEYS[:1]) == [None]
    with opened(folder) as (_, wiped):
        assert wiped is None


def test_damage_that_shows_at_the_closing_hides_no_error_before_it(folder: Path) -> None:
    """A write that found a bad block is followed by flushes that find it again, in RocksDB's own closing, too."""
    store = open_store(folder, STAMP, MEMORY_BYTES).store
    store.close()

    class Damaged:
        def flush(self) -> None:
            raise Exception("Corruption: a bad block")

        close = flush

    store._lock = _FolderLock(folder)
    store._db = Damaged()  # type: ignore[assignment]
    store.close()
    with opened(folder) as (_, wiped):
        assert wiped is not None
        assert "a bad block" in wiped


def test_files_that_hold_no_state_do_not_matter(folder: Path) -> None:
    """Options come from this build, never from the folder."""
    for path in folder.glob("db/OPTIONS-*"):
        path.write_text(path.read_text().replace("BlockBasedTable", "NoSuchTable"))
    assert outcome(folder) == "sound"
    for path in [*folder.glob("db/OPTIONS-*"), folder / "db" / "rocksdict-config.json", folder / "db" / "IDENTITY"]:
        path.write_bytes(b"\x00nonsense\xff")
    assert outcome(folder) == "sound"


@pytest.mark.parametrize("mine", [("app2", "w", "c"), ("app", "w2", "c"), ("app", "w", "c2")])
def test_a_foreign_store_is_wiped_and_says_so(tmp_path: Path, mine: tuple[str, str, str]) -> None:
    """Another application, worker or cluster."""
    with opened(tmp_path, identity_entry("app", "w", "c")) as (store, _):
        store.write([b"k"], [b"v"])
    with opened(tmp_path, identity_entry(*mine)) as (store, wiped):
        assert wiped is not None
        assert "is not of this worker or format" in wiped
        assert store.get_many([b"k"]) == [None]


def test_a_store_of_another_format_is_wiped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The format is part of the identity."""
    with opened(tmp_path, identity_entry("app", "w", "c")) as (store, _):
        store.write([b"k"], [b"v"])
    monkeypatch.setattr("kstate.state.layout.STORE_FORMAT", 3)
    with opened(tmp_path, identity_entry("app", "w", "c")) as (store, wiped):
        assert '"format": 2' in (wiped or "")
        assert store.get_many([b"k"]) == [None]


def test_a_store_without_a_stamp_is_wiped(tmp_path: Path) -> None:
    """Nobody knows whose it is."""
    with opened(tmp_path) as (store, _):
        store.write([STAMP[0], b"k"], [None, b"v"])
    with opened(tmp_path) as (_, wiped):
        assert wiped is not None


HOLDER = """
import sys
from pathlib import Path
from kstate.adapters.rocksdb import open_store
opened = open_store(Path(sys.argv[1]), (b"\\x00", b"mine"), 8 << 20)
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_and_told_who_has_the_folder(tmp_path: Path) -> None:
    """Neither opened nor wiped; free again when the first one is killed."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        for attempt in (lambda: open_store(tmp_path, STAMP, MEMORY_BYTES), lambda: rocksdb.wipe(tmp_path)):
            with pytest.raises(ConfigError, match=f"{tmp_path} is in use by process {holder.pid}"):
                attempt()
        holder.kill()
    with opened(tmp_path) as (_, wiped):
        assert wiped is None


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file cannot be used: .*Mend"):
        open_store(tmp_path / "file", STAMP, MEMORY_BYTES)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("IO error: No space left on device: While appending", RetryableError),
        ("IO error: While open: Permission denied", ConfigError),
        ("IO error: While open: Too many open files", ConfigError),
        ("IO error: While pread: Input/output error", CorruptStateError),
        ("Corruption: block checksum mismatch", CorruptStateError),
        ("Invalid argument: Keys must be added in strict ascending order.", ValueError),
    ],
)
def test_each_status_of_rocksdb_asks_for_its_own_action(tmp_path: Path, status: str, kind: type[Exception]) -> None:
    """Only damage makes the next start wipe."""
    with opened(tmp_path) as (store, _):
        store.write([b"k"], [b"v"])
        with pytest.raises(kind), store._guarded():
            raise Exception(status)
        with pytest.raises(KeyError), store._guarded():
            raise KeyError("not a status of RocksDB")
    with opened(tmp_path) as (_, wiped):
        assert (wiped is not None) == (kind is CorruptStateError)


def test_memory_stays_within_its_bound(tmp_path: Path) -> None:
    """Block cache and memtables together, after four times as much was written and read."""
    value = Random(0).randbytes(1_000)
    with opened(tmp_path) as (store, _):
        for i in range(0, 4 * MEMORY_BYTES // 1_000, 500):
            store.write([b"k%08d" % j for j in range(i, i + 500)], [value] * 500)
        assert sum(1 for _ in store.scan(b"a", b"z")) > 33_000
        used = store._db.property_int_value("rocksdb.block-cache-usage") or 0
        memtables = store._db.property_int_value("rocksdb.cur-size-all-mem-tables") or 0
    assert 0 < max(used, memtables) <= 1.1 * MEMORY_BYTES
    assert used + memtables <= 1.5 * MEMORY_BYTES


def test_nothing_is_logged_twice(tmp_path: Path) -> None:
    """Kafka is the log: RocksDB's own stays empty."""
    with opened(tmp_path) as (store, _):
        store.write(KEYS, VALUES)
        store.delete_range(b"a", b"z")
        logs = list(tmp_path.glob("db/*.log"))
        assert [path.stat().st_size for path in logs] == [0] * len(logs)


def test_no_file_is_left_behind_by_a_run(tmp_path: Path) -> None:
    """Neither by one that went in nor by one that was refused."""
    with opened(tmp_path) as (store, _):
        store.ingest([(b"a", b"1")])
        with pytest.raises(ValueError, match="ascending"):
            store.ingest([(b"b", b"1"), (b"a", b"1")])
        store.ingest([(b"c", b"1")])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "owner.lock"]
