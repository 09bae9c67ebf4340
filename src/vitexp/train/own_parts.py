"""Optimizers, schedules and losses of the user's own: built from their options, tried on a few numbers before a run."""

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitexp.axes import is_path
from vitexp.nn.table import check_shape, find
from vitexp.own import SLOTS, failing

_STEPS, _RATE, _IMAGES = 8, 0.01, 4
_RATES = 1000
"""How often about a schedule is asked before a run."""


def own_optimizer(config: Any, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """The optimizer that `config.optimizer` names by its path. Raises: ValueError where it cannot be built."""
    kind = _kind("optimizer", config)
    decay = {"weight_decay": config.weight_decay} if _takes(kind, "weight_decay") else {}
    with failing(f"optimizer {config.optimizer}"):
        built: torch.optim.Optimizer = kind(groups, lr=lr, **decay, **config.options["optimizer"])
        if switches(config):
            built.train()  # type: ignore[attr-defined]
    return built


def switches(config: Any) -> bool:
    """Whether the optimizer has `train()` and `eval()`, which exchange weights that train and weights to evaluate."""
    kind = _kind("optimizer", config) if is_path(config.optimizer) else None
    return all(callable(getattr(kind, name, None)) for name in ("train", "eval"))


def _takes(kind: Any, name: str) -> bool:
    parameters = inspect.signature(kind).parameters
    return name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def check_own_optimizer(config: Any) -> None:
    """Takes a few steps. Raises: ValueError for one that no run could be trained with."""
    what, kind = f"optimizer {config.optimizer}", _kind("optimizer", config)
    if not _takes(kind, "lr"):
        raise ValueError(f"{what}: its constructor takes no lr; give it one, and hand it to super().__init__")
    if config.weight_decay and not _takes(kind, "weight_decay"):
        raise ValueError(
            f"model.weight_decay {config.weight_decay} has no effect with {what}, whose constructor takes no "
            "weight_decay; leave it out, or take it there"
        )
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        weights = [nn.Parameter(torch.ones(shape)) for shape in ((2, 3), (3,))]
        groups = [{"params": [one], "lr": _RATE, "weight_decay": config.weight_decay} for one in weights]
        built, called = own_optimizer(config, groups, _RATE), []

        def closure() -> float:
            called.append(True)
            built.zero_grad()
            loss = torch.stack([one.square().sum() for one in weights]).sum()
            loss.backward()
            return loss.item()

        with failing(what):
            for _ in range(_STEPS):
                built.step(closure)
            if len(called) == _STEPS:
                built.step()
    if len(called) != _STEPS:
        raise ValueError(f"{what} calls the closure of step() {len(called) / _STEPS:g} times, and must call it once")
    held = [([id(one) for one in group["params"]], group.get("lr")) for group in built.param_groups]
    if held != [([id(one)], _RATE) for one in weights]:
        raise ValueError(f"{what} does not keep the groups and their rates; hand both to super().__init__")
    if not all(bool(one.isfinite().all()) for one in weights):
        raise ValueError(f"{what} makes weights that are no finite numbers in {_STEPS} steps; mend its step()")
    if any(bool((one == 1).all()) for one in weights):
        raise ValueError(f"{what} leaves weights as they are in {_STEPS} steps; mend its step()")


def check_switching(config: Any) -> None:
    """Raises: ValueError for an option that does not go with an optimizer that `switches`."""
    fits = {"schedule": is_path(config.schedule) or config.schedule == "constant", "polyak": not config.polyak}
    fits["objective"] = config.objective == "classify"
    odd = [f"model.{name} {getattr(config, name)}" for name, does in fits.items() if not does]
    if odd and switches(config):
        what = f"optimizer {config.optimizer} averages its weights itself, in place of a schedule (it has train() and "
        raise ValueError(f"{what}eval()), and {odd[0]} does not go with that; give model.schedule constant alone")


def own_losses(logits: Tensor, labels: Tensor, config: Any) -> Tensor:
    """One loss per image, by the loss that `config.loss` names by its path. Shapes: (B, classes), (B,) -> (B,).

    Raises: ValueError where it gives anything else.
    """
    found = _called("loss", config)(logits, labels)
    check_shape(f"loss {config.loss}", found, (len(labels),))
    return found


def _kind(axis: str, config: Any) -> Any:
    return find(SLOTS[axis], getattr(config, axis)).kind


def _called(axis: str, config: Any) -> Callable[..., Any]:
    """The function, or the one object of the class, with its options."""
    return _built(_kind(axis, config), json.dumps(config.options[axis]))


@functools.cache
def _built(kind: Any, options: str) -> Callable[..., Any]:
    given: Mapping[str, Any] = json.loads(options)
    if inspect.isfunction(kind):
        return functools.partial(kind, **given)
    with torch.device("cpu"):
        found: Callable[..., Any] = kind(**given)
    return found


def check_own_loss(config: Any) -> None:
    """Takes the loss of a few images. Raises: ValueError for one that no run could be trained with."""
    what = f"loss {config.loss}"
    with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.enable_grad(), failing(what):
        found = _called("loss", config)
        if isinstance(found, nn.Module) and list(found.parameters()):
            raise ValueError("it has parameters, which nobody trains")
        logits = torch.linspace(-1, 1, _IMAGES * config.classes).reshape(_IMAGES, -1).requires_grad_()
        labels = torch.arange(_IMAGES) % config.classes
        losses, again, some = (own_losses(logits[:n], labels[:n], config) for n in (_IMAGES, _IMAGES, 1))
        slopes = torch.autograd.grad(losses.sum(), logits)[0]
    if not (bool(losses.isfinite().all()) and bool(slopes.isfinite().all())):
        raise ValueError(f"{what} gives {losses.tolist()} for small logits, or a slope that is not finite; mend it")
    if not torch.equal(losses, again):
        raise ValueError(f"{what} of the same images is another when asked again; draw nothing, and keep nothing")
    if not torch.allclose(losses[:1], some):
        raise ValueError(f"{what} of an image depends on the images beside it; take no mean over the batch")
    if config.classes > 1 and not bool(slopes.any(1).all()):
        raise ValueError(f"{what} does not change with the logits, so nothing would be learned; mend it")


def own_rate(config: Any, step: int, steps: int) -> float:
    """The share of the peak rate at a step after the warm-up, of so many, by the schedule that `config.schedule` names.

    Raises: ValueError for what is no number from 0 to 1.
    """
    what = f"schedule {config.schedule}"
    with failing(what):
        share = float(_called("schedule", config)(step, steps))
    if not 0 <= share <= 1:
        raise ValueError(
            f"{what} gives {share:g} at step {step} of {steps}, and must give a share of model.lr, from 0 to 1; mend it"
        )
    return share


def check_own_schedule(config: Any, steps: int) -> None:
    """Asks for rates all over a run. Raises: ValueError for a schedule that it could not be trained with."""
    places = range(0, steps, max(1, steps // _RATES))
    rates = [own_rate(config, step, steps) for step in (*places, steps)]
    if [own_rate(config, step, steps) for step in (steps, *reversed(places))] != rates[::-1]:
        raise ValueError(
            f"schedule {config.schedule} gives a step another rate when it is asked again, as a resumed run does; "
            "compute it from the step alone"
        )
    if not any(rates[:-1]):
        raise ValueError(f"schedule {config.schedule} is 0 at all of {steps} steps, so nothing is learned; mend it")
