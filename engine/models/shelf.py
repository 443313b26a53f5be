"""Models that this machine knows by id, name and version: taken in, listed, found, given away.

    HOME/models/<model_id>/shelved.json     its name and version, when it came and from where
    HOME/models/<model_id>/model/           a copy of the model

The id is made of the content, the name and the version: the same import gives the same id on every machine. A model
appears, and goes, by a rename: never in part.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import orjson

from engine.errors import InputError, OutputError, UsageError
from engine.files import write_bytes
from engine.home import home_folder
from engine.models.documents import MODEL_NAME
from engine.models.doors import files_of, load_any, read_model_info
from engine.models.foreign.forms import EXPORTED, ONNX
from engine.models.info import ModelInfo

MODELS_FOLDER: Final = "models"
_ENTRY: Final = "shelved.json"
_MODEL: Final = "model"
_FIRST_VERSION: Final = "0.0.1"
_NAME: Final = re.compile(r"[\w][\w .+-]{0,127}")
_VERSION: Final = re.compile(r"[\w][\w.+-]{0,31}")
_LAST_NUMBER: Final = re.compile(r"(\d+)(?=\D*$)")
#: So many digits of an id are enough to mean one, where no other begins so.
_SHORT_ID: Final = 6


@dataclass(frozen=True, slots=True)
class Shelved:
    """A model that is known by name. model_id: a UUID. origin: the folder it came from. info: what it is."""

    model_id: str
    model_name: str
    model_version: str
    created: datetime
    origin: str
    info: ModelInfo

    @property
    def path(self) -> Path:
        """The folder of the model."""
        return self.info.path


class Shelf:
    """The models of a home."""

    def __init__(self, home: Path | None = None) -> None:
        self.folder = home_folder(home) / MODELS_FOLDER

    def add(self, model: Path, *, name: str | None = None, version: str | None = None) -> Shelved:
        """Take in a copy of the model in a folder; gives what it is called here.

        name: that of the folder by default (of the one around it, where it is called `model`). version: the next one
        of this name by default. The same model under the same name is taken in once.
        Raises InputError for what is no model that can be loaded, or a version that another model has; UsageError for a
        name that cannot be one.
        """
        model = model_folder(model)
        where = model.resolve()
        info = read_model_info(model)
        name = name or called(where)
        _check("name", name, _NAME)
        there = [each for each in self.all()[0] if each.model_name == name]
        for each in there:
            if each.info.id == info.id and version in (None, each.model_version):
                return each
        version = version or _next(there)
        _check("version", version, _VERSION)
        if any(each.model_version == version for each in there):
            raise InputError(f"{name} {version}: must be one model, there is another one of that name and version")
        model_id = _id_of(info.id, name, version)
        self._place(model, model_id, name, version, where, info.id)
        return self.get(model_id)

    def check_free(self, name: str | None, version: str | None) -> None:
        """Raise UsageError for what can be no name or version of a model, InputError for those that a model has."""
        if name is not None:
            _check("name", name, _NAME)
        if version is not None:
            _check("version", version, _VERSION)
        if any((each.model_name, each.model_version) == (name, version) for each in self.all()[0]):
            raise InputError(f"{name} {version}: must be one model, there is another one of that name and version")

    def all(self) -> tuple[tuple[Shelved, ...], tuple[str, ...]]:
        """Every model by name and age, and a line for each entry that cannot be used."""
        found, broken = [], []
        for entry in sorted(self.folder.glob(f"*/{_ENTRY}")) if self.folder.is_dir() else ():
            try:
                found.append(_read(entry.parent))
            except InputError as error:
                broken.append(str(error))
        return tuple(sorted(found, key=lambda each: (each.model_name, each.created))), tuple(broken)

    def get(self, model_id: str) -> Shelved:
        """The model of an id, or of its first digits. Raises InputError when there is none, or several."""
        return self._one([each for each in self.all()[0] if _is_id(each.model_id, model_id)], f"model {model_id!r}")

    def find(self, name: str, version: str | None = None) -> Shelved:
        """The model of a name: of that version, else the latest. Raises InputError when there is none."""
        named = [each for each in self.all()[0] if each.model_name == name and version in (None, each.model_version)]
        return self._one(named[-1:], f"model {name!r}" + (f" version {version!r}" if version else ""))

    def meant(self, text: str) -> Path:
        """The folder of the model that a person means: a folder, the result of auto labeling, an id, NAME or
        NAME:VERSION. Raises InputError."""
        folder = model_folder(Path(text))
        if (folder / MODEL_NAME).is_file() or os.sep in text:
            return folder
        known = self.all()[0]
        if any(_is_id(each.model_id, text) for each in known):
            return self.get(text).path
        name, _, version = text.partition(":")
        if any(each.model_name == name for each in known):
            return self.find(name, version or None).path
        names = ", ".join(dict.fromkeys(each.model_name for each in known)) or "none"
        raise InputError(
            f"model {text!r}: must be a folder with {MODEL_NAME}, or the id or NAME[:VERSION] of an imported model "
            f"(there: {names})"
        )

    def at(self, folder: Path) -> Shelved | None:
        """The imported model that lies in this folder; None where it is another's."""
        place = folder.resolve().parent
        return _read(place) if place.parent == self.folder.resolve() and (place / _ENTRY).is_file() else None

    def remove(self, model_id: str) -> Shelved:
        """Forget a model, and delete the copy. Raises InputError when there is none."""
        gone = self.get(model_id)
        try:
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".gone-") as bin_:
                os.rename(self.folder / gone.model_id, Path(bin_) / _MODEL)
        except OSError as error:
            raise OutputError(f"{self.folder / gone.model_id}: cannot be removed: {error.strerror}") from error
        return gone

    def _one(self, found: Sequence[Shelved], what: str) -> Shelved:
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"{what}: must mean one model, got {', '.join(each.model_id for each in found)}")
        raise InputError(f"{what}: there is none in {self.folder} (labelengine models list)")

    def _place(self, model: Path, model_id: str, name: str, version: str, where: Path, digest: str) -> None:
        entry = {
            "model_id": model_id,
            "model_name": name,
            "model_version": version,
            "created": datetime.now().isoformat(timespec="microseconds"),
            "origin": os.fspath(where),
            "digest": digest,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".part-") as part:
                whole = Path(part) / "whole"
                (whole / _MODEL).mkdir(parents=True)
                for file in files_of(model):
                    shutil.copyfile(model / file, whole / _MODEL / file)
                load_any(whole / _MODEL)  # what cannot be asked is not taken in
                write_bytes(whole / _ENTRY, orjson.dumps(entry, option=orjson.OPT_INDENT_2))
                try:
                    os.rename(whole, self.folder / model_id)
                except OSError:
                    if not (self.folder / model_id / _ENTRY).is_file():
                        raise  # else somebody else has just taken in the same
        except (OSError, UnicodeEncodeError) as error:
            raise OutputError(f"{self.folder}: cannot be written: {error}") from error


def model_folder(given: Path) -> Path:
    """The folder of a model that is meant by one of its files, or by the OUT that it lies in. Raises InputError for a
    graph without a model.json beside it."""
    if given.suffix in (ONNX, EXPORTED) and given.is_file():
        if not (given.parent / MODEL_NAME).is_file():
            raise InputError(
                f"{given.parent / MODEL_NAME}: must say what {given.name} takes and gives, got no such file"
            )
        return given.parent
    return given / _MODEL if (given / _MODEL / MODEL_NAME).is_file() else given


def called(folder: Path) -> str:
    """What a model is called by its folder: `signs` in signs/ and in signs/model/."""
    where = folder.resolve()
    return (where.parent.name if where.name == _MODEL else where.name) or _MODEL


def _read(folder: Path) -> Shelved:
    place = folder / _ENTRY
    try:
        entry = orjson.loads(place.read_bytes())
        told = [str(entry[key]) for key in ("model_id", "model_name", "model_version", "origin", "digest")]
        created = datetime.fromisoformat(entry["created"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place}: must be the entry of a model, cannot be read: {error}") from None
    return Shelved(told[0], told[1], told[2], created, told[3], read_model_info(folder / _MODEL, digest=told[4]))


def _id_of(digest: str, name: str, version: str) -> str:
    told = orjson.dumps([digest, name, version])
    return str(uuid.UUID(bytes=hashlib.sha256(told).digest()[:16]))


def _is_id(model_id: str, given: str) -> bool:
    return model_id == given or (len(given) >= _SHORT_ID and model_id.startswith(given))


def _next(there: Sequence[Shelved]) -> str:
    """The version after the latest: its last number one higher."""
    if not there:
        return _FIRST_VERSION
    taken = {each.model_version for each in there}
    version = there[-1].model_version
    while version in taken:
        counted = _LAST_NUMBER.sub(lambda number: str(int(number[0]) + 1), version)
        version = counted if counted != version else f"{version}.1"
    return version


def _check(what: str, given: str, form: re.Pattern[str]) -> None:
    if not form.fullmatch(given):
        raise UsageError(f"{what}: must be letters, digits, and . + - between, got {given[:80]!r}")
