"""The command that finds hard examples among labels, whoever gave them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from engine.cli.arguments import add_command, add_field, add_home, add_parameters, add_task_arguments, read_data
from engine.cli.terminal import Terminal, say, stoppable, tell
from engine.dataset import read_samples
from engine.errors import UsageError
from engine.tasks.parameters import Parameters, read_parameters
from engine.tasks.request import parse_request, request_body
from engine.tasks.schema import AUTO_LABEL, SmartTaskConfig, TaskRequest

_FIELDS: Final = ("confidence_scope", "key_sample_output")
_PARAMETERS: Final = (
    *("algo_hard_threshold", "aug_op_config", "comprehensive_algo_config", "device", "encoder", "max_pixels"),
    *("min_per_class", "minutes", "seed", "steps", "threads", "weights"),
)
#: What parameters mean here: only with --labeled something is trained.
_MEANINGS: Final = {
    "algo_hard_threshold": "coefficient from which on a sample is hard; left out: 0.1, with --labeled 0.5",
    "min_per_class": "labeled images that every label needs (with --labeled); left out: "
    f"{Parameters.model_fields['min_per_class'].default}",
    "minutes": "time budget of the training (with --labeled); left out: by the number of labels, of images 1 to 10, of "
    "boxes 4 to 15; on a GPU a quarter, of boxes a sixth",
    "steps": "training steps instead of minutes, as task.json has them (with --labeled)",
}


def add_hard(commands: Any) -> None:
    hard = add_command(
        commands,
        "hard",
        _hard,
        "find the labels that are likely wrong, and say why",
        "Look for hard examples among the automatic labels of DATA, of images or of boxes, whoever made them: each\n"
        "gets a coefficient and reasons. What people labeled in DATA or in TRAIN says what is usual. The folder of\n"
        "a finished labeling is DATA too. With --labeled the labels of people are in question. OUT then holds\n"
        "report.html (look at it first), result.manifest, hard.csv, hard_scores.npz and task.json.",
        "labelengine hard predictions.manifest --train train.manifest --out hard\n"
        "labelengine hard labeled --out hard --aug-op-config fliplr:0.1+crop:0.1 --algo-hard-threshold 0.2\n"
        "labelengine hard data --labeled --minutes 5 --out doubtful",
    )
    hard.add_argument("dataset", metavar="DATA", help="a manifest or a folder with automatic labels")
    hard.add_argument("--train", metavar="TRAIN", help="a manifest or a folder with the training set of the model")
    hard.add_argument(
        "--model", metavar="MODEL", help="the model that predicted: a folder, or the name or id of an imported one"
    )
    add_home(hard)
    hard.add_argument("--labeled", action="store_true", help="look for wrong ones among the labels that people gave")
    add_task_arguments(hard)
    for name in _FIELDS:
        add_field(hard, name, SmartTaskConfig.model_fields[name])
    add_field(hard, "collect_key_sample", TaskRequest.model_fields["collect_key_sample"])
    add_parameters(hard, _PARAMETERS, _MEANINGS)


def _hard(options: argparse.Namespace) -> int:
    from engine.models import Shelf
    from engine.tasks.hard import hard_task
    from engine.tasks.runner import run

    names = (*_FIELDS, "collect_key_sample", *_PARAMETERS)
    request = parse_request(request_body(AUTO_LABEL, {name: getattr(options, name) for name in names}))
    config = request.config
    if options.labeled and (options.train or options.model):
        raise UsageError("--labeled trains models of its own: it goes with neither --train nor --model")
    for name in () if options.labeled else ("minutes", "steps", "min_per_class"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: nothing is trained without --labeled")
    parameters = read_parameters(config.parameters, AUTO_LABEL)
    dataset = read_data(options.dataset, options, plain=False)
    train = None
    if options.train is not None:
        say(f"reading {options.train} ...")
        train = read_samples(options.train, map=options.map)
    task = hard_task(
        dataset,
        parameters,
        train=train,
        model=Shelf(options.home).meant(options.model) if options.model else None,
        labeled=options.labeled,
        collect_key_sample=bool(request.collect_key_sample),
        confidence_scope=config.confidence_scope,
        key_sample_output=config.key_sample_output,
    )
    with stoppable() as stop, Terminal() as terminal:
        answer = run(
            task, options.out, overwrite=options.overwrite, resume=options.resume, reporter=terminal, stop=stop
        )
    return tell(answer, _lines(answer, options.out), options.out, json=options.json)


def _lines(answer: dict[str, Any], out: Path) -> Iterator[str]:
    result = answer["result"]
    yield f"{result['hard_sample_count']:,} of {result['judged_sample_count']:,} samples in question are hard examples"
    for each in result["reasons"]:
        yield f"{each['sample_count']:>9,}  {each['reason']:>2}  {each['words']}"
    if result["key_sample_count"] is not None:
        yield f"{result['key_sample_count']:,} key samples copied"
    yield f"{out / result['table_path']} lists them, the hardest first"
