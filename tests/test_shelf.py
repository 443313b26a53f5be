"""Models by name: what is taken in is found again, whole, under one name and version; what is gone is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from foreign_models import bright_detector, onnx_colors

from engine.cli import main
from engine.errors import InputError, OutputError, UsageError
from engine.home import home_folder
from engine.models import Shelf, load_any


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "home")


def test_a_model_is_found_by_id_name_and_version(tmp_path: Path, shelf: Shelf) -> None:
    source = onnx_colors(tmp_path / "colors")
    first = shelf.add(source)
    assert (first.model_name, first.model_version) == ("colors", "0.0.1")
    second = shelf.add(source)
    assert second == first  # the same model under the same name is one
    other = shelf.add(bright_detector(tmp_path / "lamps"), name="colors")
    assert (other.model_name, other.model_version) == ("colors", "0.0.2")
    assert [each.model_version for each in shelf.all()[0]] == ["0.0.1", "0.0.2"]
    assert shelf.find("colors") == other and shelf.find("colors", "0.0.1") == first
    assert shelf.get(first.model_id) == shelf.get(first.model_id[:8]) == first
    for text in ("colors:0.0.1", first.model_id, first.model_id[:6]):
        assert shelf.meant(text) == first.path
    assert shelf.meant("colors") == other.path and shelf.meant(str(source)) == source
    assert shelf.at(first.path) == first and shelf.at(source) is None
    shutil.rmtree(source)
    assert load_any(first.path).labels == ("red", "green", "blue")


def test_the_id_is_that_of_content_name_and_version(tmp_path: Path, shelf: Shelf) -> None:
    source = onnx_colors(tmp_path / "colors")
    ids = [shelf.add(source, version="1").model_id, shelf.add(source, version="2").model_id]
    assert ids[0] != ids[1]
    assert Shelf(tmp_path / "elsewhere").add(source, version="1").model_id == ids[0]


def test_versions_count_on(tmp_path: Path, shelf: Shelf) -> None:
    for given, expected in [("2.9", "2.9"), (None, "2.10"), ("beta", "beta"), (None, "beta.1")]:
        source = onnx_colors(tmp_path / "m", batch=len(shelf.all()[0]) + 1)
        assert shelf.add(source, name="colors", version=given).model_version == expected


def test_what_is_refused(tmp_path: Path, shelf: Shelf) -> None:
    source = onnx_colors(tmp_path / "colors")
    shelf.add(source, version="1.0")
    with pytest.raises(InputError, match=r"colors 1\.0: must be one model"):
        shelf.add(onnx_colors(tmp_path / "other", batch=2), name="colors", version="1.0")
    for name in ("../up", "a/b", "a:b", " a", "\n", "a" * 200):
        with pytest.raises(UsageError, match="name: must be letters"):
            shelf.add(source, name=name)
    with pytest.raises(UsageError, match="version: must be letters"):
        shelf.add(source, name="x", version="1/2")
    with pytest.raises(InputError, match="there is none"):
        shelf.get("00000000-0000-0000-0000-000000000000")
    with pytest.raises(InputError, match="there is none"):
        shelf.find("colors", "9")
    with pytest.raises(InputError, match=r"'nothing': must be a folder with model.json.*there: colors"):
        shelf.meant("nothing")
    (source / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="cannot be read"):
        shelf.add(source, name="broken")
    assert len(shelf.all()[0]) == 1 and not list(shelf.folder.glob(".*"))


def test_a_model_goes_and_its_origin_stays(tmp_path: Path, shelf: Shelf) -> None:
    source = onnx_colors(tmp_path / "colors")
    taken = shelf.add(source)
    assert shelf.remove(taken.model_id) == taken
    assert shelf.all() == ((), ()) and not list(shelf.folder.iterdir())
    assert (source / "model.onnx").is_file()
    with pytest.raises(InputError):
        shelf.remove(taken.model_id)


def test_an_entry_that_is_broken_hides_no_other(tmp_path: Path, shelf: Shelf) -> None:
    good = shelf.add(onnx_colors(tmp_path / "colors"))
    bad = shelf.add(onnx_colors(tmp_path / "worse", batch=2))
    (shelf.folder / bad.model_id / "shelved.json").write_text("{")
    assert shelf.all()[0] == (good,) and "shelved.json: must be the entry of a model" in shelf.all()[1][0]


def test_a_disk_that_takes_nothing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        Shelf(tmp_path / "home").add(onnx_colors(tmp_path / "colors"))


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELENGINE_HOME", str(tmp_path))
    assert home_folder() == tmp_path and home_folder(Path("x")) == Path("x")
    monkeypatch.delenv("LABELENGINE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    assert home_folder() == tmp_path / "user" / ".labelengine"


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path / "home")]
    onnx_colors(tmp_path / "colors")
    assert main(["models", "list", *home]) == 0 and "models import adds one" in capsys.readouterr().err
    assert main(["models", "import", str(tmp_path / "colors" / "model.onnx"), "--version", "1.5", *home]) == 0
    name, model_id = capsys.readouterr().out.split()
    assert name == "colors:1.5"
    assert main(["models", "list", *home]) == 0
    assert f"{name}  {model_id}  image_classification, 3 labels" in capsys.readouterr().out
    assert main(["models", "show", "colors", *home]) == 0
    assert "networks     none of ours" in capsys.readouterr().out
    assert main(["models", "remove", "colors:1.5", *home]) == 0 and "is gone" in capsys.readouterr().out
    assert main(["models", "remove", "colors:1.5", *home]) == 1 and "there is none" in capsys.readouterr().err
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "x.pt2").write_bytes(b"")
    assert main(["models", "import", str(tmp_path / "bare" / "x.pt2"), *home]) == 1
    assert "must say what x.pt2 takes and gives" in capsys.readouterr().err
