"""`kstate schema generate | check`: from Avro schema files to committed record classes."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated

import typer

from kstate.cli.record_classes import record_classes
from kstate.errors import ConfigError

app = typer.Typer(help="Typed record classes for Avro schema files.", no_args_is_help=True)

Schemas = Annotated[Path, typer.Option("--schemas", help="Folder of *.avsc files.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Out = Annotated[Path, typer.Option("--out", help="The generated module.")]

SCHEMAS = Path("schemas")
OUT = Path("operators/records.py")


@app.command()
def generate(schemas: Schemas = SCHEMAS, out: Out = OUT, as_json: Json = False) -> None:
    """Write the record classes; commit the module, jobs import it."""
    text = _generated(schemas)
    out.parent.mkdir(parents=True, exist_ok=True)
    changed = not out.exists() or out.read_text(encoding="utf-8") != text
    if changed:
        out.write_text(text, encoding="utf-8")
    _say(out, "written" if changed else "up to date", as_json)


@app.command()
def check(schemas: Schemas = SCHEMAS, out: Out = OUT, as_json: Json = False) -> None:
    """Compare the module with the schemas; exit code 1 and a diff when it is stale."""
    expected = _generated(schemas)
    present = out.read_text(encoding="utf-8") if out.exists() else ""
    if present == expected:
        _say(out, "up to date", as_json)
        return
    old, new = present.splitlines(keepends=True), expected.splitlines(keepends=True)
    diff = "".join(difflib.unified_diff(old, new, str(out), f"{out} (generated)"))
    _say(out, "stale; mend: kstate schema generate", as_json, diff)
    raise typer.Exit(1)


def _say(out: Path, state: str, as_json: bool, diff: str = "") -> None:
    """The result, for people or for programs."""
    typer.echo(json.dumps({"module": str(out), "state": state, "diff": diff}) if as_json else f"{diff}{out}: {state}")


def _generated(schemas: Path) -> str:
    """The module's text; exits with code 2 and the reason when a schema is not usable."""
    try:
        files = {path.name: path.read_text(encoding="utf-8") for path in schemas.glob("*.avsc")}
        if not files:
            raise ConfigError(f"There is no *.avsc file in {schemas}.", hint="name the folder: --schemas FOLDER.")
        return record_classes(files)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from error
