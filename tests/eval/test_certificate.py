"""Certificates: each planted fault is named by the check that it is for, and every built-in word passes all checks."""

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from vitexp import axes
from vitexp.eval import certificate
from vitexp.eval.certificate import certify
from vitexp.eval.subject import Subject
from vitexp.nn.vit import ViT, ViTConfig, build, resolve

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_ideas.py"
HEAD = "import os\nimport torch\nfrom vitexp.nn.position import Position\n\n\n"


def adamw(network):
    return torch.optim.AdamW(network.parameters())


def config(**options):
    return resolve(ViTConfig(**{"arch": "micro/2", "image_size": 8, "classes": 10} | options))


def failures(subject):
    """The checks that fail, with their sentences; every check gives a line."""
    lines = certify(subject)
    assert [line.check for line in lines] == list(certificate.CHECKS)
    assert all(line.text and "\n" not in line.text for line in lines)
    return {line.check: line.text for line in lines if line.verdict == "FAILS"}


TABLE = "self.table = torch.nn.Parameter(torch.randn(4, 17, 64))"
DRAWS = "differs_in_training = True"


def part(add="tokens + self.table[layer]", make=TABLE, extra=""):
    """A position with this constructor, and what it adds to the tokens."""
    return (
        f"{HEAD}class Mine(Position):\n    {extra or 'permutation_invariant = False'}\n"
        f"    def __init__(self, layout, at):\n        super().__init__(layout, at)\n        {make}\n"
        f"    def add(self, tokens, layer):\n        return {add}\n"
    )


def biased(bias, make="pass"):
    return part("tokens", make) + f"    def bias(self, query, layer):\n        return {bias}\n"


DISTANCE = "self.register_buffer('d', torch.cdist(*[torch.rand(17, 2)] * 2), persistent=False)"
RANKS = "self.register_buffer('d', torch.arange(17.0).expand(1, 17, 17) / 100)"
DEAD = "changes the output", "pos_embed planted:Mine leaves the logits as the baseline has them"
STAY = "order of patches", "pos_embed planted:Mine declares permutation_invariant False, but logits stay with another"
LOST = "changes the output", "planted:Mine weighs .* times what the baseline's pos_embed does; scale it up"
PLANTED = {
    "a dead branch": (part("tokens + 0.0 * self.table[layer]"), [DEAD, ("gradient", "reaches position.table;"), STAY]),
    "a dead branch without parameters": (
        biased("torch.ones_like(query[:, :, :, :1])"),
        [DEAD, STAY],
    ),
    "no effect, beside a baseline that has positions": (
        part("tokens", "pass"),
        [("changes the output", "planted:Mine changes nothing: logits are those without positions"), STAY],
    ),
    "a slope that is not finite": (
        part("tokens + self.table[layer] + (0 * self.table[layer]).abs().sqrt()"),
        [("gradient", "the gradient of position.table is NaN or infinite; bound the slope")],
    ),
    "patches that nobody sees": (
        biased("torch.full((17, 17), -torch.inf).triu(1)"),  # causal: the class token, which is first, sees itself
        [("reaches the head", "no patch reaches the head: every image has one answer"), STAY],
    ),
    "a pass that seeds the generator of all": (
        part("tokens + self.table[layer] + 0 * torch.manual_seed(0).initial_seed()"),
        [("seed", "a pass in eval mode seeds torch's generator, from which others draw")],
    ),
    "a parameter without gradient": (
        part(make="self.table, self.gate = [torch.nn.Parameter(torch.randn(4, 17, 64)) for _ in 'ab']"),
        [("gradient", "no gradient reaches position.gate; use it, or make it a buffer")],
    ),
    "a lost class token": (
        part("torch.cat([0 * tokens[:, :1], tokens[:, 1:]], 1) + self.table[layer]"),
        [("reaches the head", "the class token does not reach the head"), ("gradient", "reaches pool.cls")],
    ),
    "a leak": (
        part("tokens + self.table[layer] - tokens.mean(0, keepdim=True)"),
        [("batch", "an image's logits depend on the others of its batch in eval mode; keep images apart")],
    ),
    "a leak in training": (
        part("tokens + self.table[layer] - self.training * tokens.mean(0, keepdim=True)", extra=DRAWS),
        [("batch", "depend on the others of its batch in training mode")],
    ),
    "a scale that drowns the patches": (
        part("tokens + 100 * self.table[layer]"),
        [("reaches the head", "two images have one answer up to .* %: what is added drowns the patches")],
    ),
    "a scale that is lost": (
        part("tokens + 1e-5 * self.table[layer]"),
        [LOST, STAY],
    ),
    "a scale that bf16 has no digits for": (
        biased("(self.d + 1e3).to(query.dtype)", RANKS),
        [("bf16", "logits in bf16 differ by up to ")],
    ),
    "NaN in bf16": (
        biased("torch.log(1 - (0.9999 - self.d / 1e6).to(query.dtype))", RANKS),
        [LOST, ("bf16", "logits are NaN or infinite in bf16; bound what grows")],
    ),
    "draws in eval mode": (
        part("tokens + self.table[layer] + torch.rand_like(tokens)"),
        [("train and eval", "two passes in eval mode over the same images differ; draw only where self.training")],
    ),
    "draws in training that are not declared": (
        part("tokens + self.table[layer] + self.training * torch.rand_like(tokens)"),
        [("train and eval", "training and eval mode differ by up to .*; declare differs_in_training, or mend it")],
    ),
    "a declared difference that is not there": (
        part(extra=DRAWS),
        [("train and eval", "declares differs_in_training True and is alike in both modes; mend one of both")],
    ),
    "draws that no seed governs": (
        part("tokens + self.table[layer] + self.training * os.urandom(1)[0] * torch.sin(tokens)", extra=DRAWS),
        [("seed", "two training passes from one seed differ; draw by torch's generator alone")],
    ),
    "a start that no seed governs": (
        part(make="self.table = torch.nn.Parameter(torch.frombuffer(bytearray(os.urandom(4352)), dtype=torch.uint8)"
             ".view(4, 17, 64).float() / 255)"),
        [("seed", "position.table start with other values in a second build from one seed")],
    ),
    "a drawn buffer that is not saved": (
        biased("self.d", DISTANCE),
        [("save and resume", "position.d is not saved, and a new network has other values; make it a persistent")],
    ),
    "a count that is not saved": (
        part("tokens + self.table[layer] * self.count()", make=f"{TABLE}; self.seen = 0")
        + "    def count(self):\n        self.seen += self.training\n        return 1\n",
        [("save and resume", "position.seen is not saved")],
    ),
    "a false invariance": (
        part(extra="permutation_invariant = True"),
        [("order of patches", "declares permutation_invariant True, but logits move by up to .* mend one of both")],
    ),
    "parameters that are declared and not there": (
        biased("self.d", RANKS).replace("permutation_invariant = False", "adds_parameters = True"),
        [("size", "declares adds_parameters True and has none; mend one of both")],
    ),
    "a wrong count of multiplications": (
        part(extra="@classmethod\n    def macs(cls, layout, pairs, *, as_computed=False):\n        return 10 ** 6\n"),
        [("size", "with macs of pos_embed planted:Mine an image takes .* torch counts 3,5")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named_by_its_check_alone(ideas, fault):
    source, expected = PLANTED[fault]
    mine = ideas(source)
    baseline = config(pos_embed="none") if DEAD in expected else config()
    found = failures(Subject(mine, baseline, 0, adamw))
    assert found.keys() == {check for check, _ in expected}, found
    for check, said in expected:
        with pytest.raises(AssertionError, match=said):  # as a pattern
            raise AssertionError(found[check])


def test_an_error_in_a_pass_fails_the_checks_that_need_it_and_names_the_line(ideas):
    tried = "tokens.flatten()[0] == torch.tensor(-1.0).sin()"  # the first number that a part is tried on
    mine = ideas(part(f"tokens + self.table[layer].view(17 if {tried} else 5, 64)"))
    found = failures(Subject(mine, config(), 0, adamw))
    assert found.keys() == certificate.CHECKS.keys() - {"equal start"}
    assert all(f"{Path('planted.py').absolute()}:12); mend that file" in said for said in found.values())


def test_a_part_that_cannot_be_built_is_refused(ideas):
    with pytest.raises(ValueError, match=r"planted:Mine: add\(\) gives shape .* mend that method"):
        certify(Subject(ideas(part("tokens[:, 1:]")), config(), 0, adamw))


def test_the_example_holds_and_what_it_declares_is_checked(ideas):
    mine = ideas(EXAMPLE.read_text().replace("class Alibi2D", "class Mine"))
    lines = {line.check: line for line in certify(Subject(mine, config(), 0, adamw))}
    assert {line.verdict for line in lines.values()} == {"holds", "reported"}
    assert lines["order of patches"].verdict == "holds"
    assert lines["order of patches"].text.endswith("under another order of the patches, as declared")
    assert lines["size"].text.startswith("201,610 parameters (-1,088), 0.0035")  # 17 x 64 of the table are gone


def test_an_invariant_part_beside_an_attention_that_is_not_is_no_fault_of_the_part(ideas):
    mine = ideas(
        part(extra="permutation_invariant = True", make="self.table = torch.nn.Parameter(torch.randn(4, 1, 64))")
    )
    assert failures(Subject(mine, config(), 0, adamw)) == {}
    local = {line.check: line for line in certify(Subject(resolve_local(mine), config(), 0, adamw))}
    assert local["order of patches"].verdict == "reported"
    assert local["order of patches"].text.endswith(
        "other parts see the order too, so whether pos_embed planted:Mine does is not known"
    )


def test_a_table_of_the_last_layer_that_only_unread_tokens_see_is_reported_and_no_fault(ideas):
    """As in Swin's bias: no class token is in it, and of the last layer the head reads nothing else."""
    made = "self.table = torch.nn.ParameterList(torch.nn.Parameter(torch.zeros(4, 16, 16)) for _ in range(4))"
    mine = ideas(biased("torch.nn.functional.pad(self.table[layer], (1, 0, 1, 0))", made))
    lines = {line.check: line for line in certify(Subject(mine, config(), 0, adamw))}
    assert [line.check for line in lines.values() if line.verdict == "FAILS"] == []
    assert lines["gradient"] == (
        "gradient",
        "reported",
        "position.table.3 changes tokens of the last layer alone that the head does not read",
    )


class Counting(torch.optim.SGD):
    """Counts its steps in an attribute, which no state_dict() holds."""

    def __init__(self, network):
        super().__init__(network.parameters(), lr=0.01)
        self.steps = 0

    def step(self, closure=None):
        super().step(closure)
        self.steps += 1


def test_what_an_optimizer_counts_and_does_not_save_is_a_fault():
    said = {"save and resume": "steps of the optimizer is not in its state_dict(); keep it in self.state"}
    assert failures(Subject(config(), config(), 0, Counting)) == said


class Halving(torch.optim.SGD):
    """Writes into the gradients, as schedule-free ones do."""

    def step(self, closure=None):
        for group in self.param_groups:
            for one in group["params"]:
                one.grad *= 0.5
        super().step(closure)


def test_an_optimizer_may_write_into_the_gradients():
    assert failures(Subject(config(), config(), 0, lambda network: Halving(network.parameters(), lr=0.01))) == {}


def resolve_local(one):
    return resolve(ViTConfig(**vars(one) | {"attention": "local"}))


class Unshared(ViT):
    """Its constructor draws once more, from torch's generator, into a weight that the baseline has too."""

    def __init__(self, config):
        super().__init__(config)
        nn.init.normal_(self.blocks[1].mlp.fc1.weight)


class Headless(ViT):
    """The class token is dropped after the stem, as a leading library did for 21 months without positions."""

    def encode_patches(self, patches):
        tokens = torch.cat([patches[:, :1], patches], dim=1)
        for layer, block in enumerate(self.blocks):
            tokens = block(self.position.add(tokens, layer), self.position, layer)
        return tokens


class Counted(ViT):
    """Statistics of earlier batches, in a buffer that is not saved."""

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("mean", torch.zeros(64), persistent=False)

    def encode(self, images):
        tokens = super().encode(images)
        found = tokens - 0.01 * self.mean
        if self.training:
            self.mean += tokens.detach().mean((0, 1))
        return found


class Renamed(ViT):
    """Saves a weight under a name that it does not load."""

    def state_dict(self, *arguments, **options):
        state = super().state_dict(*arguments, **options)
        return {name.replace("norm.weight", "scale"): value for name, value in state.items()}


NETWORKS = {
    Unshared: [("equal start", "blocks.1.mlp.fc1.weight start with other values than in the baseline; draw by name")],
    Headless: [("gradient", "no gradient reaches pool.cls"), ("reaches the head", "the class token does not reach")],
    Counted: [("save and resume", "mean is not saved, and a new network has other values")],
    Renamed: [("save and resume", "RuntimeError: Error.* in loading state_dict")],
}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_fault_of_the_network_is_named_too(network):
    def faulty(one):
        return network(one) if one.pos_embed == "rope" else build(one)

    found = failures(Subject(config(pos_embed="rope"), config(), 0, adamw, faulty))
    assert found.keys() == {check for check, _ in NETWORKS[network]}, found
    for check, said in NETWORKS[network]:
        with pytest.raises(AssertionError, match=said):
            raise AssertionError(found[check])


COMPANIONS = {
    "arch": ("micro/2", "micro/16", "micro/32", "R14x0.5"),
    "pool": ("cls", "gap"),
    "pos_embed": ("1d", "rope"),
}


def with_word(axis, word):
    """A small network with this word, and with what that needs beside it."""
    for values in product(*COMPANIONS.values()):
        options = dict(zip(COMPANIONS, values, strict=True)) | {axis: word}
        size = 8 if options["arch"] == "micro/2" else 64
        try:
            return config(**options, image_size=size)
        except ValueError:
            continue
    raise AssertionError(f"no network has {axis} {word}")


@pytest.mark.parametrize(("axis", "word"), [(row.axis, row.word) for row in axes.rows()])
def test_every_built_in_word_passes(axis, word):
    mine = with_word(axis, word)
    arch = mine.arch
    baseline = resolve(ViTConfig(arch=arch, image_size=mine.image_size, classes=10))
    assert failures(Subject(mine, baseline, 0, adamw)) == {}


def test_the_baseline_itself_and_dropout_pass():
    assert failures(Subject(config(), config(), 0, adamw)) == {}
    lines = {line.check: line.text for line in certify(Subject(config(dropout=0.1), config(), 0, adamw))}
    assert lines["changes the output"] == "in training alone; in eval mode logits are the baseline's"
    assert lines["train and eval"] == "training and eval mode differ, as dropout 0.1 says"


def test_a_certificate_leaves_the_generator_as_it_was():
    torch.manual_seed(3)
    certify(Subject(config(dropout=0.1), config(), 0, adamw))
    assert torch.equal(torch.rand(2), torch.manual_seed(3) and torch.rand(2))
