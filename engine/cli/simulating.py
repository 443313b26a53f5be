"""The command that takes a labeled data set as a benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from engine.cli.arguments import add_command, add_map, add_parameters, read_data, read_parameters
from engine.cli.terminal import DONE, FAILED, Terminal, stoppable
from engine.dataset import FORMATS
from engine.errors import UsageError

_PARAMETERS: Final = ("device", "threads")


def add_simulate(commands: Any) -> None:
    simulate = add_command(
        commands,
        "simulate",
        _simulate,
        "hide labels of a labeled data set, and see how well they are found",
        "Keep the labels of a few images of DATA, hide the others, let algorithms find them, and print a table of how\n"
        "well they did. FILE.py:NAME is an algorithm of your own; its code is run.",
        "labelengine simulate tree --labels 50,100,200 --seeds 3 --minutes 1\n"
        "labelengine simulate tree --labels 100 --algorithm fast --algorithm mine.py:guess",
    )
    simulate.add_argument("dataset", metavar="DATA", help="a manifest or a folder; the folders of a tree are labels")
    simulate.add_argument("--labels", metavar="N,N", help="how many images keep their label (50,100,200)")
    simulate.add_argument("--seeds", metavar="N", type=int, default=3, help="draws of each number of labels (3)")
    simulate.add_argument("--first-seed", metavar="N", type=int, default=0, help="of the draws (0)")
    simulate.add_argument(
        "--algorithm",
        metavar="NAME",
        action="append",
        help="fast, accurate, a peer (logistic, label-spreading, self-training), or FILE.py:NAME; may be given several "
        "times (all but your own)",
    )
    simulate.add_argument("--minutes", metavar="X", type=float, help="time of each run of fast and accurate (as label)")
    simulate.add_argument("--min-per-class", metavar="N", type=int, help="labels that every class needs (5)")
    simulate.add_argument("--proportional", action="store_true", help="draw classes as often as they occur")
    simulate.add_argument("--out", metavar="OUT", type=Path, help="a new or empty folder for simulation.json and .csv")
    again = simulate.add_mutually_exclusive_group()
    again.add_argument("--overwrite", action="store_true", help="replace what an earlier run wrote to OUT")
    again.add_argument("--resume", action="store_true", help="do what an earlier run to OUT has not done")
    simulate.add_argument("--format", choices=FORMATS, help="what DATA is, where that is not found out rightly")
    add_map(simulate)
    add_parameters(simulate, _PARAMETERS)


def _simulate(options: argparse.Namespace) -> int:
    from engine.tasks.grouping import device_of
    from engine.tasks.simulation import DEFAULT_ALGORITHMS, DEFAULT_LABELS, simulate
    from engine.tasks.trials import table

    if options.resume and options.out is None:
        raise UsageError("--resume: needs --out, got none")
    checked = read_parameters(options, _PARAMETERS)
    labels = DEFAULT_LABELS if options.labels is None else _counts(options.labels)
    least = {} if options.min_per_class is None else {"min_per_class": options.min_per_class}
    dataset = read_data(options.dataset, options, plain=False)
    with stoppable() as stop, Terminal() as terminal:
        for note in dataset.notes:
            terminal.note(note)
        trials = simulate(
            dataset,
            labels=labels,
            seeds=options.seeds,
            first_seed=options.first_seed,
            algorithms=options.algorithm or DEFAULT_ALGORITHMS,
            minutes=options.minutes,
            proportional=options.proportional,
            threads=checked.threads,
            device=device_of(checked.device),
            out=options.out,
            overwrite=options.overwrite,
            resume=options.resume,
            reporter=terminal,
            stop=stop,
            **least,
        )
    print(table(trials))
    return FAILED if all(trial.error for trial in trials) else DONE


def _counts(text: str) -> list[int]:
    """`50,100` -> [50, 100]."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise UsageError(f"--labels: must be numbers as 50,100,200, got {text!r}")
    return [int(part) for part in parts]
