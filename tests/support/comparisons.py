"""Made-up results of a comparison of codecs."""

import math
from typing import Any

from ohmq.evaluation.comparison import CodecResult, CodedPoint, CodedRow, Comparison

RATES_BPP = (0.1, 0.2, 0.4, 0.8)
PSNR_DB = (28.0, 31.0, 34.0, 37.0)


def make_result(name: str, factor: float = 1.0, shift: float = 0.0, similarity: float = 0.9) -> CodecResult:
    """A codec with every rate times a factor and every PSNR plus a shift; MS-SSIM rises by 1 dB a point.

    SSIMULACRA2 is -10, 20, 50, 80; PSNR-HVS-M is PSNR plus 1.
    """
    points, rows = [], []
    for n, (rate, psnr) in enumerate(zip(RATES_BPP, PSNR_DB, strict=True)):
        s = 1 - (1 - similarity) * 10 ** (-n / 10)
        db = -10 * math.log10(1 - s) if not math.isnan(s) else s
        bpp, scores = factor * rate, (30.0 * n - 10, psnr + shift + 1)
        points.append(CodedPoint(name, f"quality {n}", bpp, psnr + shift, s, db, 0.1 * (n + 1), 0.01, *scores))
        rows.append((CodedRow(name, f"quality {n}", "a.png", 100, bpp, psnr + shift, s, 0.1, 0.01, *scores),))
    return CodecResult(name, name.upper(), "settings", (0, 1, 2, 3), tuple(rows), tuple(points))


def make_comparison(*codecs: CodecResult, **changes: Any) -> Comparison:
    fixed = {"command": "ohmq compare <x>", "model": "m", "model_id": "00112233", "data": "a & b", "anchor": "jpeg"}
    return Comparison(
        **{**fixed, "sizes": (("a.png", 80, 60),), "codecs": codecs, "versions": {"ohmq": "0"}, **changes}
    )
