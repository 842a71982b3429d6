"""The jars of Apache Kafka, fetched once from Maven Central by jgo: no Maven, no Java.

`kafka_jars.lock` pins every jar by size and SHA-256, so a torn download or a foreign file in the cache is noticed and
fetched anew, and nothing is resolved at run time. The cache is Maven's own (`~/.m2/repository`, `M2_REPO`, or what the
user's jgo configuration says, mirrors included), shared with everything else on the machine.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from kstate.errors import ConfigError, RetryableError

KAFKA_VERSION = "4.3.1"
PARALLEL_DOWNLOADS = 6  # enough to hide the latency of 46 small files, polite to the server
ATTEMPTS = 3  # per jar: one torn transfer must not fail a first start

Progress = Callable[[int, int], None]
"""Told (bytes fetched so far, bytes to fetch in all) after each jar."""


@dataclass(frozen=True, slots=True)
class PinnedJar:
    """One line of the lock file; `coordinate` is group:artifact:version, `size` in bytes."""

    coordinate: str
    size: int
    sha256: str

    def path_in(self, repository: Path) -> Path:
        """Where Maven's layout keeps this jar."""
        group, artifact, version = self.coordinate.split(":")
        return repository.joinpath(*group.split("."), artifact, version, f"{artifact}-{version}.jar")

    def is_intact(self, path: Path) -> bool:
        """Whether the file is there and is this jar, byte for byte."""
        try:
            return path.stat().st_size == self.size and hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256
        except FileNotFoundError:
            return False


def kafka_jars(on_progress: Progress | None = None) -> list[Path]:
    """The class path of a Kafka broker, downloaded first where the cache lacks it.

    Raises ConfigError where jgo is not installed or the cache cannot be written, RetryableError where a download fails.
    """
    repository, mirrors = _repositories()
    pinned = list(pinned_jars())
    missing = [jar for jar in pinned if not jar.is_intact(jar.path_in(repository))]
    if missing:
        _download(missing, repository, mirrors, on_progress or _silent)
    return [jar.path_in(repository) for jar in pinned]


def pinned_jars() -> Iterator[PinnedJar]:
    """The lines of the lock file."""
    text = resources.files("kstate.adapters").joinpath("kafka_jars.lock").read_text(encoding="utf-8")
    for line in text.splitlines():
        if not line.startswith("#"):
            coordinate, size, sha256 = line.split()
            yield PinnedJar(coordinate, int(size), sha256)


def _silent(done: int, total: int) -> None:
    """A Progress that nobody watches."""


def _repositories() -> tuple[Path, dict[str, str]]:
    """Folder of the local cache, and the remote repositories in the order in which they are asked."""
    try:
        from jgo.config import GlobalSettings
        from jgo.constants import MAVEN_CENTRAL_URL
    except ImportError as missing:
        raise ConfigError(
            "The embedded broker needs jgo, which is not installed.", hint="pip install 'kstate[embedded]'"
        ) from missing
    settings = GlobalSettings.load()
    return settings.repo_cache, {**settings.repositories, "central": MAVEN_CENTRAL_URL}


def _download(missing: list[PinnedJar], repository: Path, mirrors: dict[str, str], on_progress: Progress) -> None:
    """Fetch into a folder of its own, then move each intact jar into place: others never see half a jar."""
    total, done = sum(jar.size for jar in missing), 0
    on_progress(done, total)
    try:
        repository.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".kstate-", dir=repository))
    except OSError as unwritable:
        raise ConfigError(
            f"Kafka's jars ({total >> 20} MiB) cannot be stored in {repository}: {unwritable}.",
            hint="make the folder writable, or name another one in M2_REPO",
        ) from unwritable
    pool = ThreadPoolExecutor(PARALLEL_DOWNLOADS, thread_name_prefix="kafka-jars")
    try:
        running = {pool.submit(_fetch, jar, staging, repository, mirrors): jar for jar in missing}
        for finished in as_completed(running):
            finished.result()
            done += running[finished].size
            on_progress(done, total)
    finally:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(staging, ignore_errors=True)


def _fetch(jar: PinnedJar, staging: Path, repository: Path, mirrors: dict[str, str]) -> None:
    """Download one jar and move it into the repository; the reason of the last failure is in the error."""
    reason: object = "no attempt"
    for _ in range(ATTEMPTS):
        staged = jar.path_in(staging)
        staged.unlink(missing_ok=True)  # jgo writes only where nothing is
        try:
            _ask_jgo(jar, staging, mirrors)
            if jar.is_intact(staged):
                target = jar.path_in(repository)
                target.parent.mkdir(parents=True, exist_ok=True)
                staged.replace(target)
                return
            reason = "it does not have the pinned size and SHA-256"
        except (OSError, RuntimeError) as failed:  # requests' errors are OSErrors, jgo's own a RuntimeError
            if isinstance(failed, OSError) and failed.errno == errno.ENOSPC:
                raise ConfigError(
                    f"No room left in {repository} for Kafka's jars.", hint="free 100 MiB, or name a folder in M2_REPO"
                ) from failed
            reason = failed
    raise RetryableError(
        f"Kafka's jar {jar.coordinate} could not be fetched from {', '.join(mirrors.values())}: {reason}.",
        hint="check the network and its proxy (HTTPS_PROXY), name a mirror in jgo's configuration, or use a running "
        "broker (KSTATE_BOOTSTRAP_SERVERS)",
    )


def _ask_jgo(jar: PinnedJar, staging: Path, mirrors: dict[str, str]) -> None:
    from jgo.maven import MavenContext

    group, artifact, version = jar.coordinate.split(":")
    context = MavenContext(repo_cache=staging, remote_repos=mirrors, timeout=30)
    context.project(group, artifact).at_version(version).artifact().resolve()
