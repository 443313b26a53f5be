"""The commands of auto grouping: group, and what a person does with a group."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from engine.cli.arguments import add_command, add_field, add_map, add_parameters, add_task_arguments
from engine.cli.requests import run_body
from engine.cli.terminal import DONE, FAILED, say_failures
from engine.tasks.parameters import parameters_of
from engine.tasks.request import parse_request, request_body
from engine.tasks.schema import AUTO_GROUPING, SmartTaskConfig

_GROUP_FIELDS: Final = (
    "n_clusters",
    "image_brightness",
    "image_colorfulness",
    "ambiguity",
    "property",
    "result_type",
)


def add_group(commands: Any) -> None:
    group = add_command(
        commands,
        "group",
        _group,
        "group images by k-means on brightness, color and blur, or by content",
        "Group the unlabeled images of DATA. The three dimensions combine; without any, images are grouped by what\n"
        "they show. OUT then holds report.html (look at it first), result.manifest, features.parquet and task.json.",
        "labelengine group photos --out groups --n-clusters 8 --image-brightness --ambiguity\n"
        "labelengine group photos --out groups                 # by content, the number is chosen\n"
        "labelengine group data.manifest --out groups --n-clusters 10 --result-type 0",
    )
    group.add_argument("dataset", metavar="DATA", help="a manifest or a folder")
    add_task_arguments(group)
    for name in _GROUP_FIELDS:
        add_field(group, name, SmartTaskConfig.model_fields[name])
    add_parameters(group, parameters_of(AUTO_GROUPING))


def add_label_group(commands: Any) -> None:
    label = add_command(
        commands,
        "label-group",
        _label_group,
        "label all samples of a group at once",
        "Give every sample of a group the same label, as a person's. Samples that a person has labeled keep theirs.",
        "labelengine label-group groups 3 --label cat --by anna",
    )
    _add_group_arguments(label)
    label.add_argument("--label", required=True, help="the label")
    label.add_argument("--by", metavar="NAME", help="who says so, kept in the manifest as human/NAME")
    label.add_argument("--replace", action="store_true", help="change labels that a person gave, too")


def add_drop_group(commands: Any) -> None:
    drop = add_command(
        commands,
        "drop-group",
        _drop_group,
        "take a group out of the manifest",
        "Take the samples of a group out of result.manifest; dropped.manifest keeps them. Image files are moved only\n"
        "when --to says where to, also those of samples taken out before, and never over another file.",
        "labelengine drop-group groups 5\nlabelengine drop-group groups 5 --to rejected",
    )
    _add_group_arguments(drop)
    drop.add_argument("--to", metavar="DIR", type=Path, help="move the image files there")
    add_map(drop)


def _add_group_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder of a finished grouping")
    parser.add_argument("group", metavar="GROUP", type=int, help="number of the group")


def _group(options: argparse.Namespace) -> int:
    names = [*_GROUP_FIELDS, *parameters_of(AUTO_GROUPING)]
    body = request_body(AUTO_GROUPING, {name: getattr(options, name) for name in names})
    return run_body(options, parse_request(body), plain=True)


def _label_group(options: argparse.Namespace) -> int:
    from engine.tasks.review import label_group

    done = label_group(options.out, options.group, options.label, by=options.by, replace_human=options.replace)
    print(f"group {done.group}: {done.changed:,} samples labeled {options.label}")
    if done.kept:
        print(f"{done.kept:,} keep the label that a person gave them (--replace changes them too)")
    return DONE


def _drop_group(options: argparse.Namespace) -> int:
    from engine.tasks.review import drop_group

    done = drop_group(options.out, options.group, to=options.to, map=options.map)
    if done.changed:
        print(f"group {done.group}: {done.changed:,} samples taken out of the manifest, kept in dropped.manifest")
    if options.to is not None:
        print(f"{done.moved:,} files moved to {options.to}")
    say_failures(done.failures)
    return FAILED if done.failures else DONE
