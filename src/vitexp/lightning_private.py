"""What we need of Lightning and cannot ask of it in public: the only file that touches its private names.

`pyproject.toml` bounds the version from above, and a test reads every name here, so that a release that moves one is
noticed by name. Each function says why there is no public way.
"""

from collections.abc import Callable
from types import NoneType
from typing import Any


def attached_trainer(module: Any) -> Any:
    """The trainer of a module or None; the public `module.trainer` raises where there is none."""
    return module._trainer


class QuickNotes:
    """A base of a module: Lightning notes in it which hook it calls, 40 times a step, and torch looks among the weights
    each time. There is no public way to spare it that.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """A plain value in place of a plain attribute is no weight, buffer or part: those stand elsewhere."""
        if type(value) in (str, int, NoneType) and name in self.__dict__:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


def accumulates(trainer: Any) -> bool:
    """Whether the batch just taken only adds to the gradients; nothing public says it."""
    return bool(trainer.fit_loop._should_accumulate())


def validates_after_this_batch(trainer: Any) -> bool:
    """Lightning's own answer, a moment before it asks itself; a checkpoint has to wait for that validation."""
    loop = trainer.fit_loop
    return bool(trainer.enable_validation and loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def count_stepped_batch(epoch_loop: Any) -> None:
    """Moves the loggers' step on by a batch, which Lightning does after the callbacks that write checkpoints."""
    epoch_loop._batches_that_stepped += 1


def leave_sigterm_to(trainer: Any, agree: Callable[[], None]) -> None:
    """Takes SIGTERM away from Lightning, whose handler broadcasts in the middle of whatever the ranks exchange; its
    exchange before each batch becomes `agree`.
    """
    trainer._signal_connector._sigterm_notifier_fn = lambda *_: None
    if trainer.world_size > 1:
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = agree


def parsers_of(cli: Any) -> tuple[Any, Any, Any]:
    """The parsers that a LightningCLI has built; building them takes longer than a short plan, so they are kept."""
    return cli.parser, cli._subcommand_parsers, cli._subcommand_method_arguments


def set_parsers(cli: Any, parsers: tuple[Any, Any, Any]) -> None:
    """Gives a LightningCLI parsers that were built before."""
    cli.parser, cli._subcommand_parsers, cli._subcommand_method_arguments = parsers


def parser_of(cli: Any, verb: str | None) -> Any:
    """The parser of one command; a LightningCLI keeps it to itself."""
    return cli._parser(verb)


def option(cli: Any, config: Any, key: str) -> Any:
    """An option of the command that was called."""
    return cli._get(config, key)
