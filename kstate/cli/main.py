"""The command `kstate`: ties the commands together."""

from importlib.metadata import version

import typer

from kstate.cli import check, coordinator, dev, moves, new, run, schema, simulate, state, status, top, worker

app = typer.Typer(
    help="Elastic, fault-tolerant, exactly-once stateful stream processing on Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kstate {version('kstate')}")
        raise typer.Exit


@app.callback()
def main(
    *,
    _version: bool = typer.Option(
        False, "--version", help="Say which release this is.", callback=_show_version, is_eager=True
    ),
) -> None:
    """Elastic, fault-tolerant, exactly-once stateful stream processing on Kafka."""


app.command()(new.new)
app.command()(check.check)
app.command()(simulate.simulate)
app.command()(run.run)
app.command()(worker.worker)
app.command()(coordinator.coordinator)
app.command()(dev.dev)
app.command()(status.status)
app.command()(top.top)
app.command()(moves.split)
app.command()(moves.merge)
app.command()(moves.move)
app.command()(moves.drain)
app.command()(moves.rebalance)
app.add_typer(schema.app, name="schema")
app.add_typer(state.app, name="state")
