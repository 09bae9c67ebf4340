"""Words for a sentence."""

from collections.abc import Collection
from itertools import islice


def listed(names: Collection[str], most: int = 8) -> str:
    """The first few of them, and how many more there are."""
    return ", ".join(islice(names, most)) + (f" and {len(names) - most} more" if len(names) > most else "")
