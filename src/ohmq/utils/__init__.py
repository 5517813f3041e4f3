"""Tools that know nothing of images: atomic writes, progress, compiled functions, provenance."""
