"""What a network is asked for: its choice on every axis, and which choices go together."""

import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from vitexp import axes
from vitexp.nn.arch import Arch, parse_arch
from vitexp.nn.attention import LAYERS, WINDOW
from vitexp.nn.mlp import MLPS
from vitexp.nn.norm import NORMS
from vitexp.nn.pool import POOLS
from vitexp.nn.pos_embed import POSITIONS, check_position
from vitexp.nn.pos_join import check_join
from vitexp.nn.position import Position
from vitexp.nn.stem import STEMS
from vitexp.nn.table import Config, part, settled

part("head", "linear", label="linear head", about="one linear layer")
part("head", "tanh", label="tanh head", about="a hidden tanh layer before it, as in the paper's pre-training")

# The types are made from the table when the program runs; a type checker, which cannot run it, reads plain strings.
if TYPE_CHECKING:
    from typing import TypeAlias

    PosEmbed: TypeAlias = str
    PosAt: TypeAlias = str
    PosJoin: TypeAlias = str
    Pool: TypeAlias = str
    Stem: TypeAlias = str
    Attention: TypeAlias = str
    Resnet: TypeAlias = str
    Gelu: TypeAlias = str
    Head: TypeAlias = str
    Block: TypeAlias = str
    Norm: TypeAlias = str
    Mlp: TypeAlias = str
else:
    PosEmbed = Literal[axes.values("pos_embed")] | axes.OwnPart
    PosAt = Literal[axes.values("pos_at")]
    PosJoin = Literal[axes.values("pos_join")]
    Pool = Literal[axes.values("pool")] | axes.OwnPart
    Stem = Literal[axes.values("stem")] | axes.OwnPart
    Attention = Literal[axes.values("attention")] | axes.OwnPart
    Resnet = Literal[axes.values("resnet")]
    Gelu = Literal[axes.values("gelu")]
    Head = Literal[axes.values("head")]
    Block = Literal[axes.values("block")]
    Norm = Literal[axes.values("norm")] | axes.OwnPart
    Mlp = Literal[axes.values("mlp")] | axes.OwnPart

LATER = ("registers", "block", "norm", "mlp", "qk_norm", "layer_scale", "drop_path", "patch_dropout", "pos_join")
"""Options that files and names leave out at their defaults, so that those from before them stay as they are."""
_NOT_FOR_RESNETS = ("pos_embed", "pos_at", "pos_std", "pool", "attention", "window", "gelu", "dropout", *LATER)
_AXES = {
    "pos_embed": "position embedding",
    "pos_at": "where positions enter",
    "pos_join": "how a position table and the tokens become one at the stem",
    "pool": "readout",
    "stem": "how images become tokens",
    "attention": "who attends to whom",
    "resnet": "norm and ReLU in the units of a ResNet (R50x1 ...)",
    "gelu": "form of GELU, the MLP's activation",
    "head": "head",
    "block": "order of attention and MLP",
    "norm": "norm",
    "mlp": "MLP",
}
"""How `--help` introduces an axis; what each value does comes from the table."""


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """One network: its size and its choice on every axis. `vitexp.build` makes it, a ViT or a ResNet, and checks it.

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
    pos_at: PosAt = "stem"
    pos_std: float | None = None
    """standard deviation at which learned positions start; null for their own: 0.02 for 1d and 2d, as in the paper's
    code, and 1 / sqrt(width of a head) for relative and relative2d"""
    pos_join: PosJoin = "add"
    pool: Pool = "cls"
    stem: Stem = "auto"
    attention: Attention = "full"
    window: int = WINDOW
    """patches along each side of the window of local attention, an odd number"""
    resnet: Resnet = "preact"
    gelu: Gelu = "tanh"
    head: Head = "linear"
    head_bias: float = 0.0
    """starting value of the head's bias; -10 or -6.9 suit a sigmoid loss over many classes"""
    dropout: float = 0.0
    """dropout rate after the positions and after every dense layer but the q, k, v projections"""
    registers: int = 0
    """number of registers, learned tokens without a position that are not read"""
    block: Block = "sequential"
    norm: Norm = "layer"
    mlp: Mlp = "gelu"
    qk_norm: bool = False
    """whether queries and keys are normed, each head by itself, before they are compared"""
    layer_scale: float = 0.0
    """starting value of a learned factor for each channel of what attention and MLP add; 0 for no factor"""
    drop_path: float = 0.0
    """stochastic depth: the rate at which an image skips a branch of the last layer in training, from 0 in the first"""
    patch_dropout: float = 0.0
    """share of the patches of each image that training leaves out, others in each step"""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """options of parts of your own (MODULE:NAME) by axis: --model.options.pos_embed.slope 0.5"""
    sources: dict[str, str] = field(default_factory=dict)
    """hashes of the files of parts of your own, by axis: filled in; where one is given, a changed file is refused"""

    @property
    def draws(self) -> bool:
        """Whether a step of training may draw numbers from torch's generator."""
        return bool(self.dropout or self.drop_path or self.patch_dropout or self.sources)


# The parser reads the descriptions of these fields here, and of the others below the fields themselves.
ViTConfig.__doc__ = f"{ViTConfig.__doc__}\n\nArgs:\n" + "\n".join(
    f"    {axis}: {axes.described(axis, intro)}" for axis, intro in _AXES.items()
)


def resolve(config: Config) -> Config:
    """The one spelling of a network: `stem` says what `auto` meant, `arch` is plain, a square image is one number.

    Raises: ValueError for an unknown word, a size that cannot be, and a choice that would have no effect.
    """
    config = settled(config)
    arch = parse_arch(config.arch, config.stem)
    check_resnet(config, arch)
    check_position(config.pos_embed, config.pos_at, config.pos_std)
    check_join(config.pos_embed, config.pos_at, config.pos_join, config.registers)
    check_attention(config)
    check_blocks(config, arch)
    check_patch_dropout(config)
    axes.check("gelu", config.gelu)
    axes.check("head", config.head)
    if config.classes < 1:
        raise ValueError(f"classes is {config.classes}, and must be at least 1: set it to the classes in the data")
    for rate in ("dropout", "drop_path", "patch_dropout"):
        if not 0 <= getattr(config, rate) < 1:
            raise ValueError(f"{rate} is {getattr(config, rate)}, and must be at least 0 and below 1")
    rows, columns = pair(config.image_size)
    image_size = rows if rows == columns else (rows, columns)
    return replace(config, arch=arch.name, stem=arch.stem, image_size=image_size)


def network_config(config: ViTConfig) -> ViTConfig:
    """The network's part of a config that has more, such as the optimizer."""
    given = {field.name: getattr(config, field.name) for field in fields(ViTConfig)}
    own = {name: {axis: one for axis, one in given[name].items() if axis in given} for name in ("options", "sources")}
    return ViTConfig(**given | own)


def check_resnet(config: ViTConfig, arch: Arch) -> None:
    """Raises: ValueError for what has no effect on a ResNet, or on a network that is none."""
    axes.check("resnet", config.resnet)
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


def check_attention(config: ViTConfig) -> None:
    """Raises: ValueError for what has no effect or no meaning beside an attention."""
    attention, window = config.attention, config.window
    kind, pool, position = LAYERS[attention], POOLS[config.pool], POSITIONS[config.pos_embed]
    if attention == "local" and (window < 1 or window % 2 == 0):
        raise ValueError(f"window is {window}, and must be odd and at least 1, so that a patch can be its centre")
    if attention != "local" and window != WINDOW:
        raise ValueError(f"window {window} has no effect with attention {attention}; leave it out, or use local")
    if pool.prefix and position.patches_alone:
        raise ValueError(
            f"pos_embed {config.pos_embed} cannot be with pool {config.pool}: a class token lies in no row and asks "
            "for no offset; use another pool, such as gap"
        )
    if position.has_bias() and not kind.sees_all:
        raise ValueError(
            f"pos_embed {config.pos_embed} cannot be with attention {attention}: its offsets are between all tokens, "
            "which an axis does not see; use another pos_embed"
        )


def check_blocks(config: ViTConfig, arch: Arch) -> None:
    """Raises: ValueError for what has no effect or no meaning in the blocks of a network."""
    axes.check("block", config.block)
    for table in (NORMS, MLPS, STEMS):
        axes.check(table.axis, getattr(config, table.axis))
    if config.registers < 0:
        raise ValueError(f"registers is {config.registers}, and must be 0 or a number of tokens")
    if not 0 <= config.layer_scale < math.inf:
        raise ValueError(f"layer_scale is {config.layer_scale}, and must be a finite starting value, or 0 for none")
    if config.drop_path and arch.depth == 1:
        raise ValueError(f"drop_path {config.drop_path} has no effect on a single layer, whose rate is 0; leave it out")
    if config.mlp != "gelu" and not POOLS[config.pool].has_mlp and config.gelu != ViTConfig.gelu:
        raise ValueError(f"gelu {config.gelu} has no effect with mlp {config.mlp}; leave it out")


def check_patch_dropout(config: ViTConfig) -> None:
    """Raises: ValueError for what needs the place of each patch in layers where some are gone."""
    kind = POSITIONS[config.pos_embed]
    only_added = (kind.rotate, kind.bias) == (Position.rotate, Position.bias)
    at_stem = config.pos_at == "stem" and only_added and not axes.is_path(config.pos_embed)
    if config.patch_dropout and not (at_stem and config.attention == "full"):
        what = f"attention {config.attention}" if at_stem else f"pos_embed {config.pos_embed} at {config.pos_at}"
        raise ValueError(
            f"patch_dropout {config.patch_dropout} cannot be with {what}, which needs the place of each patch in every "
            "layer: use positions that are added at the stem, and attention full"
        )


def pair(image_size: tuple[int, int] | int) -> tuple[int, int]:
    """Rows and columns."""
    rows, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(rows, columns) < 1:
        raise ValueError(f"image_size is {image_size}, and must be at least 1 pixel each way")
    return rows, columns
