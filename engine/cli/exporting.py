"""The commands that choose samples of a data set: export writes them, search lists them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from engine.cli.arguments import add_command, add_field, add_map, add_task_arguments, read_data
from engine.cli.terminal import DONE, Terminal, print_json, say, stoppable, tell
from engine.dataset import FORMATS as READ_FORMATS
from engine.errors import InputError, UsageError
from engine.tasks.parameters import Parameters
from engine.tasks.request import checked_conditions, parse_request
from engine.tasks.schema import ExportParams, SearchCondition

#: Fields of a condition that are flags; the others need --search-conditions.
_FLAGS: Final = (
    *("coefficient", "hard", "import_origin", "labeler", "parent_sample_id", "sample_dir", "sample_name"),
    *("sample_time", "score", "time_in_video"),
)
_EXPORT_FLAGS: Final = (
    *("clear_hard_property", "export_dataset_version_name", "export_new_dataset_name", "ratio_sample_usage"),
    *("sample_state", "train_sample_ratio"),
)
_SHOWN: Final = 20


def add_export(commands: Any) -> None:
    export = add_command(
        commands,
        "export",
        _export,
        "write some samples of a data set, with their labels, in another format",
        "Choose samples of DATA by their state, ids or what they are like, and write them to OUT: as folders (tree,\n"
        "tile, voc, yolo, coco), as a manifest, as a table (csv, parquet), or as a data set by itself with the images\n"
        "(new). Marks of hard examples are left out, unless --keep-hard-property.",
        "labelengine export labeled --to voc --out release --sample-state ALL\n"
        "labelengine export labeled --to yolo --out release --ratio-sample-usage --train-sample-ratio 0.8\n"
        "labelengine export labeled --to new --out doubtful --coefficient '>=0.5' --keep-hard-property",
    )
    export.add_argument("dataset", metavar="DATA", help="a manifest or a folder")
    export.add_argument(
        "--to",
        metavar="FORMAT",
        help="tree, tile, voc, yolo, coco, manifest, csv, parquet or new (voc for boxes, else tree)",
    )
    export.add_argument("--copy", action="store_true", help="copies, not hard links")
    add_task_arguments(export)
    for name in _EXPORT_FLAGS:
        if name != "clear_hard_property":
            add_field(export, name, ExportParams.model_fields[name])
    export.add_argument("--keep-hard-property", action="store_true", help="keep the marks of hard examples")
    export.add_argument("--samples", metavar="FILE", type=Path, help="only these: sample ids, one a line")
    _add_conditions(export)
    add_field(export, "seed", Parameters.model_fields["seed"])


def add_search(commands: Any) -> None:
    search = add_command(
        commands,
        "search",
        _search,
        "list the samples of a data set that are like that",
        "List the samples of DATA that meet the conditions: their sources on stdout, or with --json what is known of\n"
        "them. --search-conditions takes the specification's own form, an array of conditions joined by OR.",
        "labelengine search labeled --label cat --score 0.2-0.6\n"
        "labelengine search labeled --hard 1 --sample-state AUTO_ANNOTATION --json",
    )
    search.add_argument("dataset", metavar="DATA", help="a manifest or a folder")
    search.add_argument("--format", choices=READ_FORMATS, help="what DATA is, where that is not found out rightly")
    add_map(search)
    add_field(search, "sample_state", ExportParams.model_fields["sample_state"])
    _add_conditions(search)
    search.add_argument("--count", action="store_true", help="print how many there are")
    search.add_argument("--json", action="store_true", help="print the samples as the service answers them")


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    for name in _FLAGS:
        add_field(parser, name, SearchCondition.model_fields[name])
    parser.add_argument("--label", metavar="NAME", action="append", help="with this label (several: any of them)")
    parser.add_argument(
        "--metadata", metavar="KEY=VALUE", action="append", help="with this attribute (several: all of them)"
    )
    parser.add_argument(
        "--search-conditions", metavar="JSON", help="an array of conditions (CreateTask, table 5), or a file with it"
    )


def _conditions(options: argparse.Namespace) -> list[Mapping[str, Any]]:
    """The conditions that flags and --search-conditions make: each of the latter with those of the flags besides."""
    flags: dict[str, Any] = {name: getattr(options, name) for name in _FLAGS if getattr(options, name) is not None}
    if options.label:
        flags["label_list"] = {"op": "OR", "labels": [{"name": name} for name in options.label]}
    if options.metadata:
        props: dict[str, list[str] | None] = {}
        for entry in options.metadata:
            key, equals, value = entry.partition("=")
            if not key:
                raise UsageError(f"--metadata: must be KEY=VALUE, or KEY for any value, got {entry!r}")
            props[key] = [*(props.get(key) or []), value] if equals else None
        flags["metadata"] = {"op": "AND", "props": props}
    given = [] if options.search_conditions is None else _read_conditions(options.search_conditions)
    if not flags:
        return given
    for each in given:
        if isinstance(each, Mapping) and (both := flags.keys() & each.keys()):
            name = sorted(both)[0]
            raise UsageError(f"--search-conditions: {name} is given by a flag, too; one of them says what is meant")
    return [{**each, **flags} for each in given or [{}]]


def _read_conditions(text: str) -> list[Mapping[str, Any]]:
    content: str | bytes = text
    if not text.lstrip().startswith(("[", "{")):
        try:
            content = Path(text).read_bytes()
        except (OSError, ValueError) as error:
            raise InputError(f"{text}: must be JSON, or a file with it: {error}") from None
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"--search-conditions: must be JSON, is not: {error}") from None
    return found if isinstance(found, list) else [found]


def _export(options: argparse.Namespace) -> int:
    from engine.tasks.exporting import Wanted, export_task, suggested_format
    from engine.tasks.runner import run

    params: dict[str, Any] = {
        name: getattr(options, name) for name in _EXPORT_FLAGS if getattr(options, name, None) is not None
    }
    if options.keep_hard_property:
        params["clear_hard_property"] = False
    if options.samples is not None:
        params["samples"] = _ids(options.samples)
    if conditions := _conditions(options):
        params["search_conditions"] = conditions
    config: dict[str, Any] = {"export_params": params}
    if options.seed is not None:
        config["parameters"] = [{"label": "seed", "value": options.seed}]
    request = parse_request({"task_type": "auto-grouping", "config": config})
    assert request.config.export_params is not None
    seed = int(request.config.parameters[0].value or 0) if request.config.parameters else 0
    dataset = read_data(options.dataset, options, plain=False)
    to = options.to or suggested_format(dataset)
    task = export_task(dataset, Wanted(to, request.config.export_params, options.copy, seed))
    with stoppable() as stop, Terminal() as terminal:
        answer = run(
            task, options.out, overwrite=options.overwrite, resume=options.resume, reporter=terminal, stop=stop
        )
    return tell(answer, _export_lines(answer), options.out, json=options.json, page=False)


def _ids(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: must be sample ids, one a line, cannot be read: {error}") from None


def _export_lines(answer: dict[str, Any]) -> Iterator[str]:
    result = answer["result"]
    counts = ", ".join(f"{count:,} {what}" for what, count in result["counts"].items())
    chosen = f"{result['exported_sample_count']:,} of {result['total_sample_count']:,} samples"
    yield f"{chosen} as {result['format']}: {counts}"
    if result["train_sample_count"] or result["eval_sample_count"]:
        yield f"{result['train_sample_count']:,} for training, {result['eval_sample_count']:,} for evaluation"


def _search(options: argparse.Namespace) -> int:
    from engine.tasks.answers import sample_answer
    from engine.tasks.conditions import matching

    conditions, state = checked_conditions(_conditions(options), options.sample_state)
    dataset = read_data(options.dataset, options, plain=False)
    rows = matching(dataset, conditions, state=state).tolist()
    if options.json:
        print_json({"sample_count": len(rows), "samples": [sample_answer(dataset, row) for row in rows]})
        return DONE
    if options.count:
        print(len(rows))
        return DONE
    for row in rows:
        print(dataset[row].source)
    say(f"{len(rows):,} of {len(dataset):,} samples")
    return DONE
