"""The configurable Vision Transformer.

Shape letters used throughout: B batch, N patches, P prefix tokens, T = P + N, D width, H heads, K = D / H.
"""
