"""Readings of a network: tensors in, numbers out."""
