"""Rate control: search the number of channels and λ for a target size or quality.

Without RDOQ, symbols do not depend on the target: one file with all layers is coded and cut. With RDOQ, the search bisects the
number of channels, then λ between the two nearest numbers. What all channels do not reach, a residual does, whose step is
bisected.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar, cast

from PIL import Image

from ohmq.bitstream.format import Extra
from ohmq.bitstream.psnr_table import psnr_extra
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.encoder.encoder import Encoder, FileSettings
from ohmq.encoder.quality import DecodedScore
from ohmq.encoder.residual import STEPS, ResidualSource
from ohmq.encoder.tuning import PoorRange
from ohmq.errors import UnreachableTargetError, UnsupportedImageError
from ohmq.metrics import SSIMULACRA2_MIN_SIDE
from ohmq.runtime.latents import Latent, Source, Symbols
from ohmq.utils.counting import counted
from ohmq.utils.progress import phase

__all__ = ["LAMBDA_SCALES", "QualityResult", "SizeResult", "search_psnr", "search_size", "search_ssimulacra2"]

LAMBDA_SCALES = tuple(2 ** (-step / 4) for step in (-8, -6, *range(-4, 5), 6, 8))
"""Factors on λ that a search tries, from few bits to many."""


class QualityResult(NamedTuple):
    """Result of a search for a quality.

    Attributes:
        channels: number of channels.
        reached: PSNR of the decoded image in dB, or its SSIMULACRA2 score.
        source: input of the encoder, with its λ scale.
    """

    channels: int
    reached: float
    source: Source


class SizeResult(NamedTuple):
    """Result of a search for a size.

    Attributes:
        file: the file.
        channels: number of channels.
        source: input of the encoder, with its λ scale.
        symbols_sha256: hash of the symbols of the file; None: not asked for.
    """

    file: bytes
    channels: int
    source: Source
    symbols_sha256: str | None = None


_Result = TypeVar("_Result", SizeResult, QualityResult)
_Trial = Callable[[int, Source], tuple[bool, _Result]]
"""One trial of the search: takes channels and source, returns (overshoots, result)."""


def search_size(
    encoder: Encoder,
    source: Source,
    max_bytes: int,
    settings: FileSettings,
    *,
    original: Image.Image | None = None,
    poor_ranges: Sequence[PoorRange] = (),
    hash_symbols: bool = False,
) -> SizeResult:
    """Search the largest file of at most ``max_bytes`` bytes.

    Args:
        encoder: the encoder.
        source: symbols of all channels, or a latent.
        max_bytes: limit on the size of the file, in bytes.
        settings: settings of the file.
        original: the image, for a residual; None: there will be none.
        poor_ranges: numbers of channels that a search with RDOQ avoids; default: none.
        hash_symbols: whether to hash the symbols of the file. Default: no.

    Returns:
        The file, with a residual if one fits.

    Raises:
        UnreachableTargetError: even the first cut point needs more bytes.
    """
    if isinstance(source, Latent):
        with phase("search for the size", _most_trials(encoder, source, poor_ranges)) as advance:
            result, smallest = _search_size_with_rdoq(
                encoder, source, max_bytes, settings, poor_ranges, advance, hash_symbols
            )
    else:
        result, smallest = _search_size_of_symbols(encoder, source, max_bytes, settings)
        if result is not None and hash_symbols:
            result = result._replace(symbols_sha256=source.sha256(result.channels))
    if result is not None:
        if original is None or settings.fixed_rate:
            return result
        return _with_residual_that_fits(encoder, result, original, max_bytes, settings, hash_symbols)
    extras_bytes = sum(len(extra.body) for extra in settings.extras)
    raise UnreachableTargetError(
        f"the smallest file of this {source.width}x{source.height} image at a cut point "
        f"({counted(encoder.config.cut_points[0], 'channel')}) has {smallest} bytes "
        f"({8 * smallest / (source.width * source.height):.4g} bpp), more than the {max_bytes} allowed"
        + (f"; {extras_bytes} of them are its mask of transparency and metadata" if extras_bytes else "")
    )


def _search_size_of_symbols(
    encoder: Encoder, source: Symbols, max_bytes: int, settings: FileSettings
) -> tuple[SizeResult | None, int]:
    """Search the cut points, coded in one pass; also returns the size of the smallest file."""
    config = encoder.config
    files: Iterable[bytes]
    if settings.layers is None:
        whole = encoder.encode(source, config.channels_max, settings)
        files = (truncate_ohm(whole, num_layers=count) for count in range(len(config.cut_points), 0, -1))
    else:
        layouts = [config.layer_ends(point, settings.layers) for point in config.cut_points]
        files = reversed(encoder.encode_layouts(source, layouts, settings).files)
    for channels, file in zip(reversed(config.cut_points), files, strict=True):
        if len(file) <= max_bytes:
            return SizeResult(file, channels, source), len(file)
    return None, len(file)


def _search_size_with_rdoq(
    encoder: Encoder,
    source: Latent,
    max_bytes: int,
    settings: FileSettings,
    poor_ranges: Sequence[PoorRange],
    advance: Callable[[], None],
    hash_symbols: bool,
) -> tuple[SizeResult | None, int]:
    """Bisect channels and λ, and call ``advance`` after each trial; also returns the size of the smallest file."""
    kept: list[tuple[int, Symbols]] = []  # size and symbols of the largest file that fits so far; hashed at the end

    def trial(channels: int, candidate: Source) -> tuple[bool, SizeResult]:
        table: tuple[Extra, ...] = ()
        if settings.original is not None:  # room for the table, whose content is not known yet
            layout = encoder.config.layer_ends(channels, settings.layers)
            table = (psnr_extra([0.0] * len(layout)),)
        trial_settings = replace(settings, extras=(*settings.extras, *table), original=None)
        coded = encoder.encode_layouts(
            candidate, [encoder.layer_ends(channels, settings.layers)], trial_settings, keep=hash_symbols
        )
        (file,) = coded.files
        if hash_symbols and len(file) <= max_bytes and (not kept or len(file) > kept[0][0]):
            assert coded.symbols is not None
            kept[:] = [(len(file), coded.symbols)]
        advance()
        return len(file) > max_bytes, SizeResult(file, channels, candidate)

    trials = _search_lambda(encoder, source, trial, poor_ranges)
    fitting = [result for overshoots, result in trials if not overshoots]
    if fitting:
        largest = max(fitting, key=lambda result: len(result.file))  # the first of several, as in ``kept``
        if kept:
            largest = largest._replace(symbols_sha256=kept[0][1].sha256(largest.channels))
        if settings.original is None:
            return largest, len(largest.file)
        return largest._replace(file=encoder.encode(largest.source, largest.channels, settings)), len(largest.file)
    if source.effort:  # refinement spends more bits: without it the target may be within reach
        plain = source._replace(effort=0)
        return _search_size_with_rdoq(encoder, plain, max_bytes, settings, poor_ranges, advance, hash_symbols)
    return None, min(len(result.file) for _, result in trials)


def _with_residual_that_fits(
    encoder: Encoder,
    result: SizeResult,
    original: Image.Image,
    max_bytes: int,
    settings: FileSettings,
    hash_symbols: bool,
) -> SizeResult:
    """Search the finest residual whose file fits; without one, return the result of the search for channels and λ."""
    if not encoder.residual_base or result.channels < encoder.config.channels_max:
        return result
    if isinstance(result.source, Latent) and result.source.lambda_scale > 1:  # no room for all channels at their own λ
        return result
    residual = ResidualSource.of(encoder, result.source, original)
    trial_settings = settings
    if settings.original is not None:  # room for the table, whose content is not known yet
        table = psnr_extra([0.0] * len(encoder.layer_ends(residual.channels, settings.layers)))
        trial_settings = replace(settings, extras=(*settings.extras, table), original=None)
    step, _ = _bisect_steps(
        residual, lambda symbols: len(encoder.encode(symbols, residual.channels, trial_settings)) > max_bytes
    )
    if step is None:
        return result
    symbols = residual.quantized(step)
    digest = symbols.sha256(residual.channels) if hash_symbols else None
    return SizeResult(encoder.encode(symbols, residual.channels, settings), residual.channels, symbols, digest)


def _bisect_steps(residual: ResidualSource, overshoots: Callable[[Symbols], bool]) -> tuple[int | None, int | None]:
    """Bisect the steps of a residual, from few bits to many.

    Only one residual is kept at a time: those of large images take much memory.

    Returns:
        The last step that does not overshoot, and the first that does; None where there is none.
    """
    low, high = 0, len(STEPS)
    with phase("search for the residual", high.bit_length()) as advance:
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if overshoots(residual.quantized(STEPS[middle])) else (middle + 1, high)
            advance()
    return (STEPS[low - 1] if low else None), (STEPS[low] if low < len(STEPS) else None)


def search_psnr(
    encoder: Encoder,
    original: Image.Image,
    source: Source,
    psnr_db: float,
    *,
    poor_ranges: Sequence[PoorRange] = (),
) -> QualityResult:
    """Search the smallest number of channels that reaches a PSNR.

    From symbols, the cut points are tried in order. From a latent, channels and λ are bisected, and the result nearest to the
    target is taken; if bisection finds nothing, all stops are tried in order.

    Args:
        encoder: the encoder.
        original: the image; pixels that its mask makes fully transparent do not count.
        source: symbols of its colours, all channels, or its latent.
        psnr_db: the target, in dB.
        poor_ranges: as for `search_size`.

    Raises:
        UnreachableTargetError: no number of channels reaches the target.
    """

    def measure(symbols: Symbols, channels: int) -> float:
        return encoder.psnr_db(original, symbols, channels)

    best = _search_quality(encoder, source, original, psnr_db, measure, poor_ranges, "search for the PSNR")
    if best.reached >= psnr_db:
        return best
    raise UnreachableTargetError(
        f"{encoder.name} reaches {best.reached:.2f} dB on this image, with {_described(encoder, best.channels)}; "
        f"{psnr_db:g} dB are out of its reach"
    )


def search_ssimulacra2(
    encoder: Encoder,
    original: Image.Image,
    source: Source,
    score: float,
    *,
    poor_ranges: Sequence[PoorRange] = (),
) -> QualityResult:
    """Search the smallest number of channels that reaches a SSIMULACRA2 score, as `search_psnr` does for a PSNR.

    Unlike a PSNR, the score needs the whole decoded image at once, and about 80 bytes a pixel.

    Args:
        encoder: the encoder.
        original: the image; pixels that its mask makes fully transparent count as decoded without error.
        source: symbols of its colours, all channels, or its latent.
        score: the target, at most 100.
        poor_ranges: as for `search_size`.

    Raises:
        UnreachableTargetError: no number of channels reaches the target.
        UnsupportedImageError: an image too small for the metric.
    """
    if min(original.size) < SSIMULACRA2_MIN_SIDE:
        raise UnsupportedImageError(
            f"an image of {original.width}x{original.height} has no SSIMULACRA2 score, which needs {SSIMULACRA2_MIN_SIDE} "
            "pixels a side; give a quality or a PSNR instead"
        )

    def synthesise(symbols: Symbols, channels: int) -> Image.Image:
        return encoder.windowed_for(symbols, channels).synthesise(symbols, channels)

    scorer = DecodedScore(synthesise, original)
    best = _search_quality(encoder, source, original, score, scorer.measure, poor_ranges, "search for the score")
    if best.reached >= score:
        return best
    raise UnreachableTargetError(
        f"{encoder.name} reaches a SSIMULACRA2 score of {best.reached:.2f} on this image, with "
        f"{_described(encoder, best.channels)}; {score:g} is out of its reach"
    )


def _described(encoder: Encoder, channels: int) -> str:
    """Say how many channels a result has, and whether it has a residual."""
    last = encoder.config.channels_max
    return counted(min(channels, last), "channel") + (" and the finest residual" if channels > last else "")


def _search_quality(
    encoder: Encoder,
    source: Source,
    original: Image.Image,
    target: float,
    measure: Callable[[Symbols, int], float],
    poor_ranges: Sequence[PoorRange],
    name: str,
) -> QualityResult:
    """Search the smallest number of channels that reaches a quality; if none does, return the best of all trials."""
    with phase(name, _most_trials(encoder, source, poor_ranges)) as advance:

        def trial(channels: int, candidate: Source) -> tuple[bool, QualityResult]:
            reached = measure(encoder.symbols(candidate, channels), channels)
            advance()
            return reached >= target, QualityResult(channels, reached, candidate)

        has_lambda = isinstance(source, Latent)
        trials = _search_lambda(encoder, source, trial, poor_ranges) if isinstance(source, Latent) else []
        reaching = [result for reaches, result in trials if reaches]
        if reaching:
            return min(
                reaching,
                key=lambda result: (result.reached, result.channels, -cast(Latent, result.source).lambda_scale),
            )
        if isinstance(source, Latent) and encoder.residual_base:
            return _residual_for_quality(encoder, source, original, target, measure)
        for channels in _stops(encoder, poor_ranges) if has_lambda else encoder.config.cut_points:
            trials.append(trial(channels, source))
            if trials[-1][0]:
                return trials[-1][1]
        if encoder.residual_base:
            return _residual_for_quality(encoder, source, original, target, measure)
        return max((result for _, result in trials), key=lambda result: result.reached)


def _residual_for_quality(
    encoder: Encoder, source: Source, original: Image.Image, target: float, measure: Callable[[Symbols, int], float]
) -> QualityResult:
    """Search the coarsest residual that reaches a quality; if none does, return the finest one."""
    residual = ResidualSource.of(encoder, source, original)
    reached: dict[int, float] = {}

    def reaches(symbols: Symbols) -> bool:
        assert symbols.residual is not None
        reached[symbols.residual.info.step] = quality = measure(symbols, residual.channels)
        return quality >= target

    _, step = _bisect_steps(residual, reaches)
    step = step or STEPS[-1]
    return QualityResult(residual.channels, reached[step], residual.quantized(step))


def _most_trials(encoder: Encoder, source: Source, poor_ranges: Sequence[PoorRange]) -> int:
    """Return the largest number of trials of a search that succeeds: the sum over its bisections."""
    if not isinstance(source, Latent):
        return len(encoder.config.cut_points)
    further = max((len(_further_scales(poor)) for poor in poor_ranges), default=0)
    bisections = [len(encoder.stops)] * (2 if source.effort else 1) + [len(LAMBDA_SCALES) - 1 + further]
    return sum(count.bit_length() for count in bisections)


def _further_scales(poor: PoorRange) -> list[float]:
    """Return factors on λ above `LAMBDA_SCALES` that a search tries at the end of a poor range, from few bits to many."""
    count = max(0, math.ceil(4 * math.log2(poor.largest / max(LAMBDA_SCALES))))
    return [poor.largest * 2 ** (-step / 4) for step in range(count)]


def _stops(encoder: Encoder, poor_ranges: Sequence[PoorRange]) -> list[int]:
    """Return the numbers of channels that a search tries."""
    return [n for n in encoder.stops if not any(poor.start < n < poor.end for poor in poor_ranges)]


def _search_lambda(
    encoder: Encoder, source: Latent, trial: _Trial[_Result], poor_ranges: Sequence[PoorRange]
) -> list[tuple[bool, _Result]]:
    """Bisect the number of channels at λ scale 1, then other scales at the two nearest numbers; returns all trials.

    Any earlier λ scale is ignored: the search restarts at 1. The latent is refined once, for about the number of channels that
    fits: refining it for others would give nearly the same.
    """
    source, stops = source._replace(lambda_scale=1.0), _stops(encoder, poor_ranges)
    if source.effort:
        assert encoder.refiner is not None
        plain = source._replace(effort=0)
        settings = [(channels, plain) for channels in stops]
        fitting = [result.channels for overshoots, result in _bisect(settings, trial) if not overshoots]
        channels = fitting[-1] if fitting else stops[0]
        source = plain._replace(values=encoder.refiner.refine(source, channels))
    trials = _bisect([(channels, source) for channels in stops], trial)
    between: list[tuple[int, Source]] = []
    below, above = ([result.channels for overshoots, result in trials if overshoots == side] for side in (False, True))
    poor: PoorRange | None = next((item for item in poor_ranges if above and item.end == above[-1]), None)
    if below:
        least = poor.smallest if poor else 0.0
        between += [(below[-1], source._replace(lambda_scale=scale)) for scale in LAMBDA_SCALES if least <= scale < 1]
    if above:
        scales = [*(_further_scales(poor) if poor else ()), *(scale for scale in LAMBDA_SCALES if scale > 1)]
        between += [(above[-1], source._replace(lambda_scale=scale)) for scale in scales]
    return trials + _bisect(between, trial)


def _bisect(settings: Sequence[tuple[int, Source]], trial: _Trial[_Result]) -> list[tuple[bool, _Result]]:
    """Bisect settings, ordered from few bits to many, for the first that overshoots; returns all trials."""
    trials = []
    low, high = 0, len(settings)
    while low < high:
        middle = (low + high) // 2
        trials.append(trial(*settings[middle]))
        low, high = (low, middle) if trials[-1][0] else (middle + 1, high)
    return trials
