"""`kstate new NAME`: names, places, and what is in the folder."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kstate.cli.main import app
from kstate.cli.new import checked_project_name, project
from kstate.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["visits-per-page", "visits_per_page", "v2", "a-1"])
def test_a_good_name(name: str) -> None:
    """Words of lower-case letters and digits, joined by - or _."""
    assert checked_project_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Page-Views", "lower-case"),
        ("2fast", "a letter first"),
        ("a--b", "joined by"),
        ("a-", "joined by"),
        ("-a", "joined by"),
        ("a.b", "joined by"),
        ("../a", "joined by"),
        ("a b", "joined by"),
        ("größe", "joined by"),
        ("", "joined by"),
        ("a\n", "joined by"),
        ("x" * 51, "50 or fewer"),
        ("class", "my-class"),
        ("match", "my-match"),
        ("json", "json-job"),
        ("kstate", "kstate-job"),
        ("tests", "tests-job"),
        ("confluent-kafka", "confluent-kafka-job"),
    ],
)
def test_a_bad_name_is_refused_with_a_mend(name: str, why: str) -> None:
    """It could be no folder, no application or no package, or would hide another one."""
    with pytest.raises(ConfigError, match=why):
        checked_project_name(name)


def test_a_project_is_complete_and_consistent(folder: Path) -> None:
    """Nothing is left to fill in; the record classes are those of the schemas."""
    result = CliRunner().invoke(app, ["new", "page-views"])
    assert result.exit_code == 0, result.output
    made = folder / "page-views"
    texts = {str(path.relative_to(made)): path.read_text() for path in made.rglob("*") if path.is_file()}
    assert texts == project("page-views")
    assert {".gitignore", "README.md", "kstate.toml", "pyproject.toml", "page_views/records.py"} < texts.keys()
    assert [path for path, text in texts.items() if "$" in path + text] == []
    assert tomllib.loads(texts["pyproject.toml"])["project"]["name"] == "page-views"
    schemas = ["--schemas", str(made / "schemas"), "--out", str(made / "page_views" / "records.py")]
    assert CliRunner().invoke(app, ["schema", "check", *schemas]).exit_code == 0


def test_an_empty_folder_is_taken(folder: Path) -> None:
    """As `git init` before it leaves none, but `mkdir` does."""
    (folder / "page-views").mkdir()
    result = CliRunner().invoke(app, ["new", "page-views", "--json"])
    told = json.loads(result.stdout)
    assert told == {"folder": "page-views", "files": sorted(project("page-views"))}


def test_what_is_there_already_is_not_touched(folder: Path) -> None:
    """A folder with anything in it, a file, a link to nowhere: exit code 2, and which path it is."""
    (folder / "full").mkdir()
    (folder / "full" / "precious").write_text("mine")
    (folder / "file").write_text("mine")
    (folder / "link").symlink_to("nowhere")
    for name, why in (("full", "not empty"), ("file", "no folder"), ("link", "no folder")):
        result = CliRunner().invoke(app, ["new", name])
        assert result.exit_code == ConfigError.exit_code
        assert f"{folder / name} is there already" in result.stderr
        assert why in result.stderr
    assert [path.name for path in (folder / "full").iterdir()] == ["precious"]
    assert (folder / "file").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(folder: Path) -> None:
    """No traceback."""
    place = folder / "page-views"
    place.mkdir()
    taken = "x" * 300  # no file system has such names
    from kstate.cli.new import write

    with pytest.raises(ConfigError, match="cannot be made"):
        write(place, {taken: "text"})
