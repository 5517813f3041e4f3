"""Where files lie: folders and object stores behind one interface, and shards of images (tar, Parquet)."""
