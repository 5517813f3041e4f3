"""Integer frequency tables, the range coder, and fixed-rate packing."""

from ohmq.entropy.fixed_rate import decode_fixed_rate, encode_fixed_rate, fixed_rate_bytes
from ohmq.entropy.range_coder import SymbolDecoder, SymbolEncoder, prepare_tables
from ohmq.entropy.tables import (
    PRECISION_BITS,
    frequencies_from_weights,
    optimal_bits,
    quantize_probabilities,
    symbol_bits,
)

__all__ = [
    "PRECISION_BITS",
    "SymbolDecoder",
    "SymbolEncoder",
    "decode_fixed_rate",
    "encode_fixed_rate",
    "fixed_rate_bytes",
    "frequencies_from_weights",
    "optimal_bits",
    "prepare_tables",
    "quantize_probabilities",
    "symbol_bits",
]
