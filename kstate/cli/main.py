"""The command `kstate`: ties the commands together."""

import typer

from kstate.cli import check, schema

app = typer.Typer(
    help="Elastic, fault-tolerant, exactly-once stateful stream processing on Kafka.", no_args_is_help=True
)
app.command()(check.check)
app.add_typer(schema.app, name="schema")
