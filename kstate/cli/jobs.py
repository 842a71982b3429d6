"""Finds the job that a command names: `module:attribute`, looked for in the working directory, too."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from kstate.api.job import Job
from kstate.errors import ConfigError

_OURS = f"{Path(__file__).parents[1]}{os.sep}"


def load_job(reference: str) -> Job:
    """The job at `module:attribute`; ConfigError says which part of the reference leads nowhere."""
    module_name, colon, attribute = reference.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError(
            f"{reference!r} names no job.", hint="write module:attribute, as in operators.word_count:job."
        )
    module = _imported(module_name)
    found = getattr(module, attribute, None)
    if isinstance(found, Job):
        return found
    jobs = [name for name, value in vars(module).items() if isinstance(value, Job)]
    what = f"has no {attribute!r}" if found is None else f"has a {type(found).__name__} named {attribute!r}, no Job"
    known = f"its jobs are: {', '.join(jobs)}." if jobs else f"add {attribute} = Job('name', [...]) to it."
    raise ConfigError(f"Module {module_name!r} {what}.", hint=known)


def _imported(name: str) -> ModuleType:
    """The module; a console script does not have the working directory on its path, so it is put there first."""
    folder = os.getcwd()  # noqa: PTH109 - sys.path holds text
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"There is no module {error.name!r} in {folder} or among the installed packages.",
                hint="run in the folder that holds it, or install it.",
            ) from error
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> ConfigError:
    """An import that failed inside user code: the last place of theirs matters, not ours."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    theirs = [frame for frame in frames if not frame.filename.startswith(_OURS)]
    place = f" at {theirs[-1].filename}:{theirs[-1].lineno}" if theirs else ""
    return ConfigError(
        f"Module {name!r} cannot be imported: {type(error).__name__}: {error}{place}.",
        hint="correct it.",
    )
