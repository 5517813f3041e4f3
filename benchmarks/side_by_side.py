"""Speed and memory side by side, as ratios in one run.

    python benchmarks/side_by_side.py [IMAGES] [--only training entropy codecs start-up memory] [-o results/speed.json]

IMAGES are files or a folder; the default is the example photos. Parts that are compared take turns, round by round;
figures are medians over the rounds, with the lowest and highest round beside each ratio.

* training: a step of the fast OHM layer against the literal formulation (`ohm_layer.py`);
* entropy: symbols a second against a coder that is called once a symbol, with the same tables; bytes and symbols are
  checked to be equal;
* codecs: the model against Pillow's codecs at about the same file size, everything in memory, one thread;
* start-up: command lines against `python -c pass` and `python -c "import torch"`;
* memory: peak resident size of command lines and of a training step, each in a process of its own.
"""

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from ohm_layer import compare_steps
from PIL import Image, features

import ohmq
from ohmq.codec import Codec
from ohmq.entropy import SymbolEncoder, prepare_tables
from ohmq.errors import ConfigError, OhmqError
from ohmq.evaluation.classic import CLASSIC_CODECS, DEFAULT_CODECS, code_classic
from ohmq.evaluation.compare import one_thread
from ohmq.evaluation.results import RESULT_FORMAT
from ohmq.imaging.convert import prepare_image
from ohmq.imaging.files import open_image
from ohmq.utils.atomic_write import check_output, write_atomically
from ohmq.utils.provenance import command_line, software_versions

EXAMPLES = Path(__file__).parents[1] / "examples" / "photos"
PARTS = ("training", "entropy", "codecs", "start-up", "memory")
DEFINITIONS = {
    "part": "what was compared",
    "what": "the thing measured",
    "against": "what it is compared with",
    "value": "median over the rounds",
    "unit": "of the value: seconds for all images or for one command, symbols a second, MiB",
    "ratio": "value divided by the value of what it is compared with: of times and sizes less is better, of symbols/s more",
    "lowest": "the lowest ratio of a round",
    "highest": "the highest ratio of a round",
    "note": "what else was different or checked",
}
"""Definitions of the columns, written into the result."""

Array = NDArray[Any]
Images = Sequence[tuple[str, Image.Image]]


class Row(NamedTuple):
    """One ratio. Attributes: see `DEFINITIONS`."""

    part: str
    what: str
    against: str
    value: float
    unit: str
    ratio: float
    lowest: float
    highest: float
    note: str = ""


def row(part: str, what: str, against: str, own: Sequence[float], other: Sequence[float], **more: Any) -> Row:
    """Compare two series of rounds.

    Args:
        part: part of the benchmark.
        what: thing measured.
        against: thing that it is compared with.
        own: values of the thing measured, one a round.
        other: values of the other, of the same rounds.
        more: unit and note, see `DEFINITIONS`.

    Returns:
        The ratio of the medians, with the lowest and the highest ratio of a round.
    """
    ratios = [a / b for a, b in zip(own, other, strict=True)]
    value = statistics.median(own)
    return Row(part, what, against, value, ratio=value / statistics.median(other), lowest=min(ratios), highest=max(ratios),
               **more)  # fmt: skip


# Entropy coding


class LiteralEncoder:
    """Encoder with the interface of `ohmq.entropy.SymbolEncoder`: one call a symbol, as research code has it."""

    def __init__(self) -> None:
        self._symbol_encoder = SymbolEncoder()

    def encode(self, symbols: Array, tables: Array, index: Array | None = None, in_order: bool = False) -> None:
        """Append symbols; arguments and order as of `ohmq.entropy.SymbolEncoder.encode`."""
        symbols = np.asarray(symbols)
        order, models = literal_models(len(symbols), tables, index, in_order)
        encoder = self._symbol_encoder._encoder
        for position, model in zip(order, models, strict=True):
            encoder.encode(int(symbols[position]), model)

    def finish(self) -> bytes:
        """Return the shortest byte string, as `ohmq.entropy.SymbolEncoder.finish` does."""
        return self._symbol_encoder.finish()


class LiteralDecoder:
    """Decoder with the interface of `ohmq.entropy.SymbolDecoder`: one call a symbol.

    Args:
        data: bytes of `LiteralEncoder.finish`.
    """

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4 + 8)
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))

    def decode(self, tables: Array, index: Array | None, count: int, in_order: bool = False) -> NDArray[np.int32]:
        """Decode the next symbols; arguments and order as of `ohmq.entropy.SymbolDecoder.decode`."""
        out = np.empty(count, np.int32)
        order, models = literal_models(count, tables, index, in_order)
        for position, model in zip(order, models, strict=True):
            out[position] = self._decoder.decode(model)
        return out


def literal_models(
    count: int, tables: Array, index: Array | None, in_order: bool
) -> tuple[Sequence[int], Iterator[Any]]:
    """Give the order in which symbols are coded, and the model of each.

    A table that codes several symbols becomes a model once; one that codes a single symbol becomes one in its turn.

    Args:
        count: number of symbols.
        tables: frequency tables, (T, S), integers or prepared by `ohmq.entropy.prepare_tables`.
        index: table of each symbol, (count,); None: table i codes symbol i, or the only one codes all.
        in_order: code symbols in their order, not table by table.

    Returns:
        Positions of the symbols in coding order, and their models in the same order.
    """
    probabilities = tables if tables.dtype.kind == "f" else prepare_tables(tables)

    def model(row: Array) -> Any:
        return constriction.stream.model.Categorical(row, perfect=False, lazy=False)

    if index is None and len(tables) == count:
        return range(count), (model(row) for row in probabilities)
    rows = np.zeros(count, np.int64) if index is None else index
    if in_order:
        return range(count), (model(probabilities[row]) for row in rows)
    order = np.argsort(rows, kind="stable").tolist()
    models = {number: model(probabilities[number]) for number in np.unique(rows).tolist()}
    return order, (models[number] for number in rows[order].tolist())


@contextlib.contextmanager
def coder(codec: Codec, name: str) -> Iterator[list[float]]:
    """Let the codec code with its own coder or the literal one, and measure the time spent in it, without tables.

    Args:
        codec: the codec; its kernels are replaced within the context.
        name: "ohmq" or "literal".

    Yields:
        A list that gets the seconds of each call.
    """
    spent: list[float] = []

    def watched(work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*arguments)
            finally:
                spent.append(time.perf_counter() - start)

        return timed

    before = codec.encoder.kernels
    encoder, decoder = (LiteralEncoder, LiteralDecoder) if name == "literal" else (before.encoder, before.decoder)
    watched_encoder = type("Encoder", (encoder,), {n: watched(getattr(encoder, n)) for n in ("encode", "finish")})
    watched_decoder = type("Decoder", (decoder,), {n: watched(getattr(decoder, n)) for n in ("__init__", "decode")})
    watched_kernels = before._replace(encoder=watched_encoder, decoder=watched_decoder, decode_run=None)
    codec.encoder.kernels = codec.decoder.kernels = watched_kernels
    try:
        yield spent
    finally:
        codec.encoder.kernels = codec.decoder.kernels = before


def entropy(codec: Codec, images: Images, bpp: float, rounds: int) -> list[Row]:
    """Measure entropy coding of all images, with and without the time that the choice of tables takes.

    Args:
        codec: the codec.
        images: names and images.
        bpp: target of the files, in bits per pixel.
        rounds: rounds to measure; one more warms up.

    Raises:
        OhmqError: bytes or symbols of the two coders differ.
    """
    files = [codec.compress(image, bpp=bpp, layers="all") for _, image in images]
    symbols = [codec.decode(data)[1] for data in files]
    counts = [codec.decode(data)[0].num_channels for data in files]
    total = sum(math.prod(item.values.shape[:3]) * count for item, count in zip(symbols, counts, strict=True))
    speeds: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):  # the first warms up
        for name in ("ohmq", "literal"):
            for work in ("encode", "decode"):
                with coder(codec, name) as spent:
                    start = time.perf_counter()
                    if work == "encode":
                        pairs = zip(symbols, counts, strict=True)
                        equal = [codec.encode(item, count) for item, count in pairs] == files
                    else:
                        decoded = [codec.decode(data)[1].values for data in files]
                    whole = time.perf_counter() - start
                if work == "decode":
                    triples = zip(decoded, symbols, counts, strict=True)
                    equal = all(np.array_equal(values, item.values[..., :count]) for values, item, count in triples)
                if not equal:
                    raise OhmqError(f"{name}: {work} does not give what it should: this is a bug")
                if number:
                    speeds.setdefault((name, work), []).append(total / sum(spent))
                    speeds.setdefault((name, f"{work} with choice of tables"), []).append(total / whole)
    works = [work for name, work in speeds if name == "ohmq"]
    note = f"{total:,} symbols, bytes and symbols equal"
    return [
        row(
            "entropy",
            work,
            "one call a symbol",
            speeds["ohmq", work],
            speeds["literal", work],
            unit="symbols/s",
            note=note,
        )
        for work in works
    ]


# Codecs


def at_size(name: str, pixels: Array, size: int) -> tuple[str, float]:
    """Find the quality of a classic codec whose file is nearest to a size, and its best set of options.

    Where several sets are tried for the smallest file (JPEG), only the one that gives it is timed.

    Args:
        name: of `CLASSIC_CODECS`; an entry is added to it for each set of options.
        pixels: (H, W) or (H, W, 3).
        size: of the file to match, in bytes.

    Returns:
        Name of the codec with one set of options, and the quality.
    """
    codec = CLASSIC_CODECS[name]
    target = math.log(size)

    def distance(quality: float) -> float:
        return abs(math.log(len(code_classic(name, pixels, quality).data)) - target)

    if codec.by_rate:
        quality = 8 * size / (pixels.shape[0] * pixels.shape[1])
    else:
        low, high = 0, 100
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if len(code_classic(name, pixels, middle).data) <= size else (low, middle)
        quality = float(min((low, high), key=distance))
    for number, options in enumerate(codec.options):
        CLASSIC_CODECS[f"{name}, options {number}"] = codec._replace(options=(options,))
    alone = [f"{name}, options {number}" for number in range(len(codec.options))]
    return min(alone, key=lambda key: len(code_classic(key, pixels, quality).data)), quality


def codecs(codec: Codec, images: Images, bpp: float, rounds: int) -> list[Row]:
    """Measure the times of the model and of Pillow's codecs, summed over the images, at about the same file sizes.

    Args:
        codec: the codec.
        images: names and images.
        bpp: target of the model's files, in bits per pixel.
        rounds: rounds to measure; one more warms up.
    """
    names = [name for name in DEFAULT_CODECS if features.check(CLASSIC_CODECS[name].feature)]
    if codec.grey:
        names.remove("jpeg444")  # without colour it gives the same files
    pixels = [np.asarray(image) for _, image in images]
    # Settings of all codecs are known before timing starts: no search for a size is timed.
    numbers = [codec.decode(codec.compress(image, bpp=bpp, layers="all"))[0].num_channels for _, image in images]
    counts = [min(number, codec.num_channels) for number in numbers]  # without a residual
    files = [
        codec.compress(image, channels=count, layers="all") for (_, image), count in zip(images, counts, strict=True)
    ]
    chosen = {name: [at_size(name, x, len(data)) for x, data in zip(pixels, files, strict=True)] for name in names}
    times: dict[tuple[str, str], list[float]] = {}
    sizes: dict[str, int] = {}
    with one_thread():
        for number in range(rounds + 1):
            seconds: dict[tuple[str, str], float] = {}

            def add(name: str, work: str, value: float, seconds: dict[tuple[str, str], float] = seconds) -> None:
                seconds[name, work] = seconds.get((name, work), 0.0) + value

            sizes = dict.fromkeys(("ohmq", *names), 0)
            for position, (_, image) in enumerate(images):
                start = time.perf_counter()
                data = codec.compress(image, channels=counts[position], layers="all")
                add("ohmq", "encode", time.perf_counter() - start)
                start = time.perf_counter()
                codec.decompress(data)
                add("ohmq", "decode", time.perf_counter() - start)
                sizes["ohmq"] += len(data)
                for name in names:
                    setting, quality = chosen[name][position]
                    coded = code_classic(setting, pixels[position], quality)
                    add(name, "encode", coded.encode_s)
                    add(name, "decode", coded.decode_s)
                    sizes[name] += len(coded.data)
            if number:
                for key, value in seconds.items():
                    times.setdefault(key, []).append(value)
    return [
        row("codecs", work, f"{CLASSIC_CODECS[name].label} ({CLASSIC_CODECS[name].settings})", times["ohmq", work],
            times[name, work], unit="s", note=f"{sizes['ohmq']:,} bytes against {sizes[name]:,}")
        for work in ("encode", "decode") for name in names
    ]  # fmt: skip


# Command lines

PYTHON, TORCH = "python -c pass", 'python -c "import torch"'


def command_lines(model: str, image: Image.Image, folder: Path) -> dict[str, list[str]]:
    """Make the files that command lines need, and list these by name.

    Args:
        model: name of a shipped model, or a model file.
        image: image to compress.
        folder: folder for the files.
    """
    image.save(folder / "image.png")
    program = [sys.executable, "-m", "ohmq"]
    file, commands = str(folder / "image.ohm"), {PYTHON: [sys.executable, "-c", "pass"]}
    commands[TORCH] = [sys.executable, "-c", "import torch"]
    commands["ohmq --help"] = [*program, "--help"]
    commands["ohmq --version"] = [*program, "--version"]
    commands["ohmq info FILE"] = [*program, "info", file]
    commands["ohmq truncate FILE"] = [
        *program,
        "truncate",
        file,
        "-o",
        str(folder / "cut.ohm"),
        "--layers",
        "1",
        "--force",
    ]
    commands["ohmq models"] = [*program, "models"]
    commands["ohmq compress IMAGE"] = [
        *program,
        "compress",
        str(folder / "image.png"),
        "-o",
        file,
        "-m",
        model,
        "--fraction",
        "1",
        "--layers",
        "all",
        "--force",
    ]
    decoded = str(folder / "decoded.png")
    commands["ohmq decompress FILE"] = [*program, "decompress", file, "-o", decoded, "-m", model, "--force"]
    run(commands["ohmq compress IMAGE"])
    return commands


def run(command: Sequence[str]) -> str:
    """Run a command and return its output.

    Raises:
        OhmqError: the command failed.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OhmqError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout


def start_up(model: str, image: Image.Image, rounds: int) -> list[Row]:
    """Measure the seconds of whole processes.

    Args:
        model: name of a shipped model, or a model file.
        image: a small image.
        rounds: rounds to measure; one more warms up.
    """
    with tempfile.TemporaryDirectory() as folder:
        commands = command_lines(model, image, Path(folder))
        times: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, command in commands.items():
                start = time.perf_counter()
                run(command)
                if number:
                    times[name].append(time.perf_counter() - start)
    return [
        row("start-up", name, base, times[name], times[base], unit="s")
        for base in (PYTHON, TORCH)
        for name in commands
        if name not in (PYTHON, TORCH)
    ]


LAUNCH = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
sys.stderr.write(done.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
sys.exit(done.returncode)
"""
"""Program that prints the peak resident size of a command in MiB. It is small, as Linux counts its own size too."""


def memory(model: str, image: Image.Image, step: Sequence[int]) -> list[Row]:
    """Measure the peak resident size of compressing and decompressing one image, and of a training step.

    Args:
        model: name of a shipped model, or a model file.
        image: image to compress.
        step: batch size, channels C and symbols S of the training step.
    """
    with tempfile.TemporaryDirectory() as folder:
        commands = command_lines(model, image, Path(folder))
        names = (PYTHON, TORCH, "ohmq info FILE", "ohmq compress IMAGE", "ohmq decompress FILE")
        wanted = {name: commands[name] for name in names}
        script = str(Path(__file__).parent / "ohm_layer.py")
        for kind in ("fast", "literal"):
            size = ["--batch", str(step[0]), "--channels", str(step[1]), "--symbols", str(step[2])]
            wanted[f"{kind} training step"] = [sys.executable, script, "--memory-of", kind, *size]
        peaks = {name: float(run([sys.executable, "-c", LAUNCH, *command])) for name, command in wanted.items()}
    notes = dict.fromkeys(names[3:], f"{image.width}x{image.height} pixels")
    notes |= {
        f"{kind} training step": f"mnist, batch {step[0]}, C {step[1]}, S {step[2]}" for kind in ("fast", "literal")
    }
    return [
        row("memory", name, TORCH, [peak], [peaks[TORCH]], unit="MiB", note=notes.get(name, ""))
        for name, peak in peaks.items()
        if name != TORCH
    ]


def training(step: Sequence[int], rounds: int) -> list[Row]:
    """Measure a training step of the fast layer and of the literal formulation.

    Args:
        step: batch size, channels C and symbols S.
        rounds: rounds to measure.

    Raises:
        OhmqError: the losses differ.
    """
    note = f"mnist, batch {step[0]}, C {step[1]}, S {step[2]}"
    rows = []
    for name, times, losses in compare_steps(*step, rounds=rounds):
        if not math.isclose(losses["literal"], losses["fast"], rel_tol=1e-4):
            raise OhmqError(f"the losses differ: {losses}: this is a bug")
        rows.append(row("training", name, "literal formulation", times["fast"], times["literal"], unit="s", note=note))
    return rows


# Output


def show(rows: Sequence[Row]) -> None:
    """Print rows as a plain table."""
    cells = [("what", "against", "value", "ratio", "lowest", "highest", "")]
    for r in rows:
        value = f"{r.value:,.0f}" if r.value >= 1000 else f"{r.value:.4g}"
        cells.append(
            (r.what, r.against, f"{value} {r.unit}", *(f"{x:.3g}" for x in (r.ratio, r.lowest, r.highest)), r.note)
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        padded = [
            c.ljust(w) if n in (0, 1, 6) else c.rjust(w) for n, (c, w) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(padded).rstrip())
    print(flush=True)


def to_json(codec: Codec, data: str, settings: Mapping[str, Any], rows: Sequence[Row]) -> bytes:
    """Serialise the result with everything that is needed to read and repeat it.

    Args:
        codec: the codec that was measured.
        data: names and sizes of the images.
        settings: options of the run.
        rows: ratios.

    Returns:
        JSON in UTF-8.
    """
    content = {
        "format": RESULT_FORMAT,
        "command": command_line(),
        "model": codec.name,
        "model_id": codec.model_id.hex(),
        "data": data,
        "versions": software_versions(),
        "definitions": DEFINITIONS,
        "extra": dict(settings),
        "rows": [r._asdict() for r in rows],
    }
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read(paths: Sequence[Path], codec: Codec) -> Images:
    """Read images as the model codes them.

    Args:
        paths: files or folders.
        codec: the codec, whose colours count.

    Returns:
        Names and images.

    Raises:
        ConfigError: no .png or .jpg files.
    """
    files = [
        file
        for path in paths
        for file in (sorted(path.glob("*.png")) + sorted(path.glob("*.jpg")) if path.is_dir() else [path])
    ]
    if not files:
        raise ConfigError(f"no .png or .jpg files in {', '.join(map(str, paths))}")
    return [(file.name, prepare_image(open_image(file).image, grey=codec.grey).image) for file in files]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: words of the command line; None: those of this process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, nargs="*", default=[EXAMPLES])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--model", default="photo")
    parser.add_argument("--bpp", type=float, default=0.4, help="target of the model's files (default: 0.4)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--step", type=int, nargs=3, default=(512, 16, 256), metavar=("BATCH", "C", "S"))
    parser.add_argument("-o", "--output", type=Path, help="also write JSON")
    parser.add_argument("--force", action="store_true", help="overwrite the JSON file")
    options = parser.parse_args(arguments)
    try:
        if options.output:
            check_output(options.output, force=options.force)
        codec = ohmq.load(options.model)
        images = read(options.images, codec)
        first = images[0][1]
        work: dict[str, Callable[[], list[Row]]] = {
            "training": lambda: training(options.step, options.rounds),
            "entropy": lambda: entropy(codec, images, options.bpp, options.rounds),
            "codecs": lambda: codecs(codec, images, options.bpp, options.rounds),
            "start-up": lambda: start_up(options.model, first.crop((0, 0, 64, 64)), options.rounds),
            "memory": lambda: memory(options.model, first, options.step),
        }
        data = ", ".join(f"{name} {image.width}x{image.height}" for name, image in images)
        print(f"{codec.name} {codec.model_id.hex()}; {data}; {torch.get_num_threads()} threads, medians of "
              f"{options.rounds} alternating rounds\n")  # fmt: skip
        rows = []
        for part in PARTS:
            if part in options.only:
                print(f"{part}:")
                part_rows = work[part]()
                show(part_rows)
                rows += part_rows
        if options.output:
            settings = {"bpp": options.bpp, "rounds": options.rounds, "threads": torch.get_num_threads()}
            write_atomically(options.output, to_json(codec, data, settings, rows), force=options.force)
    except OhmqError as error:
        print(f"side_by_side.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
