"""The commands of the service: serve, and what it knows (data sets, tokens); deploy, which serves one model."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.cli.arguments import add_command, add_home, add_map
from engine.cli.terminal import DONE, say
from engine.dataset import FORMATS
from engine.errors import InputError, MissingExtraError, UsageError
from engine.home import home_folder

if TYPE_CHECKING:
    from fastapi import FastAPI

_PROJECT: Final = "default"
_LOCAL: Final = ("127.0.0.1", "localhost", "::1")
#: Seconds that requests have to be answered after Ctrl-C; then the models are ended that they wait for.
_PATIENCE: Final = 10


def add_serve(commands: Any) -> None:
    serve = add_command(
        commands,
        "serve",
        _serve,
        "the task API over HTTP, on this machine",
        "Serve the calls of the task API: register data sets, run tasks in worker processes, confirm labels, deploy\n"
        "models. /docs describes every call. A request needs a token (labelengine token add), and names paths in the\n"
        "folders of --root only. Needs pip install '.[server]' in the folder of labelengine.",
        "labelengine token add --project pets\nlabelengine serve --root /data\n"
        "labelengine serve --root /data --port 9000 --workers 2",
    )
    _add_address(serve)
    serve.add_argument(
        "--root",
        metavar="DIR",
        action="append",
        type=Path,
        default=[],
        help="a folder that requests may name paths in (may be given several times)",
    )
    serve.add_argument("--workers", metavar="N", type=int, default=1, help="tasks that run at once (1)")
    serve.add_argument(
        "--no-tokens", action="store_true", help="ask for no token: whoever reaches the port may do everything"
    )
    add_home(serve)


def add_deploy(commands: Any) -> None:
    deploy = add_command(
        commands,
        "deploy",
        _deploy,
        "answer over HTTP what is on an image, with one model or a deployed folder",
        "Serve the folder that an auto-deploy task wrote, or a model: POST /v1/infers/NAME with an image (a form,\n"
        "JSON with base64, or its bytes) is answered in the documented form. Needs pip install '.[server]' in the\n"
        "folder of labelengine.",
        "labelengine deploy labeled/model\nlabelengine deploy signs --name signs --port 9000 --collect requests",
    )
    deploy.add_argument("model", metavar="MODEL", help="a folder, or the id or NAME[:VERSION] of an imported model")
    deploy.add_argument("--name", metavar="NAME", default="model", help="of the service (model)")
    deploy.add_argument("--instances", metavar="N", type=int, help="processes that answer (1; one a core is fastest)")
    deploy.add_argument("--collect", metavar="DIR", type=Path, help="keep images and answers there, as a manifest")
    _add_address(deploy)
    add_home(deploy)


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", metavar="HOST", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", metavar="PORT", type=int, default=8080, help="port to listen at (8080)")


def add_dataset(commands: Any) -> None:
    dataset = add_command(
        commands,
        "dataset",
        _list_datasets,
        "the data sets that the service knows",
        "Register data sets for `labelengine serve`, list and forget them. The data stay where they are.",
        "labelengine dataset add pets /data/pets\nlabelengine dataset list",
    )
    dataset.set_defaults(project=None)
    add_home(dataset)
    ways = dataset.add_subparsers(title="commands", metavar="COMMAND", prog="labelengine dataset")
    adding = add_command(
        ways, "add", _add_dataset, "register one", "Register a data set.", "labelengine dataset add pets /data/pets"
    )
    adding.add_argument("name", metavar="NAME", help="what it shall be called")
    adding.add_argument("data", metavar="DATA", type=Path, help="a manifest or a folder")
    adding.add_argument("--format", choices=FORMATS, help="what DATA is, where that is not found out rightly")
    add_map(adding)
    adding.add_argument("--project", metavar="ID", default=_PROJECT, help=f"project it belongs to ({_PROJECT})")
    listing = add_command(ways, "list", _list_datasets, "list them", "List data sets.", "labelengine dataset list")
    listing.add_argument("--project", metavar="ID", help="of this project only")
    removing = add_command(
        ways, "remove", _remove_dataset, "forget one", "Forget a data set.", "labelengine dataset remove QgPHIx5wWJ7s"
    )
    removing.add_argument("dataset_id", metavar="ID", help="the id of the data set")
    for way in (adding, listing, removing):
        add_home(way, below=True)


def add_token(commands: Any) -> None:
    token = add_command(
        commands,
        "token",
        _list_tokens,
        "the tokens that the service takes",
        "Make tokens for X-Auth-Token, each for one project; only their SHA-256 is kept.",
        "labelengine token add --project pets --name anna",
    )
    add_home(token)
    ways = token.add_subparsers(title="commands", metavar="COMMAND", prog="labelengine token")
    adding = add_command(
        ways, "add", _add_token, "make one", "Make a token; it is shown once.", "labelengine token add"
    )
    adding.add_argument("--project", metavar="ID", default=_PROJECT, help=f"project it is for ({_PROJECT})")
    adding.add_argument("--name", metavar="NAME", default="", help="who it is for")
    listing = add_command(ways, "list", _list_tokens, "list them", "List tokens.", "labelengine token list")
    removing = add_command(
        ways, "remove", _remove_token, "take one back", "Take a token back.", "labelengine token remove 1f2e3d"
    )
    removing.add_argument("token", metavar="DIGITS", help="the first digits, as the list has them")
    for way in (adding, listing, removing):
        add_home(way, below=True)


def _serve(options: argparse.Namespace) -> int:
    app_of = _app_module()
    if options.workers < 1:
        raise UsageError(f"--workers: must be at least 1, got {options.workers}")
    for root in options.root:
        if not root.is_dir():
            raise InputError(f"--root: must be a folder, got {root}")
    home = home_folder(options.home)
    if not options.no_tokens:
        with _database(options) as database:
            if not database.tokens():
                say("there is no token yet: labelengine token add --project ID makes one")
    elif options.host not in _LOCAL:
        say(f"--no-tokens at {options.host}: whoever reaches the port may do everything")
    app = app_of.create_app(home, roots=options.root, workers=options.workers, tokens=not options.no_tokens)
    say(f"http://{options.host}:{options.port}/docs describes the calls; Ctrl-C ends")
    return _listen(app, options)


def _deploy(options: argparse.Namespace) -> int:
    app_of = _app_module()
    from engine.models import Shelf
    from engine.tasks.deploying import SERVICE_NAME

    folder = Path(options.model)
    if not (folder / SERVICE_NAME).is_file():
        folder = Shelf(options.home).meant(options.model)
    app = app_of.create_service_app(folder, options.name, instances=options.instances, collect=options.collect)
    say(f"POST http://{options.host}:{options.port}/v1/infers/{options.name} answers; Ctrl-C ends")
    return _listen(app, options)


def _listen(app: FastAPI, options: argparse.Namespace) -> int:
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=options.host,
            port=options.port,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_PATIENCE,
        )
    )
    server.run()
    return DONE


def _app_module() -> Any:
    try:
        from engine.server import app
    except ImportError as error:
        raise MissingExtraError(
            f"the service needs packages that are not there ({error.name}): "
            "pip install '.[server]' in the folder of labelengine"
        ) from None
    return app


def _database(options: argparse.Namespace) -> Any:
    from contextlib import closing

    from engine.server.database import Database

    return closing(Database(home_folder(options.home)))


def _add_dataset(options: argparse.Namespace) -> int:
    from engine.server.datasets import add_dataset as register

    with _database(options) as database:
        found = register(database, options.project, options.name, options.data, options.format, options.map)
    print(found)
    return DONE


def _list_datasets(options: argparse.Namespace) -> int:
    with _database(options) as database:
        rows = database.datasets(getattr(options, "project", None))
    for row in rows:
        print(f"{row.dataset_id}  {row.project_id}  {row.name}  {row.data}")
    if not rows:
        say("no data set (labelengine dataset add NAME DATA registers one)")
    return DONE


def _remove_dataset(options: argparse.Namespace) -> int:
    with _database(options) as database:
        if database.dataset(options.dataset_id) is None:
            raise InputError(f"data set {options.dataset_id!r}: there is none")
        database.remove_dataset(options.dataset_id)
        database.stop_tasks(options.dataset_id)
    return DONE


def _add_token(options: argparse.Namespace) -> int:
    with _database(options) as database:
        print(database.add_token(options.project, options.name))
    return DONE


def _list_tokens(options: argparse.Namespace) -> int:
    with _database(options) as database:
        rows = database.tokens()
    for digits, project, name, created in rows:
        print(f"{digits}  {project}  {name or '-'}  {time.strftime('%Y-%m-%d', time.localtime(created))}")
    if not rows:
        say("no token (labelengine token add makes one)")
    return DONE


def _remove_token(options: argparse.Namespace) -> int:
    with _database(options) as database:
        database.remove_token(options.token)
    return DONE
