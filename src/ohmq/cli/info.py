"""``ohmq info``: show the content of .ohm files, with the standard library alone."""

import math
from typing import Any

import click

from ohmq.cli.jobs import Job, find_files, run_jobs
from ohmq.cli.output import finish
from ohmq.utils.counting import counted

__all__ = ["command"]


def _extra_name(extra_type: int) -> str:
    """Name the type of an extra for people."""
    from ohmq.bitstream.format import ExtraType

    names = {
        ExtraType.ALPHA: "mask",
        ExtraType.EXIF: "EXIF",
        ExtraType.ICC: "ICC profile",
        ExtraType.XMP: "XMP",
        ExtraType.PSNR: "PSNR table",
    }
    return {int(known): name for known, name in names.items()}.get(extra_type, f"type {extra_type}")


@click.command(epilog="Example: ohmq info photo.ohm")
@click.argument("inputs", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print the contents as JSON.")
def command(inputs: tuple[str, ...], as_json: bool) -> int:
    """Show the size, model and layers of .ohm files (- is standard input), without a model."""
    from ohmq.bitstream.format import STEPS_A_LEVEL
    from ohmq.bitstream.psnr_table import psnr_table
    from ohmq.bitstream.reader import read_header
    from ohmq.errors import BitstreamError, OhmqError
    from ohmq.model_files.pretrained import pretrained_model_ids

    names = pretrained_model_ids()

    def work(job: Job) -> dict[str, Any]:
        data = job.read()
        try:
            header = read_header(data)
        except BitstreamError as error:
            raise OhmqError(f"{job.source}: {error}") from error
        pixels = header.width * header.height
        rows: list[dict[str, Any]] = []
        channels, size = 0, header.header_bytes + header.extras_bytes
        for layer in header.layers:
            channels, size = channels + layer.channels, size + layer.length
            rows.append({"channels": channels, "payload_bytes": layer.length, "bytes": size, "bpp": 8 * size / pixels})
        try:
            table = psnr_table(data) or ()
        except BitstreamError:  # The file ends early, or is damaged behind its header.
            table = ()
        for row, value in zip(rows, table, strict=False):
            row["psnr_db"] = value if value < math.inf else None
        result = {
            "version": header.version,
            "model_id": header.model_id.hex(),
            "model": names.get(header.model_id),
            "width": header.width,
            "height": header.height,
            "colour": "grey" if header.grey else "RGB",
            "alpha": header.alpha,
            "rate": "fixed" if header.fixed_rate else "entropy coded",
            "tile": header.tile or None,
            "residual": None
            if header.residual is None
            else {
                "step": header.residual.step / STEPS_A_LEVEL,
                "decoder_id": header.residual.decoder_id.hex(),
            },
            "header_bytes": header.header_bytes,
            "file_bytes": len(data),
            "expected_bytes": header.file_bytes,
            "extras": [
                {"type": extra.type, "name": _extra_name(extra.type), "bytes": extra.length} for extra in header.extras
            ],
            "layers": rows,
        }
        tiles = f", in tiles of {header.tile}x{header.tile} positions" if header.tile else ""
        if not as_json:
            known = result["model"]
            model = (
                f"model {known} ({result['model_id']})" if known else f"model {result['model_id']} (not a shipped one)"
            )
            transparent = " with transparency" if header.alpha else ""
            click.echo(
                f"{job.source}: {header.width}x{header.height} {result['colour']}{transparent}, {model}, "
                f"format {header.version}, {result['rate']}{tiles}, {len(data):,} bytes, {8 * len(data) / pixels:.3f} bpp"
            )
            if len(data) < header.file_bytes:
                click.echo(f"  the header announces {header.file_bytes:,} bytes: the file is not whole")
            elif len(data) > header.file_bytes:
                click.echo(f"  {counted(len(data) - header.file_bytes, 'byte', thousands=True)} after its end")
            if header.residual:
                step, corrected = header.residual.step / STEPS_A_LEVEL, header.residual.decoder_id.hex()
                click.echo(
                    f"  after the model's channels a residual: steps of {step:g} grey levels, for the decoder {corrected}"
                )
            if header.extras:
                listed = ", ".join(
                    f"{_extra_name(extra.type)} {counted(extra.length, 'byte', thousands=True)}"
                    for extra in header.extras
                )
                click.echo(f"  beside the layers, in every cut: {listed}")
            click.echo("  layer  channels  payload bytes  file cut here  bpp" + "    PSNR dB" * bool(table))
            for number, row in enumerate(rows, start=1):
                reached = f"  {table[number - 1]:7.2f}" if table else ""
                click.echo(
                    f"  {number:5d}  {row['channels']:8d}  {row['payload_bytes']:13,d}  {row['bytes']:13,d}  "
                    f"{row['bpp']:.3f}{reached}"
                )
        return result

    return finish(run_jobs(find_files(inputs, (".ohm",)), work, "info", as_json), as_json, "read")
