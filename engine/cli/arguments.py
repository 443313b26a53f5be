"""What the commands take: flags are made from the request's own records, so that they cannot drift."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic.fields import FieldInfo

from engine.cli.terminal import say
from engine.dataset import FORMATS, Dataset, read_samples
from engine.tasks.parameters import Parameters
from engine.tasks.request import parse_request, request_body
from engine.tasks.schema import AUTO_GROUPING

_PATH: Final = re.compile(
    r"^config\.(?:parameters\[\d+\]: (?P<parameter>\w+)"
    r"|(?:export_params\.(?:search_conditions\[\d+\]\.)?)?(?P<field>\w+)): "
)
#: What stands for the value of a flag, where the last word of its name would mislead.
_METAVARS: Final = {"batch_size": "N", "key_sample_output": "DIR", "min_per_class": "N", "time_in_video": "TIME"}
#: What fields of the request mean on the command line, with what holds where they are left out.
_MEANINGS: Final = {
    "algorithm_type": "fast: learn from labeled images only; accurate: from unlabeled ones too (accurate)",
    "key_sample_output": "folder below OUT that hard examples are copied to (key_samples)",
    "property": "sample attribute that gets the group (group)",
    "result_type": "groups go to: 0 folders, 1 the samples' attribute (1)",
}


class Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=110)


def add_command(
    commands: Any, name: str, command: Callable[[argparse.Namespace], int], title: str, description: str, examples: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=title,
        description=description,
        epilog="examples:\n" + "".join(f"  {line}\n" for line in examples.splitlines()),
        formatter_class=Help,
    )
    parser.set_defaults(command=command)
    return parser


def add_out(parser: argparse.ArgumentParser, *, resumable: bool = False) -> None:
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
    add_map(parser)


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    add_out(parser, resumable=True)
    parser.add_argument("--json", action="store_true", help="print task.json on stdout")


def add_map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--map",
        metavar="PREFIX=DIR",
        action="append",
        default=[],
        help="where the sources below PREFIX lie, as s3://bucket/=dir/; it must end where a part of their path does: "
        "s3://bucket/a does not map s3://bucket/ab/1.jpg (may be given several times)",
    )


def add_home(parser: argparse.ArgumentParser, *, below: bool = False) -> None:
    """below: of a command whose parent takes it, too; what the parent was given holds where it is left out here."""
    parser.add_argument(
        "--home",
        metavar="DIR",
        type=Path,
        default=argparse.SUPPRESS if below else None,
        help="where this machine keeps models, data sets, tasks and tokens ($LABELENGINE_HOME, else ~/.labelengine)",
    )


def add_parameters(
    parser: argparse.ArgumentParser, names: Sequence[str], meanings: Mapping[str, str] = MappingProxyType({})
) -> None:
    """meanings: of those parameters that mean something else to this command, whole, with their default."""
    for name in names:
        add_field(parser, name, Parameters.model_fields[name], meanings.get(name))


def add_field(parser: argparse.ArgumentParser, name: str, field: FieldInfo, meaning: str | None = None) -> None:
    """The flag of a field; its value is checked by the request, like any other's. meaning: instead of what the field
    says of itself and its default."""
    default = "" if field.default is None else f" ({field.default})"
    meaning = meaning or _MEANINGS.get(name)
    described = str(field.description) if meaning is None else meaning
    described = described.replace("%", "%%")
    flag = "--" + name.replace("_", "-")
    if field.default is False:
        parser.add_argument(flag, dest=name, action="store_const", const=True, help=described)
    else:
        metavar = _METAVARS.get(name) or name.rpartition("_")[2].upper()
        parser.add_argument(flag, dest=name, metavar=metavar, help=described + default * (meaning is None))


def read_parameters(options: argparse.Namespace, names: Sequence[str]) -> Parameters:
    """The flags of `add_parameters`, checked as a request checks them, for a command that is no task of requests."""
    body = request_body(AUTO_GROUPING, {name: getattr(options, name) for name in names})
    entries = parse_request(body).config.parameters or ()
    return Parameters.model_validate({entry.label: entry.value for entry in entries})


def as_flags(line: str) -> str:
    """An error of the request in the words of the command line: `--n-clusters: must be 2..200, got 500`."""
    return _PATH.sub(lambda found: "--" + (found["parameter"] or found["field"]).replace("_", "-") + ": ", line)


def read_data(path: str, options: argparse.Namespace, *, plain: bool) -> Dataset:
    say(f"reading {path} ...")
    return read_samples(path, format=options.format, map=options.map, plain=plain)


def program_version() -> str:
    try:
        return version("labelengine")
    except PackageNotFoundError:
        return "(not installed)"
