"""How long a run is: batches, optimiser steps and images, as the trainer's options limit them."""

from typing import Any, NamedTuple

from vitexp.data.module import ShardData


class Limits(NamedTuple):
    """The options of the trainer that decide the length."""

    max_epochs: int | None
    max_steps: int
    accumulate_grad_batches: int = 1
    limit_train_batches: int | float | None = None

    @classmethod
    def of(cls, options: Any) -> "Limits":
        """From the parsed options, or from the trainer that was built from them."""
        get = options.__getitem__ if hasattr(options, "__getitem__") else options.__getattribute__
        return cls(*map(get, cls._fields))

    def batches(self, data: ShardData) -> int:
        """Training batches of an epoch."""
        return limited(data.steps_per_epoch, self.limit_train_batches)

    def steps_per_epoch(self, data: ShardData) -> int:
        """Optimiser steps of an epoch; its last one takes what batches are left."""
        return -(-self.batches(data) // self.accumulate_grad_batches)

    def steps(self, data: ShardData) -> int:
        """Optimiser steps of the run.

        Raises: ValueError when there is no end, or no step.
        """
        ends = {"max_epochs": None if self.max_epochs is None else self.max_epochs * self.steps_per_epoch(data)}
        ends["max_steps"] = self.max_steps
        given = {name: steps for name, steps in ends.items() if steps is not None and getattr(self, name) >= 0}
        if not given:
            raise ValueError("the run has no end: give --trainer.max_epochs or --trainer.max_steps")
        shortest = min(given, key=lambda name: given[name])
        if not given[shortest]:
            why = shortest if not getattr(self, shortest) else "limit_train_batches"
            raise ValueError(
                f"trainer.{why} is {getattr(self, why)}, so no step would be taken, and an untrained network is no "
                f"run; give a trainer.{why} that trains"
            )
        return given[shortest]

    def images(self, data: ShardData, steps: int) -> int:
        """Images that so many steps see, repeats included."""
        epochs, left = divmod(steps, self.steps_per_epoch(data))
        batches = (self.batches(data), left * self.accumulate_grad_batches)
        each, rest = (min(count * data.batch_size, data.train_count) for count in batches)
        return epochs * each + rest


def limited(batches: int, limit: int | float | None) -> int:
    """Batches that are left of an epoch or a split. Source: Lightning takes a fraction as a share, and rounds down."""
    if limit is None:
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)
