"""A family of models of one's own: RGB images, a latent of one position for each 16x16 pixels.

See `docs/your-own-model.md`.
"""

from dataclasses import dataclass

from torch import nn

from ohmq.models import CompressionModel, ModelConfig, register_family
from ohmq.models.priors.static import StaticPrior
from ohmq.models.quantizers.one_hot_max import OneHotMax


@dataclass(frozen=True, kw_only=True)
class TinyConfig(ModelConfig):
    """Configuration of the tiny family.

    Attributes:
        latent_channels: D, channels of the latent.
        width: channels of the hidden layers.
    """

    channels_max: int = 16
    num_symbols: int = 16
    latent_channels: int = 24
    width: int = 48


class TinyModel(CompressionModel):
    """Three convolutions to the latent, three back.

    Args:
        config: the configuration.
    """

    mean = 0.5
    std = 0.25

    def __init__(self, config: TinyConfig) -> None:
        width, dim = config.width, config.latent_channels
        analysis = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=4),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, dim, 4, stride=4),
        )
        synthesis = nn.Sequential(
            nn.ConvTranspose2d(dim, width, 4, stride=4),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 3, 4, stride=4),
        )
        quantizer = OneHotMax(config.channels_max, config.num_symbols, dim)
        prior = StaticPrior(config.channels_max, config.num_symbols)
        super().__init__(config, analysis, synthesis, quantizer, prior)


register_family("tiny", TinyConfig, TinyModel)
