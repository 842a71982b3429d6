"""A cluster with TLS, passwords and access control: what is refused is named, what is secret is never shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from tests.support.brokers import PASSWORD, Guarded, allow, guarded_broker
from tests.support.cluster import Cluster, cluster
from tests.support.oracle import assert_exactly_once, await_true, committed
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = pytest.mark.integration

CONFIG = 2
READ, WRITE, CREATE, DESCRIBE = AclOperation.READ, AclOperation.WRITE, AclOperation.CREATE, AclOperation.DESCRIBE


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One broker for all tests of this module; each grants rights on its own application's names."""
    with guarded_broker(tmp_path_factory.mktemp("certificate")) as guarded:
        yield guarded


@pytest.fixture
def made(guarded: Guarded, tmp_path: Path) -> Iterator[Cluster]:
    """The tally job for a user who may nothing yet; its topics and input were made by somebody else."""
    with cluster(guarded.address, "tally", tmp_path, **guarded.settings) as made:
        server = guarded.broker.bootstrap_servers
        create_topics(server, {made.topic("entries"): 1, made.topic("tallies"): 1})
        produce_entries(server, made.topic("entries"), entries(500))
        yield made


def refused(made: Cluster, *words: str) -> None:
    """A run ends with exit code 2 and says these words, and never the password."""
    before = made.output("run")
    assert made.run("--until-end", workers=1).wait(40) == CONFIG, made.report()
    said = " ".join(made.output("run").removeprefix(before).split())
    for word in words:
        assert word in said, f"{word!r} is not in:\n{said}"
    assert PASSWORD not in said


def test_each_missing_right_is_named_and_with_all_of_them_the_job_runs(guarded: Guarded, made: Cluster) -> None:
    """From no rights to all, one grant after the other: over TLS, with a password, and exactly once."""
    server, app = guarded.broker.bootstrap_servers, made.app
    refused(made, app, "AUTHORIZATION_FAILED", "ACL")  # who is refused first, coordinator or worker, is chance
    allow(server, ResourceType.TOPIC, app, DESCRIBE, WRITE, CREATE)
    refused(made, f"opening '{app}-", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "ACL")
    allow(server, ResourceType.TRANSACTIONAL_ID, app, DESCRIBE, WRITE)
    refused(made, f"reading {app}.", "TOPIC_AUTHORIZATION_FAILED", "ACL")
    allow(server, ResourceType.TOPIC, f"{app}.", READ)
    refused(made, f"reading {app}-entries[0]", "TOPIC_AUTHORIZATION_FAILED", "ACL")
    allow(server, ResourceType.TOPIC, app, READ)
    made.settings["KSTATE_CLIENT__DEBUG"] = "security,broker"
    assert made.run("--until-end", workers=1).wait() == 0, made.report()
    assert_exactly_once(server, made.topic("tallies"), expected_tallies(entries(500)))
    assert PASSWORD not in made.output("run")


MISTAKES: list[tuple[dict[str, str], tuple[str, ...]]] = [
    ({"KSTATE_CLIENT__SASL_PASSWORD": "not-the-password"}, ("Authentication failed", "password")),
    ({"KSTATE_CLIENT__SSL_CA_LOCATION": "/etc/ssl/certs"}, ("certificate", "ssl.ca.location")),
    ({"KSTATE_CLIENT__SECURITY_PROTOCOL": "PLAINTEXT"}, ("security.protocol",)),
]
"""What is wrong (password, certificate, no TLS at all), and what must be said of it."""


def test_a_login_that_fails_is_said_with_its_cause(guarded: Guarded, made: Cluster) -> None:
    """Three workers, each told something wrong: each refuses, or waits and says why; secrets are not shown."""
    told, workers = made.settings, []
    for number, (mistake, _) in enumerate(MISTAKES):
        made.settings = told | mistake
        workers.append(made.worker(f"worker-{number}"))
    for worker, (_, words) in zip(workers, MISTAKES, strict=True):
        await_true(lambda w=worker, said=words: all(word in w.text for word in said), 30, f"word of {words}")  # type: ignore[misc]
        assert worker.exit_code in {None, CONFIG}
        assert "not-the-password" not in worker.text
        assert PASSWORD not in worker.text
    assert committed(guarded.broker.bootstrap_servers, made.topic("tallies")) == []
