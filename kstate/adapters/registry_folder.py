"""A schema registry that is a folder: one file `ID.avsc` per schema, to be committed beside the job.

    schemas/registry/1.avsc    {"subject": "orders-value", "type": "record", "name": "Order", …}
    schemas/registry/2.avsc    …

The id is the file's name. `subject` is an attribute that Avro allows and ignores; a schema without it can be read by
its id and belongs to no output. Two branches that add the same id conflict in version control, as they should. Files
are added, never changed or removed: records in topics refer to them. A new schema of a subject must be able to read
what the one before it wrote. Workers on several machines need a shared folder, or all ids committed before they start.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from kstate.errors import ConfigError, RetryableError
from kstate.evolution import resolution
from kstate.schemas import canonical

SUFFIX = ".avsc"
SUBJECT = "subject"


class FolderRegistry:
    """Satisfies `interfaces.Registry`. Several processes may register at the same time: ids are given once."""

    def __init__(self, folder: str | Path) -> None:
        """Nothing is looked at yet."""
        self._folder = Path(folder)
        self.name = str(folder)

    def schema(self, schema_id: int) -> str | None:
        """The schema's text, None for an id without a file. Raises RetryableError, ConfigError."""
        path = self._folder / f"{schema_id}{SUFFIX}"
        try:
            return path.read_text("utf-8")
        except FileNotFoundError:
            self._check_folder()
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise RetryableError(f"{path} cannot be read: {error}.", hint="it is tried again.") from error

    def register(self, subject: str, schema: str) -> int:
        """The id of a schema under a subject; a new file when there is none. Raises ConfigError, RetryableError."""
        self._check_folder()
        wanted = canonical(json.loads(schema))
        while True:
            found = self._all()
            of_subject = [(number, text) for number, (owner, text) in sorted(found.items()) if owner == subject]
            for number, text in of_subject:
                if text == wanted:
                    return number
            if of_subject:
                self._check_compatible(subject, wanted, *of_subject[-1])
            number = max(found, default=0) + 1
            if self._added(number, subject, schema):
                return number

    def _check_compatible(self, subject: str, new: str, latest_id: int, latest: str) -> None:
        if faults := resolution(latest, new).faults:
            raise ConfigError(
                f"The schema registry {self.name} refuses the schema of subject {subject!r}: it cannot read what was "
                f"written with schema {latest_id}: {'; '.join(faults)}. New: {new}. Schema {latest_id}: {latest}.",
                hint="give new fields a default; or, when nobody needs the old records, use another topic.",
            )

    def _all(self) -> dict[int, tuple[str | None, str]]:
        """Id → subject and canonical text."""
        found = {}
        for path in self._folder.glob(f"*{SUFFIX}"):
            if not re.fullmatch(r"[1-9][0-9]*", path.stem):
                raise ConfigError(
                    f"{path} is not named by an id.", hint=f"name it 1{SUFFIX}, 2{SUFFIX}, … or move it elsewhere."
                )
            found[int(path.stem)] = _parsed(path)
        return found

    def _added(self, number: int, subject: str, schema: str) -> bool:
        """Whether the file was added: whole, or not at all when another process took the number."""
        text = _with_subject(json.loads(schema), subject)
        try:
            handle, draft = tempfile.mkstemp(prefix=".draft-", dir=self._folder)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(handle)
                os.chmod(draft, 0o644)  # noqa: PTH101 (mkstemp's draft is a str; everybody may read schemas)
                os.link(draft, self._folder / f"{number}{SUFFIX}")  # unlike a rename it replaces nothing
            finally:
                os.unlink(draft)  # noqa: PTH108 (as above)
        except FileExistsError:
            return False
        except OSError as error:
            raise ConfigError(
                f"Schema {number} of subject {subject!r} cannot be added to {self.name}: {error.strerror}.",
                hint="let this user write there, or add the file yourself: its content is\n" + text,
            ) from error
        return True

    def _check_folder(self) -> None:
        if not self._folder.is_dir():
            raise ConfigError(
                f"The schema registry {self.name} is no folder.", hint="create it, or correct the setting `registry`."
            )


def _parsed(path: Path) -> tuple[str | None, str]:
    try:
        schema = json.loads(path.read_text("utf-8"))
        subject = schema.get(SUBJECT) if isinstance(schema, dict) else None
        return subject, canonical(schema)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no Avro schema: {error}.", hint="mend the file.") from error


def _with_subject(schema: Any, subject: str) -> str:
    """The file's text: the schema as an object, its subject first."""
    whole = schema if isinstance(schema, dict) else {"type": schema}
    return json.dumps({SUBJECT: subject, **whole}, indent=2, ensure_ascii=False) + "\n"
