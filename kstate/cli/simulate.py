"""`kstate simulate JOB`: a job's own operators in a simulated cluster, under faults and moves, against a run without.

The simulation is imported when the command runs: no other command needs it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kstate.adapters.avro import AvroCodecs
from kstate.cli.check import checked
from kstate.cli.jobs import load_job
from kstate.errors import ConfigError

if TYPE_CHECKING:
    from kstate.testing.simulation import Outcome
    from kstate.testing.summary import Summary
    from kstate.testing.trial import Trial


def simulate(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job, as module:attribute.")],
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many runs.")] = 50,
    first: Annotated[int, typer.Option("--first", min=0, help="The first seed; a seed always makes the same run.")] = 0,
    records: Annotated[int, typer.Option("--records", min=1, help="Records to make up, over all inputs.")] = 60,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", metavar="TOPIC=FILE", help="JSON lines instead, one file per topic.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Kill, stop and cut off simulated workers and leaders while tiles move, and compare with a run without faults.

    No broker is needed, and time is virtual. Exit code 1 when a seed finds a difference, or a broken safety rule.
    """
    from kstate.testing.memory_registry import MemoryRegistry
    from kstate.testing.trial import Trial

    try:
        found = load_job(job)
        checked(found, AvroCodecs(MemoryRegistry()))
        trial = Trial(found, _read(inputs or []), records)
        summary, failed = _run(trial, range(first, first + seeds), quiet=as_json)
    except ConfigError as error:
        typer.echo(f"kstate simulate {job}: {error}", err=True)
        raise typer.Exit(ConfigError.exit_code) from error
    if as_json:
        typer.echo(json.dumps(_result(job, summary, failed, list(trial.notices))))
    else:
        _tell(summary, failed, list(trial.notices))
    if failed:
        raise typer.Exit(1)


def _read(inputs: Sequence[str]) -> Mapping[str, Sequence[str]]:
    files: dict[str, Sequence[str]] = {}
    for each in inputs:
        topic, is_, name = each.partition("=")
        if not is_:
            raise ConfigError(f"--input {each} names no file.", hint="write --input topic=records.jsonl.")
        try:
            files[topic] = Path(name).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--input {each} cannot be read: {error}.", hint="name a file of JSON lines.") from error
    return files


def _run(trial: Trial, seeds: range, *, quiet: bool) -> tuple[Summary, list[Outcome]]:
    from kstate.testing.summary import Summary

    summary, failed = Summary(), list["Outcome"]()
    for seed in seeds:
        outcome = trial.run(seed)
        summary.add(outcome)
        if outcome.violations:
            failed.append(outcome)
            if not quiet:
                typer.echo(f"seed {seed}: {outcome.violations[0]}")
    return summary, failed


def _tell(summary: Summary, failed: Sequence[Outcome], notices: Sequence[str]) -> None:
    if failed:
        typer.echo(f"\n{failed[0]}\n")
    typer.echo(summary)
    for notice in notices:
        typer.echo(f"note: {notice}")
    typer.echo(f"{len(failed)} of {summary.seeds} seeds with violations")


def _result(job: str, summary: Summary, failed: Sequence[Outcome], notices: Sequence[str]) -> dict[str, object]:
    found = {str(outcome.seed): [f"{kind}: {text}" for kind, text in outcome.violations] for outcome in failed}
    return {
        "job": job,
        "ok": not failed,
        "seeds": summary.seeds,
        "steps": summary.steps,
        "faults": dict(summary.landed),
        "orders": dict(summary.answers),
        "situations": len(summary.combinations),
        "violations": found,
        "notices": notices,
    }
