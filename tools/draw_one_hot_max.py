"""Draw docs/images/one-hot-max.svg: one channel of a one-hot max quantizer, from the quantizer itself.

python tools/draw_one_hot_max.py
"""

import math
from pathlib import Path

import matplotlib
import numpy as np
import torch

from ohmq.models.quantizers.directional import DirectionalOneHotMax

matplotlib.use("svg")
from matplotlib import pyplot as plt

TARGET = Path(__file__).parents[1] / "docs" / "images" / "one-hot-max.svg"
"""The figure."""
CENTRES = (-2.1, -0.8, 0.0, 0.7, 2.0)
"""Values of the latent at which the activation of each symbol is zero."""
SHARPNESS = (2.0, 12.0)
"""Inverse temperatures of the softmax that are drawn."""
COLOURS = ("#4477aa", "#228833", "#997700", "#ee6677", "#aa3377")


def main() -> None:
    """Draw the figure and write it as SVG."""
    quantizer = DirectionalOneHotMax(1, len(CENTRES), 1)
    with torch.no_grad():
        quantizer.centres.copy_(torch.tensor([CENTRES]))
    z = torch.linspace(-3, 3, 1201)[:, None]
    soft = []
    with torch.no_grad():
        for sharpness in SHARPNESS:
            quantizer.log_temperature.fill_(math.log(sharpness))
            distance = (z - quantizer.centres[0]).abs()
            soft.append(torch.softmax(-sharpness * distance, -1).numpy())
        symbols = quantizer.nearest(z, slice(0, 1))[:, 0].numpy()
    x, distance = z[:, 0].numpy(), distance.numpy()
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "ohmq", "axes.spines.top": False, "axes.spines.right": False})
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    for s, colour in enumerate(COLOURS):
        left.plot(x, distance[:, s], color=colour, lw=1)
        nearest = np.where(symbols == s, distance[:, s], np.nan)
        left.plot(x, nearest, color=colour, lw=3, label=f"s = {s}")
        right.plot(x, soft[0][:, s], color=colour, lw=1, ls="--")
        right.plot(x, soft[1][:, s], color=colour, lw=1.8)
        for axis in (left, right):
            axis.axvspan(x[symbols == s][0], x[symbols == s][-1], color=colour, alpha=0.08, lw=0)
        right.text(x[symbols == s].mean(), 1.04, str(s), color=colour, ha="center", va="bottom")
    left.set(xlabel="latent z", ylabel="|activation|", ylim=(0, 2.2), xlim=(-3, 3))
    left.legend(frameon=False, ncols=5, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=1.2)
    right.set(xlabel="latent z", ylabel="soft choice", ylim=(0, 1.02), xlim=(-3, 3))
    right.plot([], [], color="grey", lw=1, ls="--", label=f"τ = {SHARPNESS[0]:g}")
    right.plot([], [], color="grey", lw=1.8, label=f"τ = {SHARPNESS[1]:g}")
    right.legend(frameon=False, fontsize=8, loc="center right")
    figure.savefig(TARGET, metadata={"Date": None}, facecolor="white")
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
