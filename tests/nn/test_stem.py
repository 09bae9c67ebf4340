"""The stem axis: tokens in raster order, grids by hand, and images of the wrong size."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitexp.nn.arch import parse_arch
from vitexp.nn.init import initialise
from vitexp.nn.stem import PatchEmbedding, make_stem


@pytest.mark.parametrize(("channels", "patch", "size"), [(3, 2, (4, 6)), (5, 1, (3, 2)), (3, 4, (8, 4))])
def test_patches_are_a_strided_convolution_in_raster_order(channels: int, patch: int, size: tuple[int, int]) -> None:
    embedding = PatchEmbedding(channels, 7, patch)
    nn.init.normal_(embedding.weight)
    nn.init.normal_(embedding.bias)
    maps = torch.randn(2, channels, *size)
    expected = F.conv2d(maps, embedding.weight, embedding.bias, stride=patch).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embedding(maps), expected)


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("B/16", (224, 224), (14, 14)),
        ("B/32", (384, 384), (12, 12)),
        ("H/14", (224, 224), (16, 16)),
        ("micro/2", (8, 12), (4, 6)),
        ("R50+B/16", (224, 224), (14, 14)),
        ("R50+L/32", (224, 224), (7, 7)),
        ("R26+S/32", (64, 96), (2, 3)),
        ("R+Ti/16", (224, 224), (7, 7)),
        ("R50+S/16", (32, 40), (2, 3)),
    ],
)
def test_grids(name: str, size: tuple[int, int], grid: tuple[int, int]) -> None:
    with torch.device("meta"):
        stem = make_stem(parse_arch(name), size)
        assert stem.grid == grid
        tokens = stem(torch.empty(2, 3, *size))
    assert tokens.shape == (2, grid[0] * grid[1], parse_arch(name).width)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("B/16", (224, 230), r"patch 16 does not divide image_size \(224, 230\): choose another patch in arch"),
        ("micro/3", (8, 8), "patch 3 does not divide"),
        ("R+Ti/16", (32, 40), r"patch 8 does not divide image_size \(32, 40\), feature maps of \(8, 10\)"),
    ],
)
def test_patches_must_tile(name: str, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_stem(parse_arch(name), size)


@pytest.mark.parametrize("shape", [(12, 8), (16, 24), (8, 8)])
@pytest.mark.parametrize("name", ["micro/2", "R14+micro/16"])
def test_images_of_another_size_are_refused(name: str, shape: tuple[int, int]) -> None:
    stem = make_stem(parse_arch(name), (8, 12))
    initialise(stem, 0)
    with pytest.raises(ValueError, match=r"met a network built for \(3, 8, 12\): set image_size"):
        stem(torch.randn(1, 3, *shape))
