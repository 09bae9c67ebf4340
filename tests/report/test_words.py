import pytest

from vitexp.report import words


def test_one_comparison_is_no_comparisons():
    assert [words.comparisons_words(count) for count in (1, 14)] == ["one comparison", "14 comparisons"]


@pytest.mark.parametrize(
    ("value", "metric", "shown"),
    [(0.97624, "test_acc", "97.62"), (-0.0031, "fewshot_5", "−0.31"), (1.23456, "test_loss", "1.2346")],
)
def test_numbers_are_per_cent_for_accuracies_alone(value, metric, shown):
    assert words.number(value, metric) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0031, "+0.31"), (-0.0031, "−0.31"), (0.0, "0.00"), (-0.00001, "0.00"), (0.00001, "0.00")]
)
def test_differences_carry_their_sign_unless_they_round_to_nothing(value, shown):
    assert words.signed(value, "test_acc") == shown


def test_words_of_unknown_keys_and_values_are_themselves():
    assert words.label_words((("model.pos_embed", "rope"), ("model.mlp_ratio", 2), ("data.train_images", 1000))) == (
        "rope, mlp ratio 2, 1,000 training images"
    )
    assert words.seeds_words([0, 1, 2, 3]) == "0–3"
    assert words.seeds_words([0, 2]) == "0, 2"
    assert words.points(0.01) == "1 point"
    assert words.points(0.005) == "0.5 points"
    assert [words.probability(p) for p in (None, 0.0004, 0.0404)] == ["–", "< 0.001", "0.040"]
