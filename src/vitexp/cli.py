"""The door: every `vitexp` command. The only file that knows every floor; it imports each of them late.

An error that a person can mend ends in one sentence and exit status 2; VITEXP_TRACEBACK=1 shows its traceback too.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

TRAINING = {
    "fit": "train one network, measure it, write its record",
    "finetune": "fit from given weights, as the paper fine-tunes",
    "validate": "measure the validation slice with kept weights",
    "test": "measure the test split with kept weights",
    "predict": "write class probabilities of the test split",
}
BAD_INPUT = 2


class OneSentence(argparse.ArgumentParser):
    """An argparse parser whose complaints are raised, so that they come out as all others do."""

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Takes words before, between and behind flags: `sweep lint --quick FILE` and `sweep lint FILE --quick`."""
        if self._mixing or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._mixing = True  # argparse calls this again, once for the flags and once for the words
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False

    def error(self, message: str) -> NoReturn:
        """Raises: ValueError."""
        raise ValueError(f"{message} (`{self.prog} --help` shows what there is)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _dispatch(words))


def guarded(work: Callable[[], int | None]) -> int:
    """Runs `work` and turns what a person can mend into one sentence."""
    if os.environ.get("VITEXP_TRACEBACK"):
        return work() or 0
    try:
        return work() or 0
    except KeyboardInterrupt:
        print("vitexp: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        status = BAD_INPUT if isinstance(error, ValueError | OSError) else getattr(error, "exit_status", None)
        if status is None:
            raise
        print(f"vitexp: {sentence_of(error)}", file=sys.stderr)
        return int(status)


def sentence_of(error: BaseException) -> str:
    """The error in one line; where an option's own check failed inside the parser, that check's words."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = (f"{error.filename}: " if error.filename else "") + error.strerror
    seen = "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(text.split()))
    return seen or type(error).__name__


def _dispatch(words: list[str]) -> int | None:
    if words and words[0] in TRAINING:
        train(words)
        return 0
    if words and words[0] == "verify-resume":
        return verify_resume(words[1:])
    parser = build_parser()
    chosen = parser.parse_args(words)
    if not hasattr(chosen, "run"):
        parser.print_help()
        return BAD_INPUT if words else 0
    result: int | None = chosen.run(chosen)
    return result


def train(words: Sequence[str]) -> None:
    """fit, finetune, validate, test, predict."""
    from vitexp import torch_ops  # noqa: F401  (before lightning, timm and torchmetrics)
    from vitexp.train.command import TrainingCommand
    from vitexp.train.finetune import Finetune, as_fit

    if words[0] == "finetune":
        Finetune(as_fit(words[1:]), groups())
    else:
        TrainingCommand(words, groups())


def plan(words: Sequence[str], weights: bool = False) -> dict[str, Any]:
    """What `train` would run, found through the real parser; nothing trains."""
    from vitexp import torch_ops  # noqa: F401
    from vitexp.train.command import TrainingCommand

    command = TrainingCommand(words, groups(), plan_only=True, weights=weights)
    return command.plan.plain() | command.facts


def examine(words: Sequence[str]) -> dict[str, Any]:
    """`plan`, and what the run starts from: its initial weights, and its first epoch's order of images."""
    return plan(words, weights=True)


def estimate(words: Sequence[str]) -> dict[str, Any]:
    """`plan` for its costs alone: a set whose shards are not here counts by its published size, where that is known."""
    from vitexp import torch_ops  # noqa: F401
    from vitexp.data.sources.published_sizes import PublishedData
    from vitexp.train.command import TrainingCommand

    command = TrainingCommand(words, groups(), plan_only=True, weights=False, data=PublishedData)
    return command.plan.plain() | command.facts | {"published": command.datamodule.published}


def verify_resume(words: Sequence[str]) -> int:
    """Kills and resumes a run of a config, and compares."""
    from vitexp import torch_ops  # noqa: F401
    from vitexp.train.command import TrainingCommand
    from vitexp.train.verify_resume import Outline, verify_resume

    def outline(fit: Sequence[str]) -> Outline:
        return TrainingCommand(fit, groups(), plan_only=True, weights=False).outline

    return verify_resume(words, outline)


def draw(what: str, shown: dict[str, Any], folder: Path) -> tuple[Path, ...]:
    """Pictures of a network's numbers."""
    from vitexp.report.draw_attention import write_look

    return write_look(what, shown, folder)


def train_cell(words: list[str], log_path: str) -> None:
    """One cell of a study, in a process of its own whose output goes to `log_path`."""
    sys.exit(guarded(lambda: train(words)))


def groups() -> dict[str, type]:
    """Groups of flags that belong to other floors than the training one."""
    from vitexp.study.spec import StudyConfig

    return {"study": StudyConfig}


def build_parser() -> argparse.ArgumentParser:
    """The parser of everything but training, whose flags are the network's and come from their own typed parser."""
    from vitexp import __version__
    from vitexp.data import commands as data_commands
    from vitexp.report import commands as report_commands
    from vitexp.starter import add_command as add_init
    from vitexp.study import commands as study_commands
    from vitexp.tools import commands as learn_commands

    parser = OneSentence(prog="vitexp", description="Controlled ablations of the Vision Transformer.")
    parser.add_argument("--version", action="version", version=f"vitexp {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, help_text in TRAINING.items():
        verbs.add_parser(name, help=help_text, add_help=False)
    verbs.add_parser("verify-resume", help="kill and resume a run of this config, and compare", add_help=False)
    data_commands.add_commands(verbs)
    learn_commands.add_commands(verbs, draw)
    study_commands.add_commands(verbs, plan, train_cell, examine, estimate)
    report_commands.add_commands(verbs)
    add_init(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
