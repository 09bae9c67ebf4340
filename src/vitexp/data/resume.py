"""Where a run goes on: Lightning's counts of epochs and batches, made consistent after a checkpoint is loaded."""

from typing import Any


def settle(fit_loop: Any) -> None:
    """Closes the epoch that a checkpoint was written at the end of, and opens the one it was written in.

    Lightning takes a checkpoint of an epoch's last batch for one of the middle, and then never counts the beginning of
    the next epoch: a second resume starts that epoch again. What it counts without fail are the batches of the epoch,
    the last of which is marked, and the epochs that have begun before the first resume.

    Args:
        fit_loop: The trainer's, after its state was restored and before it runs.
    """
    loop = fit_loop.epoch_loop
    if not loop.batch_progress.current.ready:
        return
    if loop.batch_progress.is_last_batch:
        _close(fit_loop)
    else:
        ended = fit_loop.epoch_progress.current.processed
        _count(fit_loop.epoch_progress, ended + 1, ended)


def _close(fit_loop: Any) -> None:
    epochs, loop = fit_loop.epoch_progress, fit_loop.epoch_loop
    if epochs.current.processed < epochs.current.ready:  # the loggers' step, which counts the batch after its callbacks
        loop._batches_that_stepped += 1
    _count(epochs, epochs.current.ready, epochs.current.ready)
    loop.batch_progress.total.completed = loop.batch_progress.total.ready
    loop.batch_progress.reset_on_run()
    loop.scheduler_progress.reset_on_run()
    loop.automatic_optimization.optim_progress.reset_on_run()
    loop.val_loop.batch_progress.total.reset()
    fit_loop.restarting = fit_loop.restarting  # worked out anew: nothing is unfinished now


def _count(epochs: Any, begun: int, ended: int) -> None:
    for count in (epochs.total, epochs.current):
        count.ready = count.started = begun
        count.processed = count.completed = ended
