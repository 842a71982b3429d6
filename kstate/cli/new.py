"""`kstate new NAME`: a project that passes its own tests: schemas, an operator, a job, tests, settings.

The templates beside this module are the project's files as they will be, with `$name` and `$package` in place of the
names, and `.in` behind theirs, so that no tool takes them for code of kstate. The record classes are not among them:
they are generated from the schemas, as users do it.
"""

from __future__ import annotations

import json
import keyword
import re
import sys
from collections.abc import Mapping
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from kstate.cli.record_classes import record_classes
from kstate.cli.running import exit_code_of
from kstate.errors import ConfigError

NAME_CHARACTERS_MAX = 50
"""The name begins the names of topics, which may have 249 characters."""

_SUFFIX = ".in"
_FOLDERS = {"package": "$package"}
_FILES = {"gitignore": ".gitignore"}


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the folder and the application, as in page-views.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a project in a new folder of this name: an operator with its tests, ready to run."""
    with exit_code_of("kstate new"):
        files = project(checked_project_name(name))
        write(Path(name), files)
    if as_json:
        typer.echo(json.dumps({"folder": name, "files": sorted(files)}))
        return
    typer.echo(f"{name}: {len(files)} files; README.md says how to go on:")
    typer.echo(f"  cd {name}\n  pytest\n  kstate check {package_of(name)}:job")


def checked_project_name(name: str) -> str:
    """A name that can be a folder, an application (it begins topics) and, with `_` for `-`, a Python package."""
    package = package_of(name)
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise ConfigError(
            f"{name!r} is no name for a project.",
            hint="use lower-case letters and digits, words joined by '-' or '_', a letter first, as in page-views.",
        )
    if len(name) > NAME_CHARACTERS_MAX:
        raise ConfigError(f"{name!r} has {len(name)} characters.", hint=f"use {NAME_CHARACTERS_MAX} or fewer.")
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        raise ConfigError(f"{name!r} is a word of Python's own, no package can have it.", hint=f"say my-{name}.")
    if package in sys.stdlib_module_names or package in ("kstate", "tests") or _is_installed(package):
        raise ConfigError(
            f"A package {package!r} would hide the module of that name that is there already.",
            hint=f"choose another name, say {name}-job.",
        )
    return name


def package_of(name: str) -> str:
    """The Python package of a project."""
    return name.replace("-", "_")


def project(name: str) -> dict[str, str]:
    """The files of a project: path → text."""
    names = {"name": name, "package": package_of(name), "at_least": f">={metadata.version('kstate')}"}
    files = _filled(resources.files("kstate.cli") / "templates", "", names)
    schemas = {path: text for path, text in files.items() if path.endswith(".avsc")}
    return files | {f"{names['package']}/records.py": record_classes(schemas)}


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Make the folder and its files. Raises ConfigError when something is there already, or cannot be made."""
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            what = "is there already, and not empty" if folder.is_dir() else "is there already, and no folder"
            raise ConfigError(f"{folder.absolute()} {what}.", hint="choose another name, or move it away.")
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder} cannot be made: {error.strerror}.", hint="work in a folder that you may write."
        ) from error


def _filled(place: Traversable, path: str, names: Mapping[str, str]) -> dict[str, str]:
    """The templates of a folder and those within it, filled in."""
    files: dict[str, str] = {}
    for item in place.iterdir():
        if item.is_dir():
            folder = Template(_FOLDERS.get(item.name, item.name)).substitute(names)
            files |= _filled(item, f"{path}{folder}/", names)
        elif item.name.endswith(_SUFFIX):
            plain = item.name.removesuffix(_SUFFIX)
            text = item.read_text(encoding="utf-8")
            files[f"{path}{_FILES.get(plain, plain)}"] = Template(text).substitute(names)
    return files


def _is_installed(package: str) -> bool:
    """Whether an import of this name finds something; a folder without __init__ is nothing."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
