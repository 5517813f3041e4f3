"""A file with three layers, and extras of three types."""

from ohmq.bitstream.format import Extra, ExtraType, Layer, OhmFile

EXTRAS = (Extra(ExtraType.ALPHA, b"mask"), Extra(ExtraType.XMP, b""), Extra(70, b"q" * 200))
FILE = OhmFile(b"\x01\x02\x03\x04", 300, 28, True, False, (Layer(1, b"abc"), Layer(2, b""), Layer(5, b"xyz" * 70)))
