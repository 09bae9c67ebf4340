"""Crops, policies, jitter and erasing are torchvision's and timm's for the same draws; what does nothing is refused."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from vitexp import torch_ops  # noqa: F401  # isort: skip  (before timm and torchvision)
from timm.data import transforms_factory
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import ColorJitter, RandomCrop, RandomResizedCrop, functional

from vitexp import cli
from vitexp.data import policy
from vitexp.data.augmentation import Augmentation
from vitexp.data.module import ShardData
from vitexp.data.order import draws, key
from vitexp.data.views import DRAWS, View, inception_boxes

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 20, 20, 3), dtype=np.uint8)
SAMPLES = np.arange(12)
POLICIES = ["rand-m9-n2-mstd0.5-inc1", "rand-m15-n3-p1-mmax30", "original", "v0r-mstd0.5", "augmix-m3-w3", "3a"]


def seeded(do):
    """What a function makes of each image with the draws of seed 1 and epoch 2."""
    found = []
    for i, (first, second) in enumerate(draws(key(1, 2, policy._POLICY), SAMPLES, 2).tolist()):
        random.seed(first)
        np.random.seed(second & 0xFFFFFFFF)
        torch.manual_seed(first >> 1)
        found.append(np.asarray(do(Image.fromarray(IMAGES[i]))))
    return np.stack(found)


@pytest.mark.parametrize("words", POLICIES)
def test_a_policy_is_timms_for_the_same_draws(words):
    _, timms, _ = transforms_factory.transforms_imagenet_train(
        20, auto_augment=words, color_jitter=None, interpolation="random", mean=(0.5, 0.5, 0.5), separate=True
    )
    expected = seeded(timms)
    found = policy.applied(IMAGES, words, 0, 0, 1, 2, SAMPLES)
    np.testing.assert_array_equal(found, expected)
    assert (found != IMAGES).any((1, 2, 3)).sum() > 3


def test_jitter_is_torchvisions_after_the_policy():
    np.testing.assert_array_equal(
        policy.applied(IMAGES, "none", 0.4, 0, 1, 2, SAMPLES), seeded(ColorJitter(*[0.4] * 3))
    )
    both = seeded(lambda image: ColorJitter(0.3, 0.3, 0.3)(policy.timms("3a", 20)(image)))
    np.testing.assert_array_equal(policy.applied(IMAGES, "3a", 0.3, 0, 1, 2, SAMPLES), both)


def test_erased_boxes_are_timms_in_normalised_units():
    mean, std = [torch.tensor(units)[:, None, None] for units in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]

    def erased(image):
        normal = functional.normalize(functional.to_tensor(image), mean.flatten(), std.flatten())
        pixels = RandomErasing(0.6, mode="pixel", device="cpu")(normal) * std + mean
        return (255 * pixels).round().clip(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()

    found = policy.applied(IMAGES, "none", 0, 0.6, 1, 2, SAMPLES)
    np.testing.assert_allclose(found, seeded(erased), atol=1)  # the round trip of the images moves halves
    changed = (found != IMAGES).any((1, 2, 3))
    assert 0 < changed.sum() < 12


def test_a_sample_gets_the_same_alone_and_global_generators_stay_as_they_were():
    whole = policy.applied(IMAGES, "augmix-m3-w3", 0.4, 0.5, 1, 2, SAMPLES)
    torch.manual_seed(7), random.seed(7), np.random.seed(7)
    for i in (5, 3):
        alone = policy.applied(IMAGES[i : i + 1], "augmix-m3-w3", 0.4, 0.5, 1, 2, SAMPLES[i : i + 1])
        np.testing.assert_array_equal(alone[0], whole[i])
    after = torch.rand(1).item(), random.random(), np.random.random()
    torch.manual_seed(7), random.seed(7), np.random.seed(7)
    assert after == (torch.rand(1).item(), random.random(), np.random.random())
    assert (policy.applied(IMAGES, "augmix-m3-w3", 0.4, 0.5, 1, 3, SAMPLES) != whole).any((1, 2, 3)).all()


def test_boxes_follow_scale_and_ratio_as_torchvisions_do():
    """In the mean and the extremes of 4,000 boxes each."""
    scale, ratio = (0.3, 0.6), (0.5, 1.0)
    how = Augmentation(crop_scale=scale, crop_ratio=ratio)
    size = np.full(4000, 400)
    boxes = inception_boxes(np.random.default_rng(1).random((4000, DRAWS)), size, size, how)
    torch.manual_seed(0)
    blank = torch.zeros(3, 400, 400)
    theirs = np.array([RandomResizedCrop.get_params(blank, scale, ratio) for _ in range(4000)])
    for of in (
        lambda b: b[:, 2] * b[:, 3] / 160_000,
        lambda b: b[:, 3] / b[:, 2],
        lambda b: b[:, 0],
        lambda b: b[:, 1],
    ):
        ours, expected = of(boxes), of(theirs)
        assert abs(ours.mean() - expected.mean()) < 4 * expected.std() * (2 / 4000) ** 0.5
        np.testing.assert_allclose(
            np.quantile(ours, [0.001, 0.999]), np.quantile(expected, [0.001, 0.999]), rtol=0.05, atol=5
        )


def test_padding_is_torchvisions_reflection_for_the_same_shift(monkeypatch):
    view = View(20, "crop", how=Augmentation(crop_padding=4))
    shifts = np.floor(view._draws(0, SAMPLES)[:, :2] * 9).astype(int)
    assert shifts.min() < 4
    assert shifts.max() > 4
    found = view.from_pixels(IMAGES, 0, SAMPLES)
    for image, seen, (top, left) in zip(IMAGES, found, shifts.tolist(), strict=True):
        monkeypatch.setattr(RandomCrop, "get_params", staticmethod(lambda *_, at=(top, left): (*at, 20, 20)))
        crop = RandomCrop(20, padding=4, padding_mode="reflect")
        np.testing.assert_array_equal(seen, crop(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0))


EVERYTHING = {
    "augment": "crop_flip", "auto_augment": "augmix-m3-w2", "color_jitter": 0.4, "random_erasing": 0.5, "repeats": 3,
    "mix": "mixup_cutmix", "mixup_alpha": 0.2, "mix_prob": 0.7, "batch_size": 60, "train_images": 200, "seed": 3,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
def test_any_number_of_workers_gives_the_same_batches(digits):
    """With everything random at once."""

    def batches(workers):
        loader = ShardData(shards=str(digits), workers=workers, **EVERYTHING).train_dataloader()
        found = list(loader)
        loader.close()
        return found

    one, other = batches(0), batches(2)
    assert len(one) == len(other) == 4
    for here, there in zip(one, other, strict=True):
        assert torch.equal(here.samples, there.samples)
        assert torch.equal(here.images, there.images)
        assert torch.equal(here.recipe.share, there.recipe.share)


def test_randaugment_is_inception_with_its_policy():
    both = Augmentation(auto_augment="rand-m9-n2-mstd0.5-inc1")
    one = View(16, "randaugment").from_pixels(IMAGES, 0, SAMPLES)
    np.testing.assert_array_equal(View(16, "inception", how=both).from_pixels(IMAGES, 0, SAMPLES), one)


def test_evaluation_is_never_augmented():
    how = Augmentation(auto_augment="3a", color_jitter=0.4, random_erasing=1.0)
    assert View(20, "none", how=how).from_pixels(IMAGES, -1, SAMPLES) is IMAGES
    assert (View(20, "none", how=how).from_pixels(IMAGES, 0, SAMPLES) != IMAGES).any((1, 2, 3)).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"crop_scale": (0.2, 1.0)},
            "data.crop_scale .* has no effect with data.augment none; give data.augment inception",
        ),
        ({"crop_padding": 4, "augment": "inception"}, "data.crop_padding 4 has no effect with data.augment inception"),
        (
            {"mixup_alpha": 0.2},
            "data.mixup_alpha 0.2 has no effect with data.mix none; give data.mix mixup or mixup_cut",
        ),
        ({"mixup_alpha": 0.2, "mix": "cutmix"}, "mixup_alpha 0.2 has no effect with data.mix cutmix"),
        ({"cutmix_alpha": 0.2, "mix": "mixup"}, "cutmix_alpha 0.2 has no effect with data.mix mixup"),
        ({"mix_prob": 0.5}, "data.mix_prob 0.5 has no effect with data.mix none"),
        ({"switch_prob": 0.3, "mix": "mixup"}, "data.switch_prob 0.3 has no effect with data.mix mixup;"),
        ({"mix_prob": 0.0, "mix": "mixup"}, "data.mix_prob is 0.0; it must be above 0"),
        ({"mixup_alpha": 0.0, "mix": "mixup"}, "data.mixup_alpha is 0.0; it must be above 0"),
        ({"augment": "randaugment", "auto_augment": "3a"}, "are two policies; give data.augment inception"),
        ({"auto_augment": "rand-m9"}, "says nothing of n; write rand-m9-n2"),
        ({"auto_augment": "rand-n2"}, "says nothing of m"),
        ({"auto_augment": "rand-m15-n2"}, "cuts magnitudes off at 10, so add -mmax15"),
        ({"auto_augment": "rand-m9-n2-m9"}, "'m9' is unknown; rand takes, each once"),
        ({"auto_augment": "rand-m9-n2-mstdinf"}, "'mstdinf' is unknown"),
        ({"auto_augment": "rand-m9-n0"}, "at least one operation"),
        ({"auto_augment": "augmix-m3"}, "says nothing of w; write augmix-m9-w2"),
        ({"auto_augment": "trivial"}, "one of timm's policies: rand, augmix, original"),
        ({"color_jitter": 1.5}, "data.color_jitter is 1.5; it must be from 0 to 1"),
        ({"random_erasing": -0.1}, "data.random_erasing is -0.1"),
        ({"repeats": 0}, "data.repeats is 0"),
        ({"repeats": 3}, "data.repeats 3 would show the same image again"),
        ({"crop_scale": (0.5, 0.2), "augment": "inception"}, "give the least and the largest"),
        ({"crop_ratio": (0.0, 2.0), "augment": "inception"}, "data.crop_ratio is .0.0, 2.0.; give the least"),
    ],
)
def test_options_without_effect_or_meaning_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ShardData(**options)


def test_padding_must_fit_the_images_and_a_refusal_is_one_sentence_of_the_command(digits, capsys):
    words = ["fit", f"--data.shards={digits}", "--data.augment=crop"]
    assert cli.main([*words, "--data.crop_padding=8"]) == cli.BAD_INPUT
    said = capsys.readouterr().err
    assert "data.crop_padding is 8; images of 8 pixels can be padded by 1 to 7" in said
    assert cli.main([*words, "--data.mix_prob=0.5"]) == cli.BAD_INPUT
    assert "vitexp: data.mix_prob 0.5 has no effect with data.mix none" in capsys.readouterr().err
