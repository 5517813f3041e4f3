"""``ohmq parameters``: count the trainable parameters of models."""

import click

from ohmq.cli.output import print_json

__all__ = ["command"]


@click.command(epilog="Example: ohmq parameters --family mnist --channels 8 --channels 16 --num-symbols 256")
@click.option(
    "--family", "families", type=click.Choice(["mnist", "openimages", "photo"]), multiple=True,
    help="Family to count. Repeatable.  [default: mnist and openimages]",
)  # fmt: skip
@click.option(
    "--channels",
    type=click.IntRange(1),
    multiple=True,
    help="Number of channels C. Repeatable.  [default: those of the published runs]",
)
@click.option(
    "--num-symbols",
    type=click.IntRange(2),
    multiple=True,
    help="Alphabet size S. Repeatable.  [default: the published one of the family]",
)
@click.option("--quantizer", "quantizers", type=click.Choice(["ohm", "integer", "none"]), multiple=True,
              help="Quantizer to count. Repeatable.  [default: ohm and integer]")  # fmt: skip
@click.option("--prior", type=click.Choice(["static", "context"]), default="static", show_default=True,
              help="Prior of OHM models of the published families.")  # fmt: skip
@click.option("--split", type=click.Choice(["ours", "published"]), default="ours", show_default=True,
              help="published: the layers before and after the quantizer count with it.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON, with both splits.")
def command(
    families: tuple[str, ...],
    channels: tuple[int, ...],
    num_symbols: tuple[int, ...],
    quantizers: tuple[str, ...],
    prior: str,
    split: str,
    as_json: bool,
) -> None:
    """Count the trainable parameters of each part of a model, for any family, C, S and quantizer.

    The quantizer of an integer or unquantized model has none; then S changes nothing, and one row stands for all.
    The last column holds the C inverse temperatures of the prior, which belong to no part. The photo codec is no
    published network: it has our split only.
    """
    from ohmq.evaluation.parameter_counts import count_parameters, published_channels, variants

    rows = []
    for family in families or ("mnist", "openimages"):
        for quantizer in quantizers or ("ohm", "integer"):
            sizes = channels or published_channels(family, quantizer)
            rows += [
                (config, count_parameters(config))
                for config in variants(family, [quantizer], sizes, num_symbols, prior)
            ]
    if not rows:
        raise click.UsageError("the photo codec has the quantizer ohm only; leave out --quantizer")
    if split == "published" and not as_json and "photo" in families:
        raise click.UsageError("the photo codec has no published split; leave out --family photo or --split published")
    if as_json:
        print_json(
            [
                {
                    "model": config.to_dict(),
                    **{name: table and table._asdict() for name, table in counts._asdict().items()},
                }
                for config, counts in rows
            ]
        )
        return
    titles = ("family", "quantizer", "C", "S", "encoder", "decoder", "quantizer", "prior", "temperatures", "total")
    table = [titles]
    for config, counts in rows:
        shown = counts.published if split == "published" else counts.ours
        assert shown is not None
        symbols = str(config.num_symbols) if config.quantizer == "ohm" else "any"
        values = (shown.encoder, shown.decoder, shown.quantizer, shown.prior, shown.temperatures, shown.total)
        head = (config.family, config.quantizer, str(config.channels_max), symbols)
        table.append((*head, *(f"{value:,}" for value in values)))  # type: ignore[arg-type]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    for row in table:
        cells = [text.ljust(w) if n < 2 else text.rjust(w) for n, (text, w) in enumerate(zip(row, widths, strict=True))]
        click.echo("  ".join(cells).rstrip())
