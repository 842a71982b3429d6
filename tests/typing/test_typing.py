"""What mypy and pyright see of an operator: right uses pass with the inferred types, each wrong line is reported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from kstate.api.topology import examine

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

MYPY_CACHE = ROOT / ".mypy_cache" / "typing"

Reported = dict[int, str]
"""Line → what the checker says about it."""


def by_mypy(path: Path, _scratch: Path) -> Reported:
    """Lines with errors under mypy --strict; what it knows of kstate is kept from run to run."""
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", MYPY_CACHE, "--config-file=", path],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = re.findall(rf"^.*\b{re.escape(path.name)}:(\d+): error: (.*)$", run.stdout, re.MULTILINE)
    return {int(line): message for line, message in found}


def by_pyright(path: Path, scratch: Path) -> Reported:
    """Lines with errors under pyright in strict mode; the requirements of development bring it with a node of its own.

    It looks at files below its configuration only.
    """
    looked_at = scratch / path.name
    if looked_at != path:
        shutil.copyfile(path, looked_at)
    config = scratch / "pyrightconfig.json"
    options = {"extraPaths": [str(ROOT)], "pythonVersion": "3.11", "typeCheckingMode": "strict"}
    config.write_text(json.dumps({"include": [path.name], **options}))
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "--project", config, "--outputjson", "--pythonpath", sys.executable],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert run.returncode in (0, 1), run.stdout + run.stderr
    result = json.loads(run.stdout)
    assert result["summary"]["filesAnalyzed"] == 1
    found = [each for each in result["generalDiagnostics"] if each["severity"] == "error"]
    return {each["range"]["start"]["line"] + 1: each["message"] for each in found}


CHECKERS = pytest.mark.parametrize("checker", [by_mypy, by_pyright], ids=["mypy", "pyright"])


@CHECKERS
@pytest.mark.parametrize("name", ["right_use.py", "example_jobs.py"])
def test_right_uses_pass_with_the_types_they_assert(
    checker: Callable[[Path, Path], Reported], name: str, tmp_path: Path
) -> None:
    """Every `assert_type` holds."""
    assert checker(HERE / name, tmp_path) == {}


@CHECKERS
def test_each_wrong_line_is_reported_and_no_other(checker: Callable[[Path, Path], Reported], tmp_path: Path) -> None:
    """Record types, missing None checks, typos: found before anything runs."""
    path = tmp_path / "wrong_use.py"
    text = HERE.joinpath("wrong_use.txt").read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    expected = {number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# wrong")}
    reported = checker(path, tmp_path)
    assert len(expected) > 70
    assert set(reported) == expected, {line: reported.get(line) for line in set(reported) ^ expected}


@pytest.mark.parametrize("name", ["right_use", "example_jobs"])
def test_what_type_checkers_accept_is_wired_soundly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs of these files would start."""
    spec = spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    assert examine(module.job)[1] == []


def test_pyright_accepts_the_example_jobs(tmp_path: Path) -> None:
    """Their operators and tests, in strict mode; mypy sees them with all other code (`make types`)."""
    shutil.copytree(ROOT / "operators", tmp_path / "operators", ignore=shutil.ignore_patterns("__pycache__"))
    options = {"extraPaths": [str(ROOT)], "pythonVersion": "3.11", "typeCheckingMode": "strict"}
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps({"include": ["operators"], **options}))
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "--project", config, "--outputjson", "--pythonpath", sys.executable],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    result = json.loads(run.stdout)
    assert result["summary"]["filesAnalyzed"] > 15
    assert [f"{each['file']}: {each['message']}" for each in result["generalDiagnostics"]] == []
