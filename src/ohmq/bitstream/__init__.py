"""The ``.ohm`` file format: reading, writing and truncating files, with the standard library alone."""
