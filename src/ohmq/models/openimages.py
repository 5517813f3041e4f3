"""The published network for photographs."""

from torch import Tensor, nn

from ohmq.models.base import CompressionModel, published_bottleneck
from ohmq.models.config import OpenImagesConfig
from ohmq.models.priors.static import StaticPrior

__all__ = ["ChannelNorm", "OpenImagesModel"]

WIDTHS = (60, 120, 240, 480)
"""Channels of the convolutions, from the full resolution to an eighth."""


class ChannelNorm(nn.Module):
    r"""Normalisation over the channels of each position, with a scale and a shift a channel.

    $$ y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta $$

    Args:
        channels: channels to normalise.
        epsilon: added to the (unbiased) variance.

    Shape:
        x: (batch, channels, H, W), before and after.

    References: as in HiFiC (arXiv:2006.09965).
    """

    def __init__(self, channels: int, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.gamma = nn.Parameter(nn.init.ones_(Tensor(1, channels, 1, 1)))
        self.beta = nn.Parameter(nn.init.zeros_(Tensor(1, channels, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, of the shape of x."""
        centred = x - x.mean(1, keepdim=True)
        return self.gamma * centred * (x.var(1, keepdim=True) + self.epsilon).rsqrt() + self.beta


class Residual(nn.Module):
    """Residual connection: x plus the output of the inner modules.

    Args:
        modules: inner modules, in sequence.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, of the shape of x."""
        out: Tensor = x + self.inner(x)
        return out


def _reflected(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_Reflect(kernel // 2), nn.Conv2d(before, after, kernel, stride=stride))


class _Reflect(nn.Module):
    """Reflection padding; where the image is smaller than the padding, the edge is repeated."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, H + 2 pixels, W + 2 pixels)."""
        mode = "reflect" if min(x.shape[-2:]) > self.pixels else "replicate"
        return nn.functional.pad(x, (self.pixels,) * 4, mode=mode)


class OpenImagesModel(CompressionModel):
    """The published photo network.

        3 x H x W -> Conv k7, 60 -> four Conv k3 s2: 120, 240, 480, D: D x H/16 x W/16
        x + 8 residual blocks -> four ConvT k3 s2: 480, 240, 120, 60 -> Conv k7, 3

    Channel normalisation after every convolution but the last, ReLU after all but the latent's; reflection padding. The
    static prior sees a constant image, and so is the same at every position.

    Args:
        config: the configuration.

    References: Löhdefink et al., One-Hot Max (Ω) Quantization.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, config: OpenImagesConfig) -> None:
        dim = config.channels_max
        analysis: list[nn.Module] = [_reflected(3, WIDTHS[0], 7), ChannelNorm(WIDTHS[0]), nn.ReLU()]
        for before, after in zip(WIDTHS, (*WIDTHS[1:], dim), strict=True):
            analysis += [_reflected(before, after, 3, stride=2), ChannelNorm(after), nn.ReLU()]
        blocks = [
            Residual(_reflected(dim, dim, 3), ChannelNorm(dim), nn.ReLU(), _reflected(dim, dim, 3), ChannelNorm(dim))
            for _ in range(8)
        ]
        synthesis: list[nn.Module] = [Residual(*blocks)]
        for before, after in zip((dim, *WIDTHS[:0:-1]), WIDTHS[::-1], strict=True):
            upsampling = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
            synthesis += [upsampling, ChannelNorm(after), nn.ReLU()]
        synthesis.append(_reflected(WIDTHS[0], 3, 7))
        super().__init__(
            config, nn.Sequential(*analysis[:-1]), nn.Sequential(*synthesis), *published_bottleneck(config, dim)
        )
        if config.quantizer == "ohm" and config.prior == "static":
            assert isinstance(self.prior, StaticPrior)
            self.prior.positional = False
            self.prior.network = nn.Sequential(
                _reflected(1, 480, 3),
                ChannelNorm(480),
                nn.ReLU(),
                _reflected(480, 960, 3),
                ChannelNorm(960),
                nn.ReLU(),
                nn.Conv2d(960, config.channels_max * config.num_symbols, 1),
            )
