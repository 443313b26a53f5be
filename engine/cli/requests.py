"""Commands that run a request, and what they say of its result."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from engine.cli.arguments import add_command, add_home, add_task_arguments, read_data
from engine.cli.terminal import Terminal, in_one_line, stoppable, tell
from engine.tasks.request import read_request
from engine.tasks.schema import AUTO_DEPLOY, AUTO_GROUPING, AUTO_LABEL, PRE_LABEL, TaskRequest


def add_run(commands: Any) -> None:
    request = add_command(
        commands,
        "run",
        _run,
        "run a request body of the specification",
        "Run the task that a JSON request asks for; lines that begin with // are comments in a .jsonc file.",
        "labelengine run configs/requests/auto_grouping.json --dataset photos --out groups",
    )
    request.add_argument("request", metavar="REQUEST", type=Path, help="a file with the request body")
    request.add_argument("--dataset", metavar="DATA", required=True, help="a manifest or a folder")
    add_task_arguments(request)
    add_home(request)


def _run(options: argparse.Namespace) -> int:
    request = read_request(options.request)
    return run_body(options, request, plain=request.task_type == AUTO_GROUPING)


def run_body(options: argparse.Namespace, request: TaskRequest, *, plain: bool, model: Path | None = None) -> int:
    """Do what a request asks for with the data set that was named. plain: a tree of folders is images alone. model: the
    folder of the model that labels."""
    from engine.models import Shelf
    from engine.tasks.catalog import run_request

    dataset = read_data(options.dataset, options, plain=plain)
    with stoppable() as stop, Terminal() as terminal:
        answer = run_request(
            request,
            dataset,
            options.out,
            overwrite=options.overwrite,
            resume=options.resume,
            reporter=terminal,
            stop=stop,
            shelf=Shelf(getattr(options, "home", None)),
            model=model,
        )
    page = request.task_type != AUTO_DEPLOY
    return tell(answer, _LINES[request.task_type](answer), options.out, json=options.json, page=page)


def _group_lines(answer: dict[str, Any]) -> Iterator[str]:
    result = answer["result"]
    by = ", ".join(result["dimensions"])
    yield f"{result['annotated_sample_count']:,} images in {result['n_clusters']} groups by {by}"
    for each in result["groups"]:
        yield f"{each['group']:>5}  {each['sample_count']:>9,}  {each['name']}"


def _label_lines(answer: dict[str, Any]) -> Iterator[str]:
    result = answer["result"]
    boxes = "hard_box_count" in result
    counts = f"{result['annotated_sample_count']:,} of {result['total_sample_count']:,} images"
    counts += " have boxes" if boxes else ""
    by = result.get("model_name") or result["algorithm_type"]
    yield f"{counts} labeled by {by}, to be confirmed"
    for each in result["labels"]:
        yield f"{each['automatic']:>9,}  {in_one_line(each['label'])} ({each['human']:,} by people)"
    if boxes and result["choices"].get("cv_map50") is not None:
        choices = result["choices"]
        yield f"expected of the boxes: mAP50 {choices['cv_map50']:.3f}, mAP50:95 {choices['cv_map50_95']:.3f}"
    if result["key_sample_count"] is not None:
        yield f"{result['key_sample_count']:,} key samples copied"


def _deploy_lines(answer: dict[str, Any]) -> Iterator[str]:
    result = answer["result"]
    name = f"{result['model_name']}:{result['model_version']}"
    yield f"{name} {'was trained and imported' if result['trained'] else 'is ready'}; labelengine deploy OUT serves it"


#: What the result of each task says in lines.
_LINES: Final[dict[str, Callable[[dict[str, Any]], Iterator[str]]]] = {
    AUTO_GROUPING: _group_lines,
    AUTO_LABEL: _label_lines,
    PRE_LABEL: _label_lines,
    AUTO_DEPLOY: _deploy_lines,
}
