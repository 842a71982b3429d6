"""The command `kstate`: ties the commands together."""

import typer

from kstate.cli import check, coordinator, dev, new, run, schema, worker

app = typer.Typer(
    help="Elastic, fault-tolerant, exactly-once stateful stream processing on Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(new.new)
app.command()(check.check)
app.command()(run.run)
app.command()(worker.worker)
app.command()(coordinator.coordinator)
app.command()(dev.dev)
app.add_typer(schema.app, name="schema")
