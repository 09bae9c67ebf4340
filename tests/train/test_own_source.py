"""A data set of the user's own by import path: its shards hold what the class gives, and every way of being wrong."""

import importlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitexp import cli
from vitexp.record import read_record

EXAMPLE = (Path(__file__).parents[2] / "examples" / "my_ideas.py").read_text()
MAKE = ["shards", "make", "ideas:Stripes@images=40,noise=10", "stripes"]

pytestmark = pytest.mark.usefixtures("ideas")


def members(shard):
    with tarfile.open(shard) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_shards_hold_the_images_and_labels_and_are_trained_on(capsys):
    assert cli.main([*MAKE]) == 0
    assert "Stripes: 40 train + 100 test images of 2 classes" in capsys.readouterr().out
    mine = importlib.import_module("ideas").Stripes(40, 10.0)
    found = members(next(Path("stripes").glob("*train*.tar")))
    for i in range(40):
        image = Image.open(io.BytesIO(found[f"train-{i:02d}.png"]))
        assert np.array_equal(np.array(image), mine.image("train", i))
        assert int(found[f"train-{i:02d}.cls"]) == i % 2
    assert Path("stripes/classes.txt").read_text() == "lying\nstanding\n"
    words = ["--model.arch=micro/4", "--trainer.max_epochs=1", "--data.batch_size=12", "--run.shots=[]"]
    words += ["--run.wandb=off", "--trainer.enable_progress_bar=false", "--run.dir=run"]
    assert cli.main(["fit", "--data.shards=./stripes", *words]) == 0
    assert read_record("run").data["name"] == "Stripes"


def test_what_was_made_is_found_and_an_edited_class_or_option_does_not_overwrite_it(ideas, forget, capsys):
    assert [cli.main([*MAKE]), cli.main([*MAKE])] == [0, 0]
    before = members(next(Path("stripes").glob("*test*.tar")))
    for words in ([*MAKE[:2], "ideas:Stripes@images=40,noise=11", "stripes"], MAKE):
        assert cli.main([*words]) == cli.BAD_INPUT
        assert "stripes exists and holds something else" in capsys.readouterr().err
        ideas.write_text(EXAMPLE.replace("100 + 60", "90 + 60"))
        forget()
    assert members(next(Path("stripes").glob("*test*.tar"))) == before


SET = (
    "import numpy as np\nclass Stripes:\n    classes = 'a', 'b'\n    def labels(self, split): return np.arange(8) % 2\n"
    "    def image(self, split, i): return np.full((4, 4), i, np.uint8)\n"
)
IMAGE, LABELS = "np.full((4, 4), i, np.uint8)", "np.arange(8) % 2"
WRONG = {
    SET.replace(
        IMAGE, "None"
    ): r"source ideas:Stripes: image\('train', 0\) is a NoneType, and must be an array or bytes",
    SET.replace(IMAGE, "np.ones((4, 4))"): r"pixels are float64 \(4, 4\); uint8 \(H, W\) or \(H, W, 3\) are needed",
    SET.replace(IMAGE, "np.random.bytes(9)"): r"image\('train', 0\) is another one when it is asked for again",
    SET.replace(IMAGE, "np.full((4, 4), 1 // abs(3 - i), np.uint8)"): "source ideas:Stripes fails: ZeroDivisionError",
    SET.replace(LABELS, "[]"): r"labels\('train'\) is empty",
    SET.replace(LABELS, "np.arange(8) / 2"): r"labels\('train'\) must be whole numbers, one for each image",
    SET.replace(LABELS, "np.arange(8)"): "labels run from 0 to 7, but there are 2 classes",
    SET.replace("classes", "names"): "source ideas:Stripes fails: AttributeError: .* no attribute 'classes'",
    SET.replace("image(", "picture("): "source ideas:Stripes has no method image: write image",
    "label = 3": "has no class Stripes",
    SET + "    label = 'digits'\n": "is called 'digits' like the built-in digits",
}


@pytest.mark.parametrize("source", WRONG)
def test_a_set_that_cannot_be_is_refused_in_one_sentence(ideas, capsys, source):
    ideas.write_text(source)
    assert cli.main(["shards", "make", "ideas:Stripes", "out"]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("vitexp: ") == 1
    with pytest.raises(AssertionError, match=WRONG[source]):  # as a pattern
        raise AssertionError(error)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ideas:Stripes@images=many", "ideas:Stripes.images is 'many', which is not a whole number"),
        ("ideas:Stripes@size=3", "ideas:Stripes.size is no option of ideas:Stripes, which has only images, noise"),
        ("ideas:Stripes@images", "'images' is no option; give ideas:Stripes@NAME=VALUE"),
        ("nowhere:Stripes", "source nowhere:Stripes cannot be imported: there is no nowhere.py in"),
        ("stripes", "a .tar, an .npz or MODULE:NAME"),
    ],
)
def test_names_and_options_that_cannot_be_are_refused(capsys, name, said):
    assert cli.main(["shards", "make", name, "out"]) == cli.BAD_INPUT
    assert said in capsys.readouterr().err
