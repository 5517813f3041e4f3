"""Compress and decompress one image against a network of the size of a mean-scale hyperprior: ratios in one run.

    python benchmarks/codec.py IMAGE [--model photo] [--bpp 0.4] [--rounds 9] [--check FOLDER]

The rival has the field's usual transforms (N = 128, M = 192, four 5x5 convolutions of stride 2 each way, GDN between),
random weights, and only its forward pass is timed: no hyper-network, no entropy coding. Ours is everything but reading
and writing files, at the default effort, then at the others. Times alternate; each figure is a median. With --check
every image of a folder is coded with 1 and with 2 threads and decoded again: all symbols must be equal.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ohmq
from ohmq.bitstream.reader import read_ohm
from ohmq.codec import Codec
from ohmq.encoder.refine import PASSES
from ohmq.entropy.layers import KnownSymbols, encode_layers
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.model_files.frozen_model import load_model, save_model


class GDN(nn.Module):
    """Generalised divisive normalisation, or its inverse.

    Args:
        channels: channels of input and output.
        inverse: multiply by the norm in place of dividing by it.

    References: Ballé, Laparra and Simoncelli, Density modeling of images using a generalized normalization
        transformation.
    """

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.gamma = nn.Conv2d(channels, channels, 1)
        nn.init.constant_(self.gamma.weight, 0.1 / channels)
        nn.init.ones_(self.gamma.bias)  # type: ignore[arg-type]
        self.inverse = inverse

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a tensor (B, channels, H, W)."""
        norm = self.gamma(x * x)
        return x * norm.sqrt() if self.inverse else x * norm.rsqrt()


def rival(n: int = 128, m: int = 192) -> nn.Module:
    """Build analysis and synthesis transform, one after the other.

    Args:
        n: channels of the convolutions.
        m: channels of the latent.

    References: Minnen, Ballé and Toderici, Joint autoregressive and hierarchical priors for learned image compression.
    """
    layers: list[nn.Module] = []
    for before, after in ((3, n), (n, n), (n, n), (n, m)):
        layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), GDN(after)]
    del layers[-1]
    for before, after in ((m, n), (n, n), (n, n), (n, 3)):
        layers += [
            nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1),
            GDN(after, inverse=True),
        ]
    del layers[-1]
    return nn.Sequential(*layers).eval()


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def channels_for_rate(codec: Codec, image: Image.Image, bpp: float) -> int:
    """Find the last cut point whose file does not exceed a rate.

    Args:
        codec: the codec.
        image: RGB image.
        bpp: limit in bits per pixel.

    Returns:
        Number of channels; the first cut point if none fits.
    """
    limit = bpp * image.width * image.height / 8
    fitting = [n for n in codec.cut_points if len(codec.compress(image, channels=n, layers=1)) <= limit]
    return max(fitting, default=codec.cut_points[0])


def check(codec: Codec, folder: Path) -> None:
    """Code and decode all images with 1 and 2 threads, with a model that was saved and loaded, and in a batch.

    Args:
        codec: the codec.
        folder: images, searched recursively.

    Raises:
        AssertionError: symbols or bytes differ.
    """
    num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        save_model(codec.frozen, Path(name) / "again.safetensors")
        reloaded = Codec(load_model(Path(name) / "again.safetensors"), compiled=codec.compiled)
    layouts = [codec.config.layer_ends(codec.num_channels)]
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg"))
    for path in files:
        image = Image.open(path).convert("RGB")
        symbols = codec.analyse(image)
        if codec.config.supports_rdoq:
            latent = codec.latent(image)
            symbols = codec.decode(codec.encode(latent, codec.num_channels))[1]
            assert codec.encode(latent, codec.num_channels) == codec.encode(symbols, codec.num_channels), path
        data = codec.encode(symbols, codec.num_channels)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert np.array_equal(codec.decode(data)[1].values, symbols.values), path
            assert codec.encode(symbols, codec.num_channels) == data, path
        torch.set_num_threads(num_threads)
        assert np.array_equal(reloaded.decode(data)[1].values, symbols.values), path
        batch = np.stack([symbols.values[:, ::-1, ::-1], symbols.values])
        payloads = encode_layers(codec.prior, KnownSymbols(batch), layouts).payloads[0][1]
        assert payloads == [layer.payload for layer in read_ohm(data).layers], path
    print(f"{len(files)} images: symbols and bytes equal with 1 and 2 threads, after loading again, in a batch")


def flops_per_pixel(codec: Codec) -> tuple[float, float, float]:
    """Count floating-point operations of compressing, of decompressing and of a refinement pass, for all channels.

    Products of the integer prior are included.

    Args:
        codec: a codec of a photo model, by torch.

    Returns:
        Operations per pixel: compressing without analysis by synthesis; decompressing; a pass of analysis by synthesis.
    """
    side = 256
    patch = torch.zeros(1, 3, side, side)
    counts = []
    for transform, x in (
        (codec.transforms.model.analysis_transform, patch),
        (codec.transforms.model.synthesis_transform, codec.transforms.model.analysis_transform(patch)),
    ):
        with FlopCounterMode(display=False) as counter:
            transform(x)
        counts.append(counter.get_total_flops() / side**2)
    prior = codec.prior
    assert isinstance(prior, IntegerTabulatedPrior)
    networks = 2 * sum(part.size for network in prior.networks for part in network.layers)
    # w · z or w · y of each channel, and the sum of codewords, once for the transform's side and once for the prior.
    products = 4 * prior.directions.size
    tables = (networks + products) / 16**2
    filters = codec.transforms.filters
    postfilter = filters.flops_per_pixel if filters is not None else 0
    decoded = counts[1] + prior.directions.size * 2 / 16**2 + postfilter
    refine = 2 * codec.transforms.block.size / 16**2 if codec.config.supports_rdoq else 0
    return counts[0] + products / 16**2 + tables, decoded + tables, decoded + products / 16**2 + refine


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", default="photo")
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.15, 0.4, 1.0, 10.0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--plain", action="store_true", help="do without numba, as where it is not installed")
    parser.add_argument("--check", type=Path, help="folder of images to code with 1 and 2 threads")
    arguments = parser.parse_args()
    codec = ohmq.load(arguments.model, compiled=not arguments.plain)
    image = Image.open(arguments.image).convert("RGB")
    network = rival()
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255
    print(f"{arguments.image.name}, {image.width}x{image.height}, {torch.get_num_threads()} threads, "
          f"{'compiled by numba' if codec.compiled else 'nothing compiled'}, "
          f"medians of {arguments.rounds} alternating rounds")  # fmt: skip
    encoder, decoder, refine = (count / 1000 for count in flops_per_pixel(codec))
    default = codec.effort_for(None)
    print(
        f"compress {encoder + default * refine:.1f}, decompress {decoder:.1f} kFLOPs a pixel, all channels; "
        f"of those of compressing, {refine:.1f} for each effort, which is {default}"
    )
    for bpp in arguments.bpp:
        count = channels_for_rate(codec, image, bpp)
        data = codec.compress(image, channels=count, layers=1)
        symbols = codec.decode(data)[1]
        source = codec.latent(image, effort=0) if codec.config.supports_rdoq else symbols
        work: dict[str, Callable[[], object]] = {
            "rival": lambda: network(pixels),
            "compress": lambda n=count: codec.compress(image, channels=n, layers=1),
            "decompress": lambda d=data: codec.decompress(d),
            "encode": lambda s=symbols, n=count: codec.encode(s, n, layers=1),
            "choose and encode": lambda s=source, n=count: codec.encode(s, n, layers=1),
            "decode": lambda d=data: codec.decode(d),
        }
        for effort in range(len(PASSES)) if codec.config.supports_rdoq else ():
            if effort == default:
                continue
            work[f"effort {effort}"] = lambda n=count, e=effort: codec.compress(image, channels=n, layers=1, effort=e)
        times: dict[str, list[float]] = {name: [] for name in work}
        with torch.inference_mode():
            for _ in range(arguments.rounds + 1):
                for name, job in work.items():
                    times[name].append(seconds(job))
        median_s = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first warms up
        print(
            f"{8 * len(data) / (image.width * image.height):.3f} bpp, {count} channels: "
            f"compress {median_s['compress'] / median_s['rival']:.2f} of the rival's forward pass "
            f"(entropy coding {median_s['encode'] / median_s['compress']:.0%} of it, "
            f"with the choice of symbols {median_s['choose and encode'] / median_s['compress']:.0%}), "
            f"decompress {median_s['decompress'] / median_s['rival']:.2f} ({median_s['decode'] / median_s['decompress']:.0%})"
            + "".join(
                f", {name} {median_s[name] / median_s['rival']:.2f}" for name in work if name.startswith("effort")
            )
        )
    if arguments.check:
        check(codec, arguments.check)


if __name__ == "__main__":
    main()
