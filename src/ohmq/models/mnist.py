"""The published network for 28x28 digits."""

import math

from torch import nn

from ohmq.models.base import CompressionModel, published_bottleneck
from ohmq.models.config import MnistConfig

__all__ = ["MnistModel"]


class MnistModel(CompressionModel):
    """The published MNIST network.

        1x28x28 -> Conv k3 s3, 16 -> ReLU -> Conv k3 s2, 16 -> ReLU -> Conv k3 s2, D: D x 3 x 3
        D x 3 x 3 -> ConvT k3 s2, 16 -> ReLU -> ConvT k5 s2, 8 -> ReLU -> ConvT k2 s2, 1 -> Tanh

    Args:
        config: the configuration.

    References: Löhdefink et al., One-Hot Max (Ω) Quantization.
    """

    mean = 0.5
    std = 0.5

    def __init__(self, config: MnistConfig) -> None:
        dim = config.transform_channels
        analysis = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, dim, 3, stride=2, padding=1),
        )
        synthesis = nn.Sequential(
            nn.ConvTranspose2d(dim, 16, 3, stride=2),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 5, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 2, stride=2, padding=1),
            nn.Tanh(),
        )
        super().__init__(config, analysis, synthesis, *published_bottleneck(config, dim))

    def initialise_variance_preserving(self) -> None:
        """Keep the variance from layer to layer (ReLU gain), so that training leaves the constant image at once.

        With PyTorch's default the output stays constant for hundreds of steps; a transposed convolution's fan in is
        in_channels * k^2 / stride^2.
        """
        for layer in [*self.analysis_transform, *self.synthesis_transform]:  # type: ignore[misc]
            if isinstance(layer, nn.Conv2d):
                fan = float(layer.in_channels * layer.kernel_size[0] ** 2)
            elif isinstance(layer, nn.ConvTranspose2d):
                fan = layer.in_channels * layer.kernel_size[0] ** 2 / layer.stride[0] ** 2
            else:
                continue
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan))
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
