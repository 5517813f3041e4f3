"""Quantizers: one-hot max (OHM, Ω), its directional form, integer rounding, and none.

A quantizer stands between the analysis and the synthesis transform. Each is a layer: called with a latent it returns
`QuantizedLatent`, and gradients pass. For coding it has ``symbols`` and ``dequantize``. The channels of a latent are ordered:
an image coded with the first ``n`` of them is a valid image at a lower rate.
"""
