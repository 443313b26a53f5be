"""The commands for whole data sets: measure them, write them in another format."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Final

from engine.cli.arguments import add_command, add_out, add_parameters, add_task_arguments, read_data, read_parameters
from engine.cli.terminal import DONE, Terminal, say, say_failures, stoppable, tell
from engine.dataset import COPIES, TARGETS, read_samples, write_dataset

_MEASURING: Final = ("max_pixels", "threads")


def add_features(commands: Any) -> None:
    features = add_command(
        commands,
        "features",
        _features,
        "measure images and boxes; several versions side by side",
        "Measure resolution, aspect ratio, brightness, saturation, colorfulness, clarity, blur, and boxes where there\n"
        "are any. OUT then holds report.html, features.parquet and task.json.",
        "labelengine features photos-2025 photos-2026 --out compared",
    )
    features.add_argument("datasets", metavar="DATA", nargs="+", help="manifests or folders")
    add_task_arguments(features)
    add_parameters(features, _MEASURING)


def add_convert(commands: Any) -> None:
    convert = add_command(
        commands,
        "convert",
        _convert,
        "write a data set in another format",
        "Read DATA and write it to OUT as a manifest, or as folders: tree (cat/1.jpg), tile (1.jpg beside 1.txt), voc\n"
        "(1.jpg beside 1.xml), yolo or coco. What a format cannot hold is said.",
        "labelengine convert photos --out labels --to manifest\nlabelengine convert data.manifest --out tree --to tree",
    )
    convert.add_argument("dataset", metavar="DATA", help="a manifest or a folder")
    add_out(convert)
    convert.add_argument("--to", required=True, choices=TARGETS, help="the format to write")
    convert.add_argument("--copy", choices=COPIES, default="link", help="hard links where possible (link), or copies")


def _features(options: argparse.Namespace) -> int:
    from engine.tasks.features import features_task
    from engine.tasks.runner import run

    datasets = [read_data(path, options, plain=True) for path in options.datasets]
    checked = read_parameters(options, _MEASURING)
    task = features_task(datasets, threads=checked.threads, max_pixels=checked.max_pixels)
    with stoppable() as stop, Terminal() as terminal:
        answer = run(
            task, options.out, overwrite=options.overwrite, resume=options.resume, reporter=terminal, stop=stop
        )
    return tell(answer, _feature_lines(answer), options.out, json=options.json)


def _feature_lines(answer: dict[str, Any]) -> Iterator[str]:
    for each in answer["result"]["versions"]:
        medians = ", ".join(f"{name} {value:.4g}" for name, value in each["medians"].items() if value is not None)
        yield f"{each['dataset_name']}: {each['readable']:,} images; medians: {medians}"


def _convert(options: argparse.Namespace) -> int:
    dataset = read_samples(options.dataset, format=options.format, map=options.map)
    for note in dataset.notes:
        say(note)
    written = write_dataset(dataset, options.out, to=options.to, copy=options.copy, overwrite=options.overwrite)
    for note in written.notes:
        say(note)
    say_failures([*dataset.failures, *written.failures])
    print(f"{written.path}: " + ", ".join(f"{count:,} {what}" for what, count in written.counts.items()))
    return DONE
