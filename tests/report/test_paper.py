"""The published numbers against one another: the paper repeats itself in several places, and sums must add up."""

import pytest

from vitexp.report.paper import PAPER, published


def column(table, name):
    return {row: figure.value for (row, at), figure in PAPER[table].figures.items() if at == name}


def test_table_8_is_asked_in_our_own_words():
    table = published("table8")
    assert table.metric == "fewshot_5"
    assert table.figure("none", "stem") == 0.61382
    assert [table.figure("1d", at) for at in ("stem", "every", "shared")] == [0.64206, 0.63964, 0.64292]
    assert [table.figure("2d", at) for at in ("stem", "every", "shared")] == [0.64001, 0.64046, 0.64022]
    assert table.figure("relative", "stem") == 0.64032
    assert [table.figure(*cell) for cell in (("none", "every"), ("relative", "shared"), ("rope", "stem"))] == [None] * 3


def test_percentages_become_shares():
    assert published("table5").figure("ImageNet > ImageNet", "B/16") == pytest.approx(0.7791)
    assert published("table2").figures["ImageNet", "ViT-H/14 JFT"].sd == 0.04


@pytest.mark.parametrize("name", ["R50 Adam", "R50 SGD", "R152x2 Adam", "R152x2 SGD"])
def test_the_averages_of_table_7_are_those_of_its_rows(name):
    values = column("table7", name)
    average = values.pop("average")
    assert sum(values.values()) / len(values) == pytest.approx(average, abs=0.0051)


@pytest.mark.parametrize("name", ["ViT-H/14 JFT", "ViT-L/16 JFT", "ViT-L/16 I21k"])
def test_the_scores_of_table_9_are_the_means_of_19_tasks_and_those_of_table_2(name):
    values = column("table9", name)
    score = values.pop("mean of 19")
    assert len(values) == 19
    assert sum(values.values()) / 19 == pytest.approx(score, abs=0.051)
    assert PAPER["table2"].figures["VTAB (19 tasks)", name].value == pytest.approx(score, abs=0.051)


def test_table_7_repeats_the_adam_rows_of_table_6():
    for data, name in [(d, n) for d in ("ImageNet", "CIFAR-10", "CIFAR-100", "Pets", "Flowers") for n in (50, 152)]:
        row = "ResNet50x1, 7" if name == 50 else "ResNet152x2, 7"
        here = "R50 Adam" if name == 50 else "R152x2 Adam"
        assert PAPER["table6"].figures[row, data] == PAPER["table7"].figures[data, here]


@pytest.mark.parametrize(("model", "row"), [("B/32", "ViT-B/32, 7"), ("B/16", "ViT-B/16, 7"), ("L/16", "ViT-L/16, 14")])
def test_table_6_repeats_the_jft_rows_of_table_5(model, row):
    for data in ("ImageNet", "ImageNet ReaL", "CIFAR-10", "CIFAR-100", "Pets", "Flowers"):
        assert PAPER["table5"].figures[f"JFT-300M > {data}", model] == PAPER["table6"].figures[row, data]


def test_every_table_says_where_it_stands_and_what_it_cannot_say():
    for name, table in PAPER.items():
        assert table.source.lower().replace(" ", "") == name
        assert table.caveat
        assert table.title
    assert {name for name, table in PAPER.items() if not table.figures} == {"figure4", "figure5", "figure8", "figure9"}


def test_an_unknown_table_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"study\.paper is 'table1'; name one of table2, table3"):
        published("table1")
