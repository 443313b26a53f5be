"""The command that says what to label next."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from engine.cli.arguments import add_command, add_parameters, add_task_arguments, read_data, read_parameters
from engine.cli.terminal import Terminal, stoppable, tell

_PARAMETERS: Final = ("device", "encoder", "max_pixels", "seed", "threads", "weights")


def add_suggest(commands: Any) -> None:
    suggest = add_command(
        commands,
        "suggest",
        _suggest,
        "choose the images to label next",
        "Choose the images of DATA whose labels would teach the most, none of them twice; also where nobody has\n"
        "labeled any. The folder of a finished labeling is DATA too: its model says what it is unsure of. OUT then\n"
        "holds report.html, suggested.csv, suggested.manifest and task.json.",
        "labelengine suggest photos --out next --count 50 --format images\n"
        "labelengine suggest labeled --out next --count 50",
    )
    suggest.add_argument("dataset", metavar="DATA", help="a manifest or a folder; the folders of a tree are labels")
    suggest.add_argument("--count", metavar="N", type=int, required=True, help="how many images")
    add_task_arguments(suggest)
    add_parameters(suggest, _PARAMETERS)


def _suggest(options: argparse.Namespace) -> int:
    from engine.tasks.runner import run
    from engine.tasks.suggesting import suggest_task

    checked = read_parameters(options, _PARAMETERS)
    task = suggest_task(
        read_data(options.dataset, options, plain=False),
        count=options.count,
        seed=checked.seed,
        threads=checked.threads,
        max_pixels=checked.max_pixels,
        device=checked.device,
        encoder=checked.encoder,
        weights=Path(checked.weights) if checked.weights else None,
    )
    with stoppable() as stop, Terminal() as terminal:
        answer = run(
            task, options.out, overwrite=options.overwrite, resume=options.resume, reporter=terminal, stop=stop
        )
    return tell(answer, _lines(answer, options.out), options.out, json=options.json)


def _lines(answer: dict[str, Any], out: Path) -> Iterator[str]:
    result = answer["result"]
    reasons = ", ".join(f"{count:,} {why}" for why, count in result["reasons"].items())
    yield f"{result['suggested_sample_count']:,} images to label next: {reasons}"
    yield f"{out / result['table_path']} lists them, the most useful first"
