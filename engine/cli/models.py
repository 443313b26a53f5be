"""The command that lists models on disk, and says what one is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from engine.cli.arguments import add_command
from engine.cli.terminal import DONE, FAILED, in_one_line, print_json, say

if TYPE_CHECKING:
    from engine.models import ModelInfo


def add_models(commands: Any) -> None:
    models = add_command(
        commands,
        "models",
        _list,
        "list trained models, or show one",
        "A model is a folder with model.json and weights.safetensors; nothing in it is run.",
        "labelengine models list labeled\nlabelengine models show labeled/model",
    )
    ways = models.add_subparsers(title="commands", metavar="COMMAND ...", prog="labelengine models", required=True)
    listing = add_command(
        ways, "list", _list, "the models in a folder and below it", "List models.", "labelengine models list labeled"
    )
    listing.add_argument("folder", metavar="DIR", type=Path, nargs="?", default=Path(), help="where to look (here)")
    show = add_command(
        ways,
        "show",
        _show,
        "what a model is",
        "Say what a model is, how good it was and where it comes from.",
        "labelengine models show labeled/model",
    )
    show.add_argument("model", metavar="MODEL", type=Path, help="the folder of the model")
    show.add_argument("--json", action="store_true", help="print it as JSON on stdout")


def _list(options: argparse.Namespace) -> int:
    from engine.models import list_models

    models = list_models(options.folder)
    for line in models.broken:
        say(f"not a model: {line}")
    for each in models.found:
        print(f"{each.path}: {each.type}, {len(each.labels):,} labels, {each.bytes / 1e6:.1f} MB, {_when(each)}")
    if not models.found:
        say(f"no model in {options.folder}")
    return FAILED if models.broken else DONE


def _show(options: argparse.Namespace) -> int:
    from engine.models import read_model_info

    info = read_model_info(options.model)
    if options.json:
        print_json(orjson.loads(orjson.dumps(asdict(info), default=str)))
        return DONE
    for line in _lines(info):
        print(line)
    return DONE


def _lines(info: ModelInfo) -> Iterator[str]:
    several = "several an image" if info.multi_label else "one an image"
    several = "boxes" if info.type == "object_detection" else several
    facts = {
        "model": str(info.path),
        "type": f"{info.type}, {len(info.labels):,} labels, {several}",
        "labels": ", ".join(map(in_one_line, info.labels)),
        "input": f"{info.input_size[0]} x {info.input_size[1]} pixels",
        "networks": f"{info.networks}",
        "encoder": info.encoder or "none",
        "calibration": ", ".join(f"{name} {value:.4g}" for name, value in info.calibration.items()),
        "trained": f"{_when(info)}, labelengine {info.code_version}",
        "trained on": info.training_digest or "not said",
        "size": f"{info.bytes / 1e6:.1f} MB",
        "id": info.id,
    }
    for name, value in facts.items():
        yield f"{name:<12} {value}"
    for name, value in info.metrics.items():
        if isinstance(value, int | float | str):
            yield f"{name:<12} {value}"


def _when(info: ModelInfo) -> str:
    return info.created.strftime("%Y-%m-%d %H:%M:%S")
