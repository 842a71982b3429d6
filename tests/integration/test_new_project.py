"""The project that `kstate new` makes passes its own tests and checks, before anybody has changed a line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import COMMAND

pytestmark = [pytest.mark.slow]


def succeed(folder: Path, *command: str) -> str:
    """What a command printed that must have exit code 0; nothing of this repository is on its path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KSTATE_", "PYTEST_"))}
    done = subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_new_project_passes_its_own_tests(tmp_path: Path) -> None:
    """pytest, mypy --strict, ruff's usual rules, `kstate check` and `kstate schema check`."""
    succeed(tmp_path, *COMMAND, "new", "page-views")
    project, package = tmp_path / "page-views", "page_views"
    succeed(project, sys.executable, "-m", "mypy")
    rules = ["--select", "B,E,F,I,N,PLE,PLW,RUF,SIM,UP,W", "--line-length", "120"]
    succeed(project, sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", *rules)
    succeed(project, sys.executable, "-m", "ruff", "format", "--isolated", "--check", "--no-cache", "--line-length=120")
    assert "no faults" in succeed(project, *COMMAND, "check", f"{package}:job")
    succeed(project, *COMMAND, "schema", "check", "--out", f"{package}/records.py")
    assert " passed" in succeed(project, sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
