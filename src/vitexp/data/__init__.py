"""Shards in, exact batches out."""
