import pytest

from vitexp.learn.parser import plain_words, sentence

KNOWN = ["model.pos_embed", "model.pos_at", "model.pool", "data.train_images", "data.batch_size", "trainer.max_epochs"]


def test_a_wrong_word_is_answered_with_the_allowed_ones():
    message = (
        "Parser key \"model.pos_embed\":\n  Expected a typing.Literal['none', '1d', '2d', 'relative']. Got value: 3d"
    )
    assert sentence(message, KNOWN) == "--model.pos_embed is '3d'; allowed: none, 1d, 2d, relative"


def test_a_misspelt_flag_is_answered_with_the_nearest():
    told = sentence("unrecognized arguments: --model.pos-embed=2d", KNOWN)
    assert told.startswith("--model.pos-embed is no flag; did you mean --model.pos_embed")


def test_an_unknown_flag_is_answered_with_its_group():
    assert "allowed here: --data.train_images, --data.batch_size" in sentence(
        "unrecognized arguments: --data.zzz 3", KNOWN
    )


@pytest.mark.parametrize("extra", ["--_wandb={}", "--_wandb=x"])
def test_the_word_of_a_resumed_sweep_run_is_taken_out(extra):
    assert plain_words(["fit", extra, "--model.pool=gap"]) == (["fit", "--model.pool=gap"], [extra])
