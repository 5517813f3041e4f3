"""The table of costs in docs/scale.md, from the measured throughput and the list prices below.

    python tools/scale_costs.py [results/bulk.json] [--rate IMAGES] [--write docs/scale.md]

The rate is images of 512x512 a second and core; by default that of the run "local-1" of the benchmark's results. With
--write the table replaces the one between the marks in the page.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

PIXELS = 512 * 512
"""Pixels of an image of the benchmark."""
CORE_HOUR = 0.085
"""Dollars for an hour of a core, which is two vCPUs of the x86 machines of the large providers, on demand."""
SPOT_CORE_HOUR = 0.0425
"""Dollars for the same as a spot machine."""
GET_PER_1000, PUT_PER_1000 = 0.0004, 0.005
"""Dollars for 1,000 requests to an object store."""
GB_MONTH = 0.023
"""Dollars for a month of 10^9 bytes in an object store."""
REQUESTS_PER_IMAGE = 2
"""Requests for an image in an object of its own: one reads it, one asks whether it is still the one that was planned."""
SHARD_IMAGES, REQUESTS_PER_SHARD = 1000, 5
"""Images of a shard, and its other requests: output, manifest, marker, plan, and a look for the marker."""
KINDS = (("512×512, 0.3 MP", PIXELS, 60_000, 13_000), ("4000×3000, 12 MP", 12_000_000, 4_000_000, 600_000))
"""Images: name, pixels, bytes as JPEG and bytes as ``.ohm`` (0.4 bits per pixel)."""
COUNTS = ((10**6, "1 million"), (10**8, "100 million"))
MARKS = ("<!-- costs: written by tools/scale_costs.py -->", "<!-- end of costs -->")


def table(rate: float) -> str:
    """Return the table as Markdown.

    Args:
        rate: images of 512x512 a second and core.
    """
    rate = round(rate, 2)  # the table follows from what it says
    lines = [
        f"Measured: {rate:.2f} images of 512×512 a second and core, {rate * PIXELS / 1e6:.2f} megapixels.",
        "",
        "| images | core hours | on demand | spot | GET, two an image | GET, in tar shards | PUT | a month before | after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for count, name in COUNTS:
        for kind, pixels, bytes_in, bytes_out in KINDS:
            hours = count * pixels / PIXELS / rate / 3600
            shards = count / SHARD_IMAGES
            cells = [
                hours * CORE_HOUR,
                hours * SPOT_CORE_HOUR,
                count * REQUESTS_PER_IMAGE * GET_PER_1000 / 1000,
                shards * REQUESTS_PER_IMAGE * GET_PER_1000 / 1000,
                shards * REQUESTS_PER_SHARD * PUT_PER_1000 / 1000,
                count * bytes_in / 1e9 * GB_MONTH,
                count * bytes_out / 1e9 * GB_MONTH,
            ]
            lines.append(f"| {name} of {kind} | {hours:,.0f} | " + " | ".join(map(_dollars, cells)) + " |")
    return "\n".join(lines)


def _dollars(amount: float) -> str:
    return f"${amount:,.0f}" if amount >= 10 else f"${amount:.2f}" if amount >= 0.01 else "< $0.01"


def measured_rate(results: Path) -> float:
    """Return the images a second of one worker with the local engine.

    Args:
        results: what benchmarks/bulk.py wrote.
    """
    run = json.loads(results.read_text())["runs"]["local-1"]
    return run["images"] / run["seconds"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write it into the page.

    Args:
        arguments: words of the command line; None: those of this process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=Path("results/bulk.json"))
    parser.add_argument("--rate", type=float, help="images of 512x512 a second and core")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args(arguments)
    text = table(options.rate or measured_rate(options.results))
    if not options.write:
        print(text)
        return 0
    before, begin, rest = options.write.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not begin or not end:
        print(f"{options.write} has no marks for the table", file=sys.stderr)
        return 1
    options.write.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
