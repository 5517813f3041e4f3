"""Quantizers: one-hot max (OHM, Ω), its directional form, integer rounding, and none.

A quantizer stands between the analysis and the synthesis transform. Each is a layer: called with a latent it returns
`QuantizedLatent`, and gradients pass. For coding it has ``symbols`` and ``dequantize``. The channels of a latent are ordered:
an image coded with the first ``n`` of them is a valid image at a lower rate.
"""

from ohmq.models.quantizers.directional import DirectionalOneHotMax
from ohmq.models.quantizers.one_hot_max import OneHotMax
from ohmq.models.quantizers.quantized_latent import QuantizedLatent
from ohmq.models.quantizers.rounding import Identity, IntegerRounding

__all__ = ["DirectionalOneHotMax", "Identity", "IntegerRounding", "OneHotMax", "QuantizedLatent"]
