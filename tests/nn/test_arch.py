"""Names become the sizes that the papers print; what is not a name is refused with the forms that are."""

import pytest

from vitexp.nn.arch import BODIES, HYBRIDS, parse_arch


# Width, depth, MLP, heads: Table 1 of the ViT paper, and "How to train your ViT" for Ti and S.
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Ti/16", (192, 12, 768, 3)),
        ("S/32", (384, 12, 1536, 6)),
        ("B/16", (768, 12, 3072, 12)),
        ("L/16", (1024, 24, 4096, 16)),
        ("H/14", (1280, 32, 5120, 16)),
        ("micro/2", (64, 4, 256, 4)),
    ],
)
def test_sizes(name: str, sizes: tuple[int, ...]) -> None:
    arch = parse_arch(name)
    assert (arch.width, arch.depth, arch.mlp_width, arch.heads) == sizes
    assert (arch.name, arch.full_name, arch.stem, arch.family) == (name, name, "patch", "vit")
    assert arch.patch == arch.feature_patch == int(name.split("/")[1])
    assert arch.resnet_blocks is None


@pytest.mark.parametrize(
    ("name", "stem", "blocks", "feature_patch"),
    [
        ("R50+B/16", "resnet50", (3, 4, 9), 1),
        ("R50+L/32", "resnet50", (3, 4, 6, 3), 1),
        ("R26+S/32", "resnet26", (2, 2, 2, 2), 1),
        ("R14+micro/16", "resnet14", (1, 1, 2), 1),
        ("R+Ti/16", "root", (), 8),
    ],
)
def test_hybrids(name: str, stem: str, blocks: tuple[int, ...], feature_patch: int) -> None:
    arch = parse_arch(name)
    assert (arch.stem, arch.resnet_blocks, arch.feature_patch) == (stem, blocks, feature_patch)
    assert arch.full_name == name
    assert arch.name == name.split("+")[1]
    assert parse_arch(arch.name, stem) == arch


@pytest.mark.parametrize(
    ("name", "blocks", "width"),
    [
        ("R14x0.5", (1, 1, 1, 1), 0.5),
        ("R26x1", (2, 2, 2, 2), 1),
        ("R50x1", (3, 4, 6, 3), 1),
        ("R50x2", (3, 4, 6, 3), 2),
        ("R101x1", (3, 4, 23, 3), 1),
        ("R152x4", (3, 8, 36, 3), 4),
        ("R200x3", (3, 24, 36, 3), 3),
    ],
)
def test_resnets(name: str, blocks: tuple[int, ...], width: int) -> None:
    arch = parse_arch(name)
    assert (arch.resnet_blocks, arch.resnet_width, arch.family) == (blocks, width, "resnet")
    assert (arch.width, arch.depth, arch.mlp_width, arch.heads) == (0, 0, 0, 0)
    assert arch.full_name == arch.name == name
    # Each unit has three convolutions; the root and the head make the number whole.
    assert 3 * sum(blocks) + 2 == int(name[1:].split("x")[0])


def test_case_tells_sizes_apart() -> None:
    assert parse_arch("b/32").width == 384
    assert parse_arch("B/32").width == 768
    assert parse_arch("g/14").depth == 40
    assert parse_arch("G/14").depth == 48


@pytest.mark.parametrize(
    "name",
    [
        "",
        "B",
        "B/",
        "B/0",
        "B16",
        "XL/16",
        "R50+/16",
        "R101+B/16",
        "R50x0",
        "R50x1.5",
        "R18x1",
        "R50x",
        "x1",
        " B/16",
        "B/16\n",
    ],
)
def test_unknown_names_are_refused_with_the_forms(name: str) -> None:
    with pytest.raises(ValueError, match=r"is unknown; write BODY/PATCH.*R50\+BODY/16.*for example B/16") as error:
        parse_arch(name)
    assert all(body in str(error.value) for body in BODIES)


@pytest.mark.parametrize(
    ("name", "stem", "message"),
    [
        ("R50+B/16", "patch", "contradicts arch 'R50\\+B/16'.*use stem auto or resnet50"),
        ("R26+B/32", "resnet50", "contradicts arch"),
        ("micro/2", "resnet50", "resnet50 exists for /16 or /32, not for arch 'micro/2'"),
        ("B/14", "resnet50", "not for arch 'B/14'"),
        ("R26+S/16", "auto", "resnet26 exists for /32"),
        ("R50x1", "patch", "stem patch has no effect on the ResNet R50x1"),
        ("R50x1", "resnet50", "stem resnet50 has no effect on the ResNet R50x1"),
        ("B/16", "resnet18", "'resnet18' is unknown; allowed are auto, patch, resnet50"),
    ],
)
def test_stems_that_cannot_be_are_refused(name: str, stem: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_arch(name, stem)


def test_every_hybrid_is_reachable_by_flag_and_by_name() -> None:
    for stem, hybrid in HYBRIDS.items():
        for patch in hybrid.blocks:
            assert parse_arch(f"micro/{patch}", stem) == parse_arch(f"{hybrid.prefix}+micro/{patch}")


def test_a_body_in_numbers_is_the_one_with_the_name() -> None:
    for name, body in BODIES.items():
        words = f"w{body.width}d{body.depth}m{body.mlp_width}h{body.heads}/16"
        free, named = vars(parse_arch(words)), vars(parse_arch(f"{name}/16"))
        assert free | {"name": ""} == named | {"name": ""}
        assert parse_arch(f"R50+{words}").resnet_blocks == (3, 4, 9)
