"""Readers that `tools/fuzz.py` feeds with damaged files, and the ways to damage them."""
