"""On how many images two runs agree, from the answers that they kept beside their records."""

from pathlib import Path

from vitexp.answers import read_answers
from vitexp.record import RunRecord

Located = tuple[RunRecord, Path]


def compare_answers(one: Located, other: Located) -> list[str]:
    """For each metric of which both runs keep answers, how many images both, one, or neither got right."""
    (a, folder), (b, beside) = one, other
    shared = [metric for metric in a.answers if metric in b.answers]
    return [f"{metric}: {_compared(a, folder, b, beside, metric)}." for metric in shared]


def _compared(a: RunRecord, folder: Path, b: RunRecord, beside: Path, metric: str) -> str:
    order = a.answers[metric].get("order")
    if order is None or order != b.answers[metric].get("order"):
        return "the runs measured other images, or in another order, so single images are not compared"
    try:
        pairs = list(zip(read_answers(folder, a, metric), read_answers(beside, b, metric), strict=True))
    except ValueError as error:
        return str(error)
    both, only_a, only_b = (pairs.count(pair) for pair in ((True, True), (True, False), (False, True)))
    neither = len(pairs) - both - only_a - only_b
    return f"of {len(pairs):,} images both right {both:,}, only A {only_a:,}, only B {only_b:,}, neither {neither:,}"
