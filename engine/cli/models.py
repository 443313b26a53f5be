"""The commands of models on disk: list them, say what one is, take in one from elsewhere, forget it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.arguments import add_command, add_home
from engine.cli.terminal import DONE, FAILED, in_one_line, print_json, say

if TYPE_CHECKING:
    from engine.models import ModelInfo


def add_models(commands: Any) -> None:
    models = add_command(
        commands,
        "models",
        _list,
        "list trained models, show one, or take in one from elsewhere",
        "A model is a folder: model.json with weights.safetensors of our own, or with a graph (.onnx, .pt2).\n"
        "Imported models are known by name: prelabel, hard and requests find them by it.",
        "labelengine models list labeled\nlabelengine models show labeled/model\n"
        "labelengine models import labeled/model --name signs\nlabelengine models remove signs:0.0.1",
    )
    models.set_defaults(folder=None)
    add_home(models)
    ways = models.add_subparsers(title="commands", metavar="COMMAND", prog="labelengine models", required=False)
    listing = add_command(
        ways,
        "list",
        _list,
        "the models in a folder and below it, or all imported ones",
        "List models: those in DIR and below it, or without DIR those that were imported.",
        "labelengine models list\nlabelengine models list labeled",
    )
    listing.add_argument("folder", metavar="DIR", type=Path, nargs="?", help="where to look (imported models)")
    show = add_command(
        ways,
        "show",
        _show,
        "what a model is",
        "Say what a model is, how good it was and where it comes from.",
        "labelengine models show labeled/model\nlabelengine models show signs",
    )
    show.add_argument("model", metavar="MODEL", help="a folder, or the id or NAME[:VERSION] of an imported model")
    show.add_argument("--json", action="store_true", help="print it as JSON on stdout")
    taking = add_command(
        ways,
        "import",
        _import,
        "take in a model under a name",
        "Copy a model to where this machine keeps them, under a name and a version. An ONNX graph needs onnxruntime\n"
        "(pip install '.[onnx]' in the folder of labelengine). A .pt2 file may run what it likes when it is loaded:\n"
        "import only what you trust. What model.json must say is in the README.",
        "labelengine models import labeled/model --name signs\n"
        "labelengine models import resnet/model.onnx --name animals --version 2.0",
    )
    taking.add_argument("model", metavar="MODEL", type=Path, help="the folder of the model, or its .onnx or .pt2 file")
    taking.add_argument("--name", metavar="NAME", help="what it shall be called (as its folder)")
    taking.add_argument("--version", metavar="VERSION", help="of that name (the next one)")
    removing = add_command(
        ways,
        "remove",
        _remove,
        "forget an imported model",
        "Forget an imported model and delete the copy; the folder that it came from stays.",
        "labelengine models remove signs:0.0.1",
    )
    removing.add_argument("model", metavar="MODEL", help="the id, or NAME:VERSION")
    for way in (listing, show, taking, removing):
        add_home(way, below=True)


def _list(options: argparse.Namespace) -> int:
    from engine.models import Shelf, list_models

    if options.folder is None:
        shelf = Shelf(options.home)
        known, broken = shelf.all()
        for each in known:
            print(f"{each.model_name}:{each.model_version}  {each.model_id}  {_in_short(each.info)}")
        if not known:
            say(f"no model in {shelf.folder} (labelengine models import adds one)")
    else:
        models = list_models(options.folder)
        broken = models.broken
        for info in models.found:
            print(f"{info.path}: {_in_short(info)}")
        if not models.found:
            say(f"no model in {options.folder}")
    for line in broken:
        say(f"not a model: {line}")
    return FAILED if broken else DONE


def _show(options: argparse.Namespace) -> int:
    from engine.models import Shelf, read_model_info

    info = read_model_info(Shelf(options.home).meant(options.model))
    if options.json:
        print_json({**asdict(info), "created": info.created.isoformat(), "path": str(info.path)})
        return DONE
    for line in _lines(info):
        print(line)
    return DONE


def _import(options: argparse.Namespace) -> int:
    from engine.models import Shelf

    taken = Shelf(options.home).add(options.model, name=options.name, version=options.version)
    print(f"{taken.model_name}:{taken.model_version}  {taken.model_id}")
    return DONE


def _remove(options: argparse.Namespace) -> int:
    from engine.models import Shelf

    shelf = Shelf(options.home)
    name, _, version = options.model.partition(":")
    gone = shelf.remove(shelf.find(name, version).model_id if version else options.model)
    print(f"{gone.model_name}:{gone.model_version}  {gone.model_id}  is gone")
    return DONE


def _in_short(info: ModelInfo) -> str:
    return f"{info.type}, {len(info.labels):,} labels, {info.bytes / 1e6:.1f} MB, {_when(info)}"


def _lines(info: ModelInfo) -> Iterator[str]:
    several = "several an image" if info.multi_label else "one an image"
    several = "boxes" if info.type == "object_detection" else several
    facts = {
        "model": str(info.path),
        "type": f"{info.type}, {len(info.labels):,} labels, {several}",
        "labels": ", ".join(map(in_one_line, info.labels)),
        "input": f"{info.input_size[0]} x {info.input_size[1]} pixels",
        "networks": f"{info.networks}" if info.networks else "none of ours",
        "encoder": info.encoder or "none",
        "calibration": ", ".join(f"{name} {value:.4g}" for name, value in info.calibration.items()),
        "made": f"{_when(info)}, {info.origin} {info.code_version}".strip(),
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
