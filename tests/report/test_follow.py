"""Studies in which each seed draws its own images: one cell, no caution, one sentence below the table."""

import pytest

from vitexp.record import cell_fingerprint, fingerprint
from vitexp.report.footnotes import footnotes
from vitexp.study.select import select
from vitexp.study.table import make_table

SENTENCES = {
    "data.subset_seed": "Each seed draws its own training images.",
    "data.val_seed": "Each seed holds out its own validation images and trains on others.",
}


def filled(lab, config_of):
    study = lab.study({"study.name": "s"}, {"model.pool": ["cls", "gap"], "seed_everything": [0, 1, 2]})
    records = []
    for cell in study.cells():
        seed = str(cell.seed)
        data = {"name": "digits", "classes": 10, "test_images": 9, "order_fingerprints": {"val": seed, "test": "t"}}
        config = {"data.subset": seed, "data.train_images": 50, **config_of(cell)}
        records.append(lab.run(cell, {"test_acc": 0.9 + 0.01 * cell.seed}, study="s", data=data, config=config))
    return study, records


@pytest.mark.parametrize("key", SENTENCES)
def test_seeds_with_images_of_their_own_are_one_cell_and_the_table_says_so(lab, key):
    study, records = filled(lab, lambda cell: {key: "follow"})
    assert len({record.cell for record in records}) == 2
    assert len({record.fingerprint for record in records}) == 6
    selection = select(study, lab.root)
    assert selection.notes == ()
    cautioned = [caution for caution in selection.cautions if "val images" in caution]
    assert bool(cautioned) == (key == "data.subset_seed")  # which leaves the validation slice as it is
    assert SENTENCES[key] in list(footnotes(make_table(study, lab.root), None, False))


def test_seeds_with_other_images_unasked_are_refused_and_so_are_both_kinds_together(lab):
    study, records = filled(lab, lambda cell: {})
    assert len({record.cell for record in records}) == 6
    with pytest.raises(ValueError, match=r"configured differently: data\.subset: "):
        select(study, lab.root)


def test_runs_of_both_kinds_are_refused_by_the_option_they_differ_in(lab):
    study, _ = filled(lab, lambda cell: {"data.subset_seed": "follow" if cell.seed else 0})
    with pytest.raises(ValueError, match=r"differently: data\.subset_seed: follow \(4 runs\), 0 \(2 runs\)"):
        select(study, lab.root)


def test_the_default_counts_in_no_fingerprint_and_another_value_does():
    config = {"seed_everything": 0, "data": {"subset": "a", "subset_seed": 0}}
    also = {"seed_everything": 0, "data": {"subset": "a", "subset_seed": 0, "val_seed": 0}}
    assert fingerprint(config) == fingerprint(also)
    assert cell_fingerprint(config) == cell_fingerprint(also)
    for key in ("subset_seed", "val_seed"):
        other = {"seed_everything": 0, "data": config["data"] | {key: "follow"}}
        moved = {"seed_everything": 1, "data": other["data"] | {"subset": "b"}}
        assert fingerprint(other) not in (fingerprint(config), fingerprint(moved))
        assert cell_fingerprint(other) == cell_fingerprint(moved) != cell_fingerprint(config)
