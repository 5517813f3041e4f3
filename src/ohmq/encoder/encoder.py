"""src/ohmq/encoder/encoder.py."""

__all__ = ["DEFAULT_EFFORT"]
DEFAULT_EFFORT = 1
"""Steps of feedback where nothing else is asked for; see `Codec.fed_back`."""
