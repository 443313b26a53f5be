"""The command line: arguments in, a request or a task out, and what it says on the terminal. All work is done by
`engine.tasks` and `engine.dataset`; flags are made from the request's own records, so that they cannot drift. A command
imports what it runs, so that --help need not wait for torch.

    terminal.py     what is said, exit codes, Ctrl-C
    arguments.py    what several commands take
    requests.py     run, and what the results of requests say
    grouping.py     group, label-group, drop-group
    labeling.py     label, prelabel, confirm, evaluate
    suggesting.py   suggest
    hard.py         hard
    simulating.py   simulate
    models.py       models list, show, import, remove
    exporting.py    export, search
    datasets.py     features, convert
    serving.py      deploy, serve, dataset, token

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. stdout has results, stderr what happens on the way.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence

from engine.cli.arguments import Help, as_flags, program_version
from engine.cli.datasets import add_convert, add_features
from engine.cli.exporting import add_export, add_search
from engine.cli.grouping import add_drop_group, add_group, add_label_group
from engine.cli.hard import add_hard
from engine.cli.labeling import add_confirm, add_evaluate, add_label, add_prelabel
from engine.cli.models import add_models
from engine.cli.requests import add_run
from engine.cli.serving import add_dataset, add_deploy, add_serve, add_token
from engine.cli.simulating import add_simulate
from engine.cli.suggesting import add_suggest
from engine.cli.terminal import FAILED, INTERRUPTED, WRONG_USAGE, say
from engine.errors import EngineError, Stopped, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names that are no Unicode are shown as stderr shows them
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except Stopped as error:
        say(str(error))
        return INTERRUPTED
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone away
        sys.stderr.close()
        return FAILED
    except EngineError as error:
        for line in str(error).splitlines():
            say(f"error: {as_flags(line)}")
        return WRONG_USAGE if isinstance(error, UsageError) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labelengine",
        usage="labelengine [-h] [--version] COMMAND ...",
        formatter_class=Help,
        description="Group, label, measure and convert image data sets on this machine. Nothing is sent or downloaded.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n"
        "labelengine COMMAND --help tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"labelengine {program_version()}")
    # As wide as the longest command, or argparse breaks the lines of the list.
    commands = parser.add_subparsers(title="commands", metavar="COMMAND ...", prog="labelengine", required=True)
    for add in (
        *(add_group, add_label_group, add_drop_group),
        *(add_suggest, add_label, add_prelabel, add_hard, add_confirm, add_evaluate, add_simulate, add_models),
        *(add_search, add_export, add_features, add_convert, add_run),
        *(add_deploy, add_serve, add_dataset, add_token),
    ):
        add(commands)
    return parser
