"""Whatever is wrong with a local store is noticed; it is restored from the backup, and the results are right."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, Process, cluster
from tests.support.oracle import assert_exactly_once
from tests.support.records import Entry
from tests.support.stores import GHOSTS, files, flip, haunt, opened
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = pytest.mark.integration

PARTITIONS = 2
CHUNK = 1_500
KEYS = 400
DAMAGED = 6

Damage = Callable[[Cluster, KafkaUnderTest], None]


def corrupt_sorted_files(made: Cluster, kafka: KafkaUnderTest) -> None:
    """A byte in each data block region of each file: found only when the block is read."""
    tables = files(made, "one", "*.sst")
    assert tables, "there is nothing to corrupt"
    for table in tables:
        for at in (0.05, 0.2, 0.4):
            flip(table, at)


def truncate_manifest(made: Cluster, kafka: KafkaUnderTest) -> None:
    """The file that says which files are the database ends in the middle of a record."""
    (manifest,) = files(made, "one", "MANIFEST-*")
    manifest.write_bytes(manifest.read_bytes()[:-7])


def put_a_foreign_folder(made: Cluster, kafka: KafkaUnderTest) -> None:
    """A sound store, but another worker's, with state for keys that were never seen."""
    shutil.rmtree(made.data / made.app / "one")
    with opened(made, "one", kafka.cluster_id, owner="somebody-else") as store:
        haunt(store, PARTITIONS)


def put_a_folder_of_another_cluster(made: Cluster, kafka: KafkaUnderTest) -> None:
    """The same application and worker, but another Kafka: its offsets mean nothing here."""
    shutil.rmtree(made.data / made.app / "one")
    with opened(made, "one", "another-cluster") as store:
        haunt(store, PARTITIONS)


def lose_the_folder(made: Cluster, kafka: KafkaUnderTest) -> None:
    """A new machine."""
    shutil.rmtree(made.data / made.app / "one")


DAMAGES: list[tuple[Damage, str]] = [
    (corrupt_sorted_files, "wiped"),
    (truncate_manifest, "wiped"),
    (put_a_foreign_folder, "wiped"),
    (put_a_folder_of_another_cluster, "wiped"),
    (lose_the_folder, ""),
]


def worked_through(made: Cluster, worker: Process, given: list[Entry], chunk: list[Entry]) -> None:
    """Let a worker process a chunk, starting it again when it finds its store damaged; then stop it in order."""
    produce_entries(made.bootstrap_servers, made.topic("entries"), chunk)
    given += chunk
    alive = [worker]

    def done() -> bool:
        if alive[0].exit_code == DAMAGED:
            alive[0] = made.worker("one")
        return len(made.records(made.topic("tallies"))) >= len(given)

    made.await_true(done, 40, "the results")
    alive[0].signal(signal.SIGTERM)
    assert alive[0].wait(10) == 0, made.report()


def test_a_damaged_foreign_or_stale_store_is_wiped_and_restored(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> None:
    """One after the other on the same job; a store that is only old is brought forward instead."""
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path) as made:
        create_topics(made.bootstrap_servers, {made.topic("entries"): PARTITIONS, made.topic("tallies"): PARTITIONS})
        made.coordinator("--workers", "1")
        given: list[Entry] = []
        worked_through(made, made.worker("one"), given, entries(CHUNK, keys=KEYS))
        old = tmp_path / "old"
        shutil.copytree(made.data / made.app / "one", old)
        for damage, said in DAMAGES:
            damage(made, kstate_kafka)
            before = made.output("one")
            ghosts = [Entry(ghost, len(given) + at, "") for at, ghost in enumerate(GHOSTS)]
            chunk = entries(CHUNK, keys=KEYS, seed=len(given), first=len(given) + len(ghosts))
            worked_through(made, made.worker("one"), given, ghosts + chunk)
            assert said in made.output("one").removeprefix(before), f"{damage.__name__}: not a word of it"
        shutil.rmtree(made.data / made.app / "one")
        shutil.copytree(old, made.data / made.app / "one")
        before = made.output("one")
        chunk = entries(CHUNK, keys=KEYS, seed=99, first=len(given))
        worked_through(made, made.worker("one"), given, chunk)
        assert "wiped" not in made.output("one").removeprefix(before)
        assert_exactly_once(made.bootstrap_servers, made.topic("tallies"), expected_tallies(given))
