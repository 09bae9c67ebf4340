"""What a network is asked for: its choice on every axis, and which choices go together."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from vitexp.nn.arch import Arch, Stem, parse_arch
from vitexp.nn.attention import WINDOW, Attention, check_attention
from vitexp.nn.block import GELUS, Gelu
from vitexp.nn.pool import POOLS, Pool
from vitexp.nn.pos_embed import PosAt, PosEmbed, check_position

Head = Literal["linear", "tanh"]
Resnet = Literal["preact", "postact"]

_NOT_FOR_RESNETS = ("pos_embed", "pos_at", "pool", "attention", "window", "gelu", "dropout")


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """One network: its size and its choice on every axis. Checked when a network is built from it.

    >>> ViTConfig(arch="Ti/16", image_size=224, classes=10, pos_embed="rope", pool="gap").attention
    'full'
    """

    arch: str = "B/16"
    """size and patch as the papers write them: Ti/16, S/32, B/16, L/16, H/14, micro/2, R50+B/16, R26+S/32; or a
    ResNet by layers and width: R50x1, R101x1, R50x2, R152x2"""
    image_size: tuple[int, int] | int = 224
    """rows and columns in pixels, or one number for a square"""
    classes: int = 1000
    """number of classes"""
    pos_embed: PosEmbed = "1d"
    """position embedding: none; learned over the raster sequence, or per row and column (2d); relative attention; fixed
    sines of row and column (sincos2d); queries and keys turned by row and column (rope)"""
    pos_at: PosAt = "stem"
    """where positions enter: after the stem, before every layer with its own table, or with one table shared by all"""
    pool: Pool = "cls"
    """readout: a class token, the mean over patches (gap), or attention pooling by a learned probe (map)"""
    stem: Stem = "auto"
    """how images become tokens: as the arch says, patches, or a ResNet in front (resnet50 at /16 and /32)"""
    attention: Attention = "full"
    """who attends to whom: every token to every token; each patch to a window around it (local); along the row and then
    along the column, each with an MLP (axial)"""
    window: int = WINDOW
    """patches along each side of the window of local attention, an odd number"""
    resnet: Resnet = "preact"
    """units of a ResNet (R50x1 ...): norm and ReLU before each convolution, as in BiT, or after, as in the hybrids"""
    gelu: Gelu = "tanh"
    """the MLP's activation: the tanh form of GELU, as in Google's code, or exact, as in timm, DeiT, Hugging Face and
    torchvision"""
    head: Head = "linear"
    """head: one linear layer, or a hidden tanh layer before it as in the paper's pre-training"""
    head_bias: float = 0.0
    """starting value of the head's bias; -10 or -6.9 suit a sigmoid loss over many classes"""
    dropout: float = 0.0
    """dropout rate after the positions and after every dense layer but the q, k, v projections"""


def resolve(config: ViTConfig) -> ViTConfig:
    """The one spelling of a network: `stem` says what `auto` meant, `arch` is plain, a square image is one number.

    Raises: ValueError for an unknown word, a size that cannot be, and a choice that would have no effect.
    """
    arch = parse_arch(config.arch, config.stem)
    check_resnet(config, arch)
    check_position(config.pos_embed, config.pos_at)
    _check_word("pool", config.pool, tuple(POOLS))
    check_attention(config.attention, config.window, config.pool, config.pos_embed)
    _check_word("gelu", config.gelu, tuple(GELUS))
    _check_word("head", config.head, get_args(Head))
    if config.classes < 1:
        raise ValueError(f"classes is {config.classes}, and must be at least 1: set it to the classes in the data")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout is {config.dropout}, and must be at least 0 and below 1")
    rows, columns = pair(config.image_size)
    image_size = rows if rows == columns else (rows, columns)
    return replace(config, arch=arch.name, stem=arch.stem, image_size=image_size)  # type: ignore[arg-type]


def check_resnet(config: ViTConfig, arch: Arch) -> None:
    """Raises: ValueError for what has no effect on a ResNet, or on a network that is none."""
    _check_word("resnet", config.resnet, get_args(Resnet))
    if arch.family != "resnet":
        if config.resnet != "preact":
            raise ValueError(
                f"resnet {config.resnet} has no effect on arch {arch.full_name}: only a ResNet, such as R50x1, has the "
                "choice; leave it out"
            )
        return
    for option in _NOT_FOR_RESNETS:
        value, default = getattr(config, option), getattr(ViTConfig, option)
        if value != default:
            raise ValueError(f"{option} {value} has no effect on the ResNet {arch.name}; leave it out")


def _check_word(option: str, word: str, allowed: tuple[str, ...]) -> None:
    if word not in allowed:
        raise ValueError(f"{option} {word!r} is unknown; allowed are {', '.join(allowed)}")


def pair(image_size: tuple[int, int] | int) -> tuple[int, int]:
    """Rows and columns."""
    rows, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(rows, columns) < 1:
        raise ValueError(f"image_size is {image_size}, and must be at least 1 pixel each way")
    return rows, columns
