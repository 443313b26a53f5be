"""What the service remembers: tokens, data sets, tasks and services, in one SQLite file (WAL mode).

Every change is one transaction. Rows come as frozen records. Knows nothing of HTTP or of how tasks are run; statuses
are those of `engine.tasks.runner.Status`.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import string
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Final

import orjson

from engine.errors import InputError, OutputError
from engine.tasks.runner import Status

DATABASE_NAME: Final = "labelengine.db"
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS tokens (
    digest TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS datasets (
    dataset_id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, map TEXT NOT NULL,
    created REAL NOT NULL, removed REAL);
CREATE UNIQUE INDEX IF NOT EXISTS names_of_a_project ON datasets (project_id, name) WHERE removed IS NULL;
CREATE TABLE IF NOT EXISTS tasks (
    number INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL UNIQUE, project_id TEXT NOT NULL,
    dataset_id TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, status INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL, started REAL, ended REAL,
    error_code TEXT NOT NULL DEFAULT '', error_msg TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS tasks_of_a_dataset ON tasks (dataset_id, status);
CREATE TABLE IF NOT EXISTS services (
    service_id TEXT PRIMARY KEY, project_id TEXT NOT NULL, dataset_id TEXT, task_id TEXT, config TEXT NOT NULL,
    created REAL NOT NULL);
"""

_TASK_COLUMNS: Final = (
    *("number", "task_id", "project_id", "dataset_id", "kind", "name", "status", "attempts", "created", "started"),
    *("ended", "error_code", "error_msg"),
)
#: A task that has not ended.
OPEN: Final = (Status.QUEUING, Status.INITIALIZING, Status.RUNNING, Status.STOPPING)
#: A task that a process works on.
AT_WORK: Final = (Status.INITIALIZING, Status.RUNNING, Status.STOPPING)


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A registered data set. data: the manifest or folder. map: prefixes of sources, as `--map` takes them."""

    dataset_id: str
    project_id: str
    name: str
    data: str
    map: tuple[str, ...]
    created: float


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task. body: the request as JSON values. number: the order of all tasks. attempts: how often it was begun."""

    number: int
    task_id: str
    project_id: str
    dataset_id: str
    kind: str
    name: str
    body: dict[str, Any]
    status: Status
    attempts: int
    created: float
    started: float | None
    ended: float | None
    error_code: str
    error_msg: str


@dataclass(frozen=True, slots=True)
class ServiceRow:
    service_id: str
    project_id: str
    dataset_id: str | None
    task_id: str | None
    config: dict[str, Any]
    created: float


def new_id() -> str:
    """An id that nobody can guess: 20 letters and digits. (The service's may hold - and _; one that begins with - would
    be a flag to the command line.)"""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(20))


class Database:
    """The file, opened; it is made when it is not there. Safe to use from several threads."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._lock = RLock()
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(home / DATABASE_NAME, check_same_thread=False, timeout=30)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"{home / DATABASE_NAME}: cannot be opened: {error}") from error

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with self._connection as connection:
                    yield connection
            except sqlite3.OperationalError as error:  # a full disk, a lock that nobody lets go
                raise OutputError(f"{self.home / DATABASE_NAME}: cannot be written: {error}") from error

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    # ---- Tokens: only their SHA-256 is kept.

    def add_token(self, project_id: str, name: str = "") -> str:
        token = secrets.token_urlsafe(32)
        with self._changing() as connection:
            values = (_digest(token), project_id, name, time.time())
            connection.execute("INSERT INTO tokens VALUES (?, ?, ?, ?)", values)
        return token

    def project_of(self, token: str) -> str | None:
        found = self._rows("SELECT project_id FROM tokens WHERE digest = ?", (_digest(token),))
        return str(found[0]["project_id"]) if found else None

    def tokens(self) -> list[tuple[str, str, str, float]]:
        """(first digits of the digest, project, name, time of making) of each."""
        rows = self._rows("SELECT * FROM tokens ORDER BY created")
        return [(row["digest"][:12], row["project_id"], row["name"], row["created"]) for row in rows]

    def remove_token(self, digits: str) -> None:
        """Raises InputError unless exactly one token's digest begins so."""
        found = [digest for digest, *_ in self.tokens() if digest.startswith(digits[:12])] if digits else []
        if len(found) != 1:
            raise InputError(f"token {digits!r}: must be the first digits of one token, got {len(found)}")
        with self._changing() as connection:
            connection.execute("DELETE FROM tokens WHERE substr(digest, 1, 12) = ?", (found[0],))

    # ---- Data sets.

    def add_dataset(self, row: DatasetRow) -> None:
        """Raises InputError when the project has one of this name."""
        values = (row.dataset_id, row.project_id, row.name, row.data, _json(list(row.map)), row.created)
        try:
            with self._changing() as connection:
                connection.execute("INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?, NULL)", values)
        except sqlite3.IntegrityError:
            raise InputError(f"data set {row.name!r}: the project {row.project_id!r} has one of this name") from None

    def datasets(self, project_id: str | None = None) -> list[DatasetRow]:
        rows = self._rows("SELECT * FROM datasets WHERE removed IS NULL ORDER BY created, dataset_id")
        return [_dataset(row) for row in rows if project_id in (None, row["project_id"])]

    def dataset(self, dataset_id: str) -> DatasetRow | None:
        found = self._rows("SELECT * FROM datasets WHERE dataset_id = ? AND removed IS NULL", (dataset_id,))
        return _dataset(found[0]) if found else None

    def remove_dataset(self, dataset_id: str) -> None:
        with self._changing() as connection:
            connection.execute("UPDATE datasets SET removed = ? WHERE dataset_id = ?", (time.time(), dataset_id))

    # ---- Tasks.

    def add_task(self, project_id: str, dataset_id: str, kind: str, name: str, body: dict[str, Any]) -> str:
        """A task at the end of the queue; gives its id."""
        task_id = new_id()
        values = (task_id, project_id, dataset_id, kind, name, _json(body), int(Status.QUEUING), time.time())
        with self._changing() as connection:
            connection.execute(
                "INSERT INTO tasks (task_id, project_id, dataset_id, kind, name, body, status, created) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
        return task_id

    def task(self, task_id: str) -> TaskRow | None:
        found = self._rows("SELECT * FROM tasks WHERE task_id = ?", (task_id,))
        return _task(found[0]) if found else None

    def stop_tasks(self, dataset_id: str) -> None:
        """The tasks of a data set that wait end; those at work shall stop, which a server that runs sees to."""
        for row in self.tasks(dataset_id, OPEN, bodies=False):
            if not self.move(row.task_id, [Status.QUEUING], Status.STOPPED, ended=time.time()):
                self.move(row.task_id, [Status.INITIALIZING, Status.RUNNING], Status.STOPPING)

    def tasks(
        self, dataset_id: str | None = None, statuses: Sequence[Status] | None = None, *, bodies: bool = True
    ) -> list[TaskRow]:
        """In the order in which they came; without `bodies`, which may be large, theirs are empty."""
        clauses, values = [], list[Any]()
        if dataset_id is not None:
            clauses.append("dataset_id = ?")
            values.append(dataset_id)
        if statuses is not None:
            clauses.append(f"status IN ({', '.join('?' * len(statuses))})")
            values += [int(status) for status in statuses]
        where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
        columns = ", ".join(_TASK_COLUMNS) + (", body" if bodies else ", '{}' AS body")
        return [_task(row) for row in self._rows(f"SELECT {columns} FROM tasks{where} ORDER BY number", values)]

    def move(self, task_id: str, before: Sequence[Status], after: Status, **fields: Any) -> bool:
        """Give a task another status, and fields besides, if its status is one of `before`; whether it was."""
        assert set(fields) <= {"attempts", "started", "ended", "error_code", "error_msg"}
        sets = ", ".join(["status = ?", *(f"{name} = ?" for name in fields)])
        marks = ", ".join("?" * len(before))
        with self._changing() as connection:
            cursor = connection.execute(
                f"UPDATE tasks SET {sets} WHERE task_id = ? AND status IN ({marks})",
                (int(after), *fields.values(), task_id, *map(int, before)),
            )
        return cursor.rowcount == 1

    # ---- Services.

    def add_service(self, row: ServiceRow) -> None:
        values = (row.service_id, row.project_id, row.dataset_id, row.task_id, _json(row.config), row.created)
        with self._changing() as connection:
            connection.execute("INSERT INTO services VALUES (?, ?, ?, ?, ?, ?)", values)

    def services(self) -> list[ServiceRow]:
        return [
            ServiceRow(
                row["service_id"],
                row["project_id"],
                row["dataset_id"],
                row["task_id"],
                orjson.loads(row["config"]),
                row["created"],
            )
            for row in self._rows("SELECT * FROM services ORDER BY created")
        ]

    def remove_service(self, service_id: str) -> bool:
        with self._changing() as connection:
            return connection.execute("DELETE FROM services WHERE service_id = ?", (service_id,)).rowcount == 1


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _dataset(row: sqlite3.Row) -> DatasetRow:
    told = tuple(orjson.loads(row["map"]))
    return DatasetRow(row["dataset_id"], row["project_id"], row["name"], row["data"], told, row["created"])


def _task(row: sqlite3.Row) -> TaskRow:
    return TaskRow(
        row["number"],
        row["task_id"],
        row["project_id"],
        row["dataset_id"],
        row["kind"],
        row["name"],
        orjson.loads(row["body"]),
        Status(row["status"]),
        row["attempts"],
        row["created"],
        row["started"],
        row["ended"],
        row["error_code"],
        row["error_msg"],
    )
