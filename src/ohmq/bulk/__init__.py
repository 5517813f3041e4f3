"""Bulk coding: millions of images in shards, by processes of one machine or by a Ray cluster."""
