import pytest
import torch

from vitexp import torch_ops  # noqa: F401  (before timm)

import timm  # isort: skip

from vitexp.eval.attention_maps import attention_rollout, readout_attention, watch_attention
from vitexp.nn.vit import ViT, ViTConfig

torch.manual_seed(0)
IMAGES = torch.rand(2, 3, 32, 32) * 2 - 1


@pytest.fixture(scope="module")
def network():
    """Somebody else's network, which can compute its attention fused or written out."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(20)
    return model


def by_hand(network, layer):
    """The probabilities of one layer from what enters it, head by head."""
    entered = []
    handle = network.blocks[layer].attn.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    with torch.no_grad():
        network(IMAGES)
        handle.remove()
        attention, heads = network.blocks[layer].attn, []
        query, key, _ = (entered[0] @ attention.qkv.weight.T + attention.qkv.bias).chunk(3, dim=-1)
        for head in range(3):
            part = slice(64 * head, 64 * head + 64)
            heads.append(torch.softmax(query[..., part] @ key[..., part].mT / 8, dim=-1))
    return torch.stack(heads, dim=1)


@pytest.mark.parametrize("fused", [True, False])
def test_what_is_seen_is_what_is_computed(network, fused):
    for block in network.blocks:
        block.attn.fused_attn = fused
    seen = watch_attention(network, IMAGES, tokens=5, layers=3)
    for layer in range(3):
        torch.testing.assert_close(seen[layer], by_hand(network, layer), rtol=0, atol=1e-5)
    assert seen[0].max() > 0.5  # the heads do look at something


@pytest.mark.parametrize("mask", ["words", "numbers"])
def test_a_mask_is_part_of_what_is_seen(mask):
    query, key, value = torch.randn(3, 1, 2, 4, 8).unbind()
    seen_keys = torch.ones(4, 4, dtype=torch.bool).tril()
    numbers = torch.zeros(4, 4).masked_fill(~seen_keys, float("-inf"))

    def network(_):
        given = seen_keys if mask == "words" else numbers
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=given, scale=0.3)

    (seen,) = watch_attention(network, IMAGES, tokens=4, layers=1)
    torch.testing.assert_close(seen @ value, network(IMAGES), rtol=0, atol=1e-6)
    assert not seen.triu(1).any()


def test_a_network_that_does_not_look_at_everything_is_refused(network):
    with pytest.raises(ValueError, match="compares all of its 6 tokens in 0 of 3 layers"):
        watch_attention(network, IMAGES, tokens=6, layers=3)


@pytest.mark.parametrize("choices", [{"pool": "gap"}, {}, {"registers": 1, "pool": "class_attention"}], ids=str)
@pytest.mark.parametrize("size", [(4, 8), (8, 8)])
def test_axial_attention_is_that_within_rows_and_then_within_columns(size, choices):
    """Each half by hand: the softmax over the patches of a line and the prefix, from what enters its attention."""
    vit = ViT(ViTConfig(arch="micro/2", image_size=size, classes=10, attention="axial", **choices)).eval()
    (rows, columns), prefix, tokens = vit.layout.grid, vit.layout.prefix, vit.layout.tokens
    place = torch.arange(rows * columns)
    entered = []
    for block in vit.blocks:
        for half in (block.attention, block.column.attention):
            half.register_forward_pre_hook(lambda module, given: entered.append((module, given[0])))
    images = torch.rand(2, 3, *size)
    seen = watch_attention(vit, images, tokens, vit.layout.depth, (rows, columns))
    assert len(seen) == len(entered) == 2 * vit.layout.depth
    for half, (module, given) in enumerate(entered):
        query, key, _ = module.qkv(given).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        same, line = torch.ones(tokens, tokens, dtype=torch.bool), place % columns if half % 2 else place // columns
        same[prefix:, prefix:] = line[:, None] == line
        logits = (query @ key.mT / 4).masked_fill(~same, float("-inf"))
        torch.testing.assert_close(seen[half], logits.softmax(-1), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="its attention is not full"):
        watch_attention(vit, images, tokens, vit.layout.depth)


def test_a_class_token_that_is_not_read_is_passed_over():
    """A prefix of two, and the mean over the patches, as networks read that average beside a class token."""
    weights = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(-1)
    mean = weights.mean(dim=1)
    found = readout_attention(weights, (2, 2), prefix=2, reads_class=False)
    torch.testing.assert_close(found.flatten(1), mean[:, 2:, 2:].mean(dim=1))
    found = readout_attention(weights, (2, 2), prefix=2, reads_class=True)
    torch.testing.assert_close(found.flatten(1), mean[:, 0, 2:])
    half = (mean + torch.eye(6)) / 2
    found = attention_rollout([weights], (2, 2), prefix=2, reads_class=False)
    torch.testing.assert_close(found.flatten(1), half[:, 2:, 2:].mean(dim=1))
