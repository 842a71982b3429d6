"""A cluster with TLS, passwords and access control: what is refused is named, what is secret is never shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from tests.support.brokers import PASSWORD, Guarded, allow, guarded_broker
from tests.support.cluster import Cluster, cluster
from tests.support.oracle import assert_exactly_once, committed
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


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"KSTATE_CLIENT__SASL_PASSWORD": "not-the-password"}, ("Authentication failed", "password")),
        ({"KSTATE_CLIENT__SSL_CA_LOCATION": "/etc/ssl/certs"}, ("certificate", "ssl.ca.location")),
        ({"KSTATE_CLIENT__SECURITY_PROTOCOL": "PLAINTEXT"}, ("security.protocol",)),
    ],
    ids=["wrong password", "unknown certificate", "no TLS at all"],
)
def test_a_login_that_fails_is_said_with_its_cause(
    guarded: Guarded, made: Cluster, changed: dict[str, str], words: tuple[str, ...]
) -> None:
    """The job refuses, or waits and says why; secrets are not shown, nothing is processed."""
    made.settings |= changed
    run = made.run("--until-end", workers=1)
    made.await_true(lambda: all(word in run.text for word in words), 30, f"word of {words}")
    assert run.exit_code in {None, CONFIG}
    assert "not-the-password" not in run.text
    assert PASSWORD not in run.text
    assert committed(guarded.broker.bootstrap_servers, made.topic("tallies")) == []
