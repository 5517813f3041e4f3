"""Priors of symbols; for training, in floating point."""
