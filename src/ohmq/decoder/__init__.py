"""Decoding: from a file to symbols and images."""
