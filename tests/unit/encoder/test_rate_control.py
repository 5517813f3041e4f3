"""Rate control: targets of size and quality, with each kind of small model and with photo."""

import numpy as np
import pytest
from PIL import Image

from ohmq.bitstream.psnr_table import psnr_table
from ohmq.bitstream.reader import read_header
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.codec import Codec
from ohmq.encoder.options import EncodeOptions
from ohmq.entropy import latent_coder
from ohmq.errors import UnreachableTargetError, UnsupportedImageError
from ohmq.metrics import psnr_db, ssimulacra2


def files_at_cuts(codec: Codec, image: Image.Image, **arguments: object) -> list[bytes]:
    """Each cut coded by itself, the slow way."""
    return [codec.compress(image, channels=point, **arguments) for point in codec.cut_points]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments", [{"layers": "all"}, {}, {"layers": 2}, {"layers": "all", "fixed_rate": True}, {"fixed_rate": True}]
)
def test_the_largest_file_within_bytes(codec: Codec, digit: Image.Image, arguments: dict[str, object]) -> None:
    files = files_at_cuts(codec, digit, **arguments)
    sizes = [len(file) for file in files]
    for size in {*sizes, *(size - 1 for size in sizes), *(size + 1 for size in sizes), 10**9}:
        fitting = [file for file in files if len(file) <= size]
        if not fitting:
            with pytest.raises(UnreachableTargetError, match=f"has {sizes[0]} bytes .* the {size} allowed"):
                codec.compress(digit, max_bytes=size, **arguments)  # type: ignore[arg-type]
            continue
        assert codec.compress(digit, max_bytes=size, **arguments) == fitting[-1]  # type: ignore[arg-type]
        assert codec.compress(digit, bpp=8 * (size + 0.5) / 784, **arguments) == fitting[-1]  # type: ignore[arg-type]


def test_the_smallest_file_that_reaches_a_psnr(codec: Codec, digit: Image.Image) -> None:
    files = files_at_cuts(codec, digit)
    reached = [psnr_db(np.asarray(digit), np.asarray(codec.decompress(file))) for file in files]
    for psnr in (0.5, *reached):
        first = next(i for i, value in enumerate(reached) if value >= psnr)
        assert codec.compress(digit, psnr=psnr) == files[first]
    with pytest.raises(UnreachableTargetError, match=rf"reaches {max(reached):.2f} dB .* 99 dB"):
        codec.compress(digit, psnr=99)


def test_targets_of_a_photograph(photo_codec: Codec, crop: Image.Image) -> None:
    files = files_at_cuts(photo_codec, crop, layers="all", tune="psnr")
    reached = [psnr_db(np.asarray(crop), np.asarray(photo_codec.decompress(file))) for file in files]
    pixels = crop.width * crop.height
    middle = len(files) // 2
    for number in (0, middle, len(files) - 1):
        # Feedback moves the latent for nearly as many channels: nearly the file at the cut, where without it is that file.
        size = len(files[number])
        for target in ({"max_bytes": size}, {"bpp": 8 * size / pixels + 1e-9}):
            found = photo_codec.compress(crop, layers="all", tune="psnr", **target)
            assert 0.95 * size < len(found) <= size
            assert psnr_db(np.asarray(crop), np.asarray(photo_codec.decompress(found))) > reached[number] - 0.2
        plain = photo_codec.compress(crop, channels=photo_codec.cut_points[number], effort=0, layers="all", tune="psnr")
        assert photo_codec.compress(crop, max_bytes=len(plain), effort=0, layers="all", tune="psnr") == plain
    between = photo_codec.compress(crop, max_bytes=len(files[middle]) - 1, layers="all", tune="psnr")
    assert len(files[middle - 1]) < len(between) < len(files[middle])
    wanted = (reached[middle - 1] + reached[middle]) / 2
    found = photo_codec.compress(crop, psnr=wanted, layers="all", tune="psnr")
    assert wanted <= psnr_db(np.asarray(crop), np.asarray(photo_codec.decompress(found))) < reached[middle]
    assert len(found) < len(files[middle])


def test_the_smallest_file_that_reaches_a_score(codec: Codec, digit: Image.Image) -> None:
    files = files_at_cuts(codec, digit)
    reached = [ssimulacra2(np.asarray(digit), np.asarray(codec.decompress(file))) for file in files]
    for score in {value for value in reached if value > 0} | {0.5}:
        first = next((i for i, value in enumerate(reached) if value >= score), None)
        if first is None:
            with pytest.raises(UnreachableTargetError, match=rf"score of {max(reached):.2f} .*; {score:g} is out"):
                codec.compress(digit, ssimulacra2=score)
        else:
            assert codec.compress(digit, ssimulacra2=score) == files[first]
    with pytest.raises(
        UnreachableTargetError, match=rf"SSIMULACRA2 score of {max(reached):.2f} .* 100 is out of its reach"
    ):
        codec.compress(digit, ssimulacra2=100)


def test_a_score_of_a_photograph(photo_codec: Codec, crop: Image.Image) -> None:
    def score(data: bytes) -> float:
        return ssimulacra2(np.asarray(crop), np.asarray(photo_codec.decompress(data)))

    cuts = photo_codec.cut_points
    low, high = (photo_codec.compress(crop, channels=cuts[len(cuts) // 2 + step]) for step in (0, 2))
    wanted = (score(low) + score(high)) / 2
    coded = photo_codec.compress_prepared(photo_codec.prepare(crop), EncodeOptions(ssimulacra2=wanted))
    assert coded.ssimulacra2 == score(coded.data)
    assert wanted <= score(coded.data) < score(high)
    assert len(low) < len(coded.data) < len(high)


def test_hidden_pixels_do_not_change_the_score(photo_codec: Codec, crop: Image.Image) -> None:
    half = Image.new("L", crop.size, 255)
    half.paste(0, (0, 0, crop.width // 2, crop.height))
    image = crop.copy()
    image.putalpha(half)
    prepared = photo_codec.prepare(image)
    coded = photo_codec.compress_prepared(prepared, EncodeOptions(ssimulacra2=40))
    assert coded.ssimulacra2 is not None and coded.ssimulacra2 >= 40
    original, decoded = np.asarray(prepared), np.asarray(photo_codec.decompress(coded.data)).copy()
    hidden = original[..., 3] == 0
    decoded[hidden] = original[hidden]
    assert coded.ssimulacra2 == ssimulacra2(original[..., :3].copy(), decoded[..., :3].copy())


def test_images_too_small_for_a_score(codec: Codec) -> None:
    with pytest.raises(UnsupportedImageError, match=r"7x28 has no SSIMULACRA2 score, which needs 8 pixels a side"):
        codec.compress(Image.new("L", (7, 28)), ssimulacra2=50)


def test_a_target_analyses_and_codes_once(codec: Codec, digit: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        target = latent_coder if name == "encode_layers" else codec.transforms.model
        original = getattr(target, name)
        monkeypatch.setattr(target, name, lambda *args, **more: (calls.append(name), original(*args, **more))[1])

    counted("encode_layers")
    counted("symbols")
    smallest = len(codec.compress(digit, channels=1))
    for target in ({"max_bytes": smallest + 9}, {"max_bytes": smallest, "layers": 1}, {"bpp": 0.9}, {"psnr": 1.0}):
        calls.clear()
        codec.compress(digit, **target)  # type: ignore[arg-type]
        assert sorted(calls) == ["encode_layers", "symbols"], target


@pytest.mark.parametrize(
    "arguments",
    [
        {"bpp": 1.0, "psnr": 20.0},
        {"fraction": 0.5, "max_bytes": 100},
        {"channels": 1, "bpp": 1.0},
        {"bpp": 0.0},
        {"bpp": float("nan")},
        {"max_bytes": 0},
        {"max_bytes": -3},
        {"psnr": 0.0},
        {"psnr": float("inf")},
        {"ssimulacra2": 0.0},
        {"ssimulacra2": 100.5},
        {"ssimulacra2": float("nan")},
        {"ssimulacra2": 50, "quality": 50},
    ],
)
def test_wrong_targets(context_codec: Codec, digit: Image.Image, arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive|must be above 0|at most one"):
        context_codec.compress(digit, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{}, {"layers": 3}, {"bpp": 1.0}, {"bpp": 1.0, "layers": 2}, {"tile": 2}])
def test_cut_to_a_psnr_without_a_model(photo_codec: Codec, crop: Image.Image, arguments: dict[str, float]) -> None:
    data = photo_codec.compress(crop, psnr_table=True, **arguments)  # type: ignore[arg-type]
    table = psnr_table(data)
    assert table is not None
    layers = read_header(data).layers
    assert len(table) == len(layers)
    ends = np.cumsum([layer.channels for layer in layers])
    reached = [psnr_db(np.asarray(crop), np.asarray(photo_codec.decompress(data, channels=int(end)))) for end in ends]
    assert table == pytest.approx([int(value * 100) / 100 for value in reached], abs=0.011)
    goal = table[len(table) // 2]
    cut = truncate_ohm(data, psnr=goal)
    assert psnr_db(np.asarray(crop), np.asarray(photo_codec.decompress(cut))) >= goal
    assert len(read_header(cut).layers) == next(n for n, value in enumerate(table, start=1) if value >= goal)
    if "bpp" in arguments:
        assert 8 * len(data) <= crop.width * crop.height


def test_a_psnr_table_of_what_is_not_seen(photo_codec: Codec) -> None:
    clear = Image.new("RGBA", (20, 20), (200, 10, 10, 0))
    assert set(psnr_table(photo_codec.compress(clear, psnr_table=True)) or ()) == {float("inf")}
