"""The command line: arguments in, a request or a task out, and what it says on the terminal. All work is done by
`engine.tasks` and `engine.dataset`; flags are made from the request's own records, so that they cannot drift. A command
imports what it runs, so that --help need not wait for torch.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. stdout has results, stderr what happens on the way.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Event
from typing import Any, Final

import orjson
from pydantic.fields import FieldInfo
from tqdm import tqdm

from engine.dataset import COPIES, FORMATS, TARGETS, Dataset, read_samples, write_dataset
from engine.errors import EngineError, Failure, Stopped, UsageError
from engine.tasks.parameters import Parameters, parameters_of
from engine.tasks.request import parse_request, read_request, request_body, require_available
from engine.tasks.schema import AUTO_GROUPING, SmartTaskConfig, TaskRequest

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130

_GROUP_FIELDS: Final = (
    "n_clusters",
    "image_brightness",
    "image_colorfulness",
    "ambiguity",
    "property",
    "result_type",
)
_FAILURES_SHOWN: Final = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except Stopped as error:
        _say(str(error))
        return INTERRUPTED
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone away
        sys.stderr.close()
        return FAILED
    except EngineError as error:
        for line in str(error).splitlines():
            _say(f"error: {_as_flags(line)}")
        return WRONG_USAGE if isinstance(error, UsageError) else FAILED


# ---- The commands. ----


def _group(options: argparse.Namespace) -> int:
    names = [*_GROUP_FIELDS, *parameters_of(AUTO_GROUPING)]
    body = request_body(AUTO_GROUPING, {name: getattr(options, name) for name in names})
    return _run_body(options, parse_request(body), plain=True)


def _run(options: argparse.Namespace) -> int:
    request = read_request(options.request)
    require_available(request.task_type)
    return _run_body(options, request, plain=request.task_type == AUTO_GROUPING)


def _run_body(options: argparse.Namespace, request: TaskRequest, *, plain: bool) -> int:
    from engine.tasks.catalog import run_request

    dataset = _read(options.dataset, options, plain=plain)
    with _stoppable() as stop, _Terminal() as terminal:
        answer = run_request(
            request,
            dataset,
            options.out,
            overwrite=options.overwrite,
            resume=options.resume,
            reporter=terminal,
            stop=stop,
        )
    return _tell(answer, options, _group_lines(answer))


def _features(options: argparse.Namespace) -> int:
    from engine.tasks.features import features_task
    from engine.tasks.runner import run

    datasets = [_read(path, options, plain=True) for path in options.datasets]
    parameters = request_body(AUTO_GROUPING, {name: getattr(options, name) for name in ("max_pixels", "threads")})
    checked = Parameters.model_validate(
        {entry["label"]: entry["value"] for entry in parse_request(parameters).body()["config"].get("parameters", ())}
    )
    task = features_task(datasets, threads=checked.threads, max_pixels=checked.max_pixels)
    with _stoppable() as stop, _Terminal() as terminal:
        answer = run(
            task, options.out, overwrite=options.overwrite, resume=options.resume, reporter=terminal, stop=stop
        )
    return _tell(answer, options, _feature_lines(answer))


def _convert(options: argparse.Namespace) -> int:
    dataset = read_samples(options.dataset, format=options.format, map=options.map)
    for note in dataset.notes:
        _say(note)
    written = write_dataset(dataset, options.out, to=options.to, copy=options.copy, overwrite=options.overwrite)
    for note in written.notes:
        _say(note)
    _say_failures([*dataset.failures, *written.failures])
    print(f"{written.path}: " + ", ".join(f"{count:,} {what}" for what, count in written.counts.items()))
    return DONE


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
    print(f"group {done.group}: {done.changed:,} samples taken out of the manifest, kept in dropped.manifest")
    if options.to is not None:
        print(f"{done.moved:,} files moved to {options.to}")
    _say_failures(done.failures)
    return FAILED if done.failures else DONE


# ---- Their arguments. ----


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=110)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labelengine",
        usage="labelengine [-h] [--version] COMMAND ...",
        formatter_class=_Help,
        description="Group, measure and convert image data sets on this machine. Nothing is sent or downloaded.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n"
        "labelengine COMMAND --help tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"labelengine {_version()}")
    # As wide as the longest command, or argparse breaks the lines of the list.
    commands = parser.add_subparsers(title="commands", metavar="COMMAND ...", prog="labelengine", required=True)

    group = _command(
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
    _add_task_arguments(group)
    for name in _GROUP_FIELDS:
        _add_field(group, name, SmartTaskConfig.model_fields[name])
    _add_parameters(group, parameters_of(AUTO_GROUPING))

    label = _command(
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

    drop = _command(
        commands,
        "drop-group",
        _drop_group,
        "take a group out of the manifest",
        "Take the samples of a group out of result.manifest; dropped.manifest keeps them. Image files are moved only\n"
        "when --to says where to, and never over another file.",
        "labelengine drop-group groups 5\nlabelengine drop-group groups 5 --to rejected",
    )
    _add_group_arguments(drop)
    drop.add_argument("--to", metavar="DIR", type=Path, help="move the image files there")
    _add_map(drop)

    features = _command(
        commands,
        "features",
        _features,
        "measure images and boxes; several versions side by side",
        "Measure resolution, aspect ratio, brightness, saturation, colorfulness, clarity, blur, and boxes where there\n"
        "are any. OUT then holds report.html, features.parquet and task.json.",
        "labelengine features photos-2025 photos-2026 --out compared",
    )
    features.add_argument("datasets", metavar="DATA", nargs="+", help="manifests or folders")
    _add_task_arguments(features)
    _add_parameters(features, ["max_pixels", "threads"])

    convert = _command(
        commands,
        "convert",
        _convert,
        "write a data set in another format",
        "Read DATA and write it to OUT as a manifest, or as folders: tree (cat/1.jpg), tile (1.jpg beside 1.txt), voc\n"
        "(1.jpg beside 1.xml) or yolo. What a format cannot hold is said.",
        "labelengine convert photos --out labels --to manifest\nlabelengine convert data.manifest --out tree --to tree",
    )
    convert.add_argument("dataset", metavar="DATA", help="a manifest or a folder")
    _add_out(convert)
    convert.add_argument("--to", required=True, choices=TARGETS, help="the format to write")
    convert.add_argument("--copy", choices=COPIES, default="link", help="hard links where possible (link), or copies")

    request = _command(
        commands,
        "run",
        _run,
        "run a request body of the specification",
        "Run the task that a JSON request asks for; lines that begin with // are comments in a .jsonc file.",
        "labelengine run configs/requests/auto_grouping.json --dataset photos --out groups",
    )
    request.add_argument("request", metavar="REQUEST", type=Path, help="a file with the request body")
    request.add_argument("--dataset", metavar="DATA", required=True, help="a manifest or a folder")
    _add_task_arguments(request)
    return parser


def _command(
    commands: Any, name: str, command: Callable[[argparse.Namespace], int], title: str, description: str, examples: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=title,
        description=description,
        epilog="examples:\n" + "".join(f"  {line}\n" for line in examples.splitlines()),
        formatter_class=_Help,
    )
    parser.set_defaults(command=command)
    return parser


def _add_out(parser: argparse.ArgumentParser, *, resumable: bool = False) -> None:
    parser.add_argument("--out", metavar="OUT", type=Path, required=True, help="a new or empty folder for the result")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--overwrite", action="store_true", help="replace what an earlier run wrote to OUT")
    if resumable:
        again.add_argument("--resume", action="store_true", help="go on with a run that was stopped or killed")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="what DATA is, where that is not found out rightly; images: nothing is a label",
    )
    _add_map(parser)


def _add_task_arguments(parser: argparse.ArgumentParser) -> None:
    _add_out(parser, resumable=True)
    parser.add_argument("--json", action="store_true", help="print task.json on stdout")


def _add_map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--map",
        metavar="PREFIX=DIR",
        action="append",
        default=[],
        help="where the sources that begin with PREFIX lie, as s3://bucket/=dir/ (may be given several times)",
    )


def _add_group_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder of a finished grouping")
    parser.add_argument("group", metavar="GROUP", type=int, help="number of the group")


def _add_parameters(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    for name in names:
        _add_field(parser, name, Parameters.model_fields[name])


def _add_field(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    """The flag of a field; its value is checked by the request, like any other's."""
    described = str(field.description).replace("%", "%%")
    flag = "--" + name.replace("_", "-")
    if field.default is False:
        parser.add_argument(flag, dest=name, action="store_const", const=True, help=described)
    else:
        default = "" if field.default is None else f" ({field.default})"
        metavar = name.rpartition("_")[2].upper()
        parser.add_argument(flag, dest=name, metavar=metavar, help=described + default)


_PATH: Final = re.compile(r"^config\.(?:parameters\[\d+\]: (?P<parameter>\w+)|(?P<field>\w+)): ")


def _as_flags(line: str) -> str:
    """An error of the request in the words of the command line: `--n-clusters: must be 2..200, got 500`."""
    return _PATH.sub(lambda found: "--" + (found["parameter"] or found["field"]).replace("_", "-") + ": ", line)


def _version() -> str:
    try:
        return version("labelengine")
    except PackageNotFoundError:
        return "(not installed)"


# ---- What is said. ----


def _read(path: str, options: argparse.Namespace, *, plain: bool) -> Dataset:
    _say(f"reading {path} ...")
    return read_samples(path, format=options.format, map=options.map, plain=plain)


def _tell(answer: dict[str, Any], options: argparse.Namespace, lines: Iterator[str]) -> int:
    if options.json:
        sys.stdout.flush()
        sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
        return DONE
    _say_failures([Failure(**each) for each in answer["failures"]])
    for line in lines:
        print(line)
    print(f"look at {options.out / 'report.html'}")
    return DONE


def _group_lines(answer: dict[str, Any]) -> Iterator[str]:
    result = answer["result"]
    by = ", ".join(result["dimensions"])
    yield f"{result['annotated_sample_count']:,} images in {result['n_clusters']} groups by {by}"
    for each in result["groups"]:
        yield f"{each['group']:>5}  {each['sample_count']:>9,}  {each['name']}"


def _feature_lines(answer: dict[str, Any]) -> Iterator[str]:
    for each in answer["result"]["versions"]:
        medians = ", ".join(f"{name} {value:.4g}" for name, value in each["medians"].items() if value is not None)
        yield f"{each['dataset_name']}: {each['readable']:,} images; medians: {medians}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _say_failures(failures: Sequence[Failure]) -> None:
    for failure in failures[:_FAILURES_SHOWN]:
        _say(f"could not use {failure.source!r}: {failure.reason}")
    if len(failures) > _FAILURES_SHOWN:
        _say(f"and {len(failures) - _FAILURES_SHOWN:,} more that could not be used")


class _Terminal:
    """Stages as bars on a terminal, and as one line each elsewhere. A context manager; a `Reporter`."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._stage: tuple[str, float, int] | None = None

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def stage(self, name: str, total: int) -> None:
        self._end()
        self._stage = name, time.perf_counter(), 0
        if sys.stderr.isatty():
            self._bar = tqdm(desc=name, total=total or None, unit="", unit_scale=False, leave=True, file=sys.stderr)

    def advance(self, done: int) -> None:
        if self._stage:
            self._stage = (*self._stage[:2], done)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def note(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            _say(line)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._stage:
            name, started, done = self._stage
            seconds = time.perf_counter() - started
            _say(f"{name}: {done:,} in {seconds:.1f} s" + (f" ({done / seconds:,.0f}/s)" if seconds > 0.05 else ""))
        self._bar = self._stage = None


@contextmanager
def _stoppable() -> Iterator[Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets; the second one interrupts at once."""
    stop = Event()
    before = {}

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        _say("\nstopping; once more to interrupt at once")

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not in the main thread: whoever runs us there stops us
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
