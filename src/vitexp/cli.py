"""The command line: parses it by the table in verbs.py and calls the command's function, imported only then.

An error that the user can mend ends in one sentence and exit status 2; VITEXP_TRACEBACK=1 shows its traceback too.
What connects the floors is here as well: commands of a lower floor that need something of a higher one are given it.
"""

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from importlib import import_module
from typing import Any, NoReturn

from vitexp import __version__
from vitexp.verb import Verb
from vitexp.verbs import VERBS

BAD_INPUT = 2


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises its errors, so that they are shown like all others."""

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Takes positional arguments before, between and after flags: `sweep lint --quick FILE`."""
        if self._mixing or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._mixing = True  # argparse calls this again, once for the flags and once for the rest
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False

    def error(self, message: str) -> NoReturn:
        """Raises: ValueError."""
        raise ValueError(f"{message} (`{self.prog} --help` shows what there is)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _dispatch(given))


def guarded(work: Callable[[], int | None]) -> int:
    """Runs `work`; returns its exit status, and shows an error that the user can mend as one sentence."""
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
        print(f"vitexp: {_sentence(error)}", file=sys.stderr)
        return int(status)


def _sentence(error: BaseException) -> str:
    """The error in one line, with control characters replaced."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = (f"{error.filename}: " if error.filename else "") + error.strerror
    seen = "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(text.split()))
    return seen or type(error).__name__


def _dispatch(given: list[str]) -> int | None:
    for verb in VERBS:
        if verb.own_parser and verb.name in given[:1]:
            return function(verb)(given)
    parser = build_parser()
    chosen = parser.parse_args(given)
    if not hasattr(chosen, "verb"):
        parser.print_help()
        return BAD_INPUT if given else 0
    return function(chosen.verb)(chosen)


def function(verb: Verb) -> Callable[[Any], int | None]:
    """What runs a command, imported."""
    module, _, name = verb.run.partition(":")
    return getattr(import_module(module), name)


def build_parser() -> Parser:
    """The parser of all commands; those of training have one of their own, with the flags of the network."""
    parser = Parser(prog="vitexp", description="Controlled ablations of the Vision Transformer.")
    parser.add_argument("--version", action="version", version=f"vitexp {__version__}")
    _add(parser, VERBS)
    return parser


def _add(parser: argparse.ArgumentParser, verbs: Sequence[Verb], required: bool = False) -> None:
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=required)
    for verb in verbs:
        added = commands.add_parser(
            verb.name, help=verb.help, description=verb.description or verb.help, add_help=not verb.own_parser
        )
        if verb.verbs:
            _add(added, verb.verbs, required=True)
            continue
        groups: dict[str, Any] = {"": added}
        for names, options in verb.arguments:
            title = options.get("group", "")
            group = groups.get(title) or groups.setdefault(title, added.add_argument_group(title))
            group.add_argument(*names, **{key: value for key, value in options.items() if key != "group"})
        added.set_defaults(verb=verb)


def train(given: Sequence[str]) -> None:
    """fit, finetune, validate, test, predict."""
    from vitexp.train.command import TrainingCommand

    TrainingCommand(given, groups())


def planned(given: Sequence[str], weights: bool = False, published: bool = False) -> Any:
    """The command that `train` would run, parsed by the real parser and checked; nothing trains."""
    from vitexp.data.sources.published_sizes import PublishedData
    from vitexp.train.command import TrainingCommand

    data = {"data": PublishedData} if published else {}
    return TrainingCommand(given, groups(), until="planned", weights=weights, **data)


def plan(given: Sequence[str], weights: bool = False) -> dict[str, Any]:
    """What is known of a run beforehand; with `weights` also its initial weights and its first epoch's order."""
    return planned(given, weights).facts()


examine = functools.partial(plan, weights=True)


def plan_cell(given: Sequence[str], published: bool = False) -> dict[str, Any]:
    """The same for a cell of a study, in a process that plans nothing else and ends with it.

    With `published` a set whose shards are not here counts by its published size, where that is known.
    """
    command, facts = _kinds(published).facts(given)
    return facts | ({"published": command.datamodule.opened.published} if published else {})


estimate = functools.partial(plan_cell, published=True)


@functools.cache
def _kinds(published: bool) -> Any:
    from vitexp.train.alike import Kinds

    return Kinds(functools.partial(planned, published=published))


def verify_resume(given: Sequence[str]) -> int:
    """Kills and resumes a run of a config, and compares."""
    from vitexp.train.verify_resume import verify_resume

    return verify_resume(given[1:], groups())


def selfcheck(given: Sequence[str]) -> int:
    """Certifies a config: checks on random images that its network is what it says."""
    # Before torch: threads that spin while they wait would take the cores from whatever else computes here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from vitexp.tools.selfcheck import selfcheck

    return selfcheck(given[1:], groups())


def certify(given: Sequence[str]) -> dict[str, Any]:
    """The same for an arm of a study: `given` is one JSON text, whose names are arguments of `certified`."""
    from vitexp.tools.selfcheck import certified

    return certified(**json.loads(given[0]))


def inspect(chosen: argparse.Namespace) -> int:
    """Looks inside networks, which a floor above finds among the runs of studies, and another one draws."""
    from vitexp.report.draw_inside import write_picture
    from vitexp.study.networks import read_networks
    from vitexp.tools.inspect import Group, inspect

    return inspect(chosen, [Group(*one) for one in read_networks(chosen.networks, chosen.root)], write_picture)


def robustness(chosen: argparse.Namespace) -> int:
    """Networks on changed test images; their table is made by a floor above the measurements."""
    from vitexp.report.robustness import show_robustness
    from vitexp.tools.robustness import measure

    return show_robustness(chosen, measure)


def sweep(chosen: argparse.Namespace) -> int:
    """Runs or checks a study, which trains through functions that it is given."""
    from vitexp.study.run.runner import run_sweep

    return run_sweep(chosen, parse=plan_cell, train=train_cell, examine=examine, estimate=estimate, certify=certify)


def controls(chosen: argparse.Namespace) -> int:
    """Runs the studies whose answers are known, prints their tables, and compares.

    Cells that other code has made are trained again: it is this code that is tested.
    """
    from vitexp.json_text import as_text
    from vitexp.study.controls import STUDIES, answers, document, shown

    workers = ["--workers", str(chosen.workers)] if chosen.workers else []
    for file in map(str, STUDIES):
        with _aside(chosen.json):
            if _dispatch(["sweep", file, "--root", chosen.root, "--stale", "rerun", "--retry", *workers]):
                return 1
        if not chosen.json:
            _dispatch(["table", file, "--root", chosen.root, "--results", chosen.results])
    found = answers(chosen.root)
    print(as_text(document(found)) if chosen.json else shown(found))
    return 0 if all(one.holds for one in found) else 1


def reproduce(chosen: argparse.Namespace) -> int:
    """Lists known results, or trains one and compares; exit status 1 where ours is shown to be another."""
    from vitexp.report import known_text
    from vitexp.report.tables import show
    from vitexp.study.known import AGREES, find, listed, obtained
    from vitexp.study.table import make_table

    if chosen.name is None:
        show(known_text.known(listed()))
        return 0
    study = find(chosen.name)
    workers = ["--workers", str(chosen.workers)] if chosen.workers else []
    if status := _dispatch(["sweep", str(study.path), "--root", chosen.root, *workers]):
        return status
    table = make_table(study, chosen.root)
    found = obtained(table)
    show(known_text.compared(table, found, chosen.root))
    return 0 if all(one.verdict == AGREES for one in found) else 1


def plan_study(chosen: argparse.Namespace) -> int:
    """What a study takes, from a pilot that is trained first where that is asked for."""
    from vitexp.report.command import show_plan

    if chosen.pilot is not None:
        from vitexp.study.run.runner import run_pilot

        with _aside(chosen.json):
            if status := run_pilot(chosen.file, chosen.pilot, chosen.root, parse=plan_cell, train=train_cell):
                return status
    return show_plan(chosen)


def _aside(json: bool) -> AbstractContextManager[Any]:
    """What training says goes to standard error where standard output is to hold one JSON document."""
    return redirect_stdout(sys.stderr) if json else nullcontext()


def train_cell(given: list[str], log_path: str) -> None:
    """One cell of a study, in a process of its own whose output goes to `log_path`."""
    sys.exit(guarded(lambda: train(given)))


def groups() -> dict[str, type]:
    """Groups of flags that belong to other floors than the training one."""
    from vitexp.study.spec import StudyConfig

    return {"study": StudyConfig}


if __name__ == "__main__":
    sys.exit(main())
