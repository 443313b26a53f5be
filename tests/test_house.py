"""The house itself: imports point one way, nothing happens on import, and the map in the README is true."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from conftest import draw

import engine
from engine.dataset import read_samples

ENGINE = Path(engine.__file__).parent

#: A room knows those above it, never those below.
ORDER = (
    *(
        "errors",
        "samples",
        "predictions",
        "files",
        "threads",
        "home",
        "sources",
        "manifest",
        "voc",
        "coco",
        "outfolder",
        "jpeg",
        "pillow",
        "folders",
        "exports",
    ),
    *("dataset", "images", "features", "store", "survey", "embeddings", "sums", "kmeans", "grouping"),
    *(
        "decisions",
        "evaluation",
        "label",
        "detect",
        "hard",
        "annotating",
        "models",
        "prelabel",
        "report",
        "tasks",
        "server",
        "cli",
        "__main__",
    ),
)
TASKS = (
    "values",
    "schema",
    "parameters",
    "request",
    "runner",
    "conditions",
    "answers",
    "preparing",
    "inference",
    "further",
    "tables",
    "probabilities",
    "candidates",
    "pages",
    "hard_page",
    "labeling_page",
    "detecting_page",
    "grouping",
    "key_samples",
    "exporting",
    "labeling",
    "detecting",
    "prelabeling",
    "deploying",
    "hard",
    "features",
    "review",
    "suggesting",
    "confirming",
    "evaluating",
    "evaluating_boxes",
    "peers",
    "contenders",
    "trials",
    "simulation",
    "catalog",
)


def imported(path: Path) -> set[str]:
    """The modules of engine that a file imports, wherever it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "engine":
            found |= {f"engine.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("engine."):
            found.add(str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("engine")}
    return found


def test_imports_point_one_way() -> None:
    rooms = {path.stem for path in ENGINE.glob("*.py")} | {path.parent.name for path in ENGINE.glob("*/__init__.py")}
    assert rooms - {"__init__"} == set(ORDER)
    for room in ORDER:
        files = [ENGINE / f"{room}.py"] if (ENGINE / f"{room}.py").exists() else (ENGINE / room).rglob("*.py")
        allowed = {*ORDER[: ORDER.index(room)], room} if (ENGINE / room).is_dir() else set(ORDER[: ORDER.index(room)])
        for file in files:
            known = {name.split(".")[1] for name in imported(file)}
            assert known <= allowed, f"{file}: {sorted(known - allowed)} lie below"


def test_tasks_import_one_way_too() -> None:
    assert {path.stem for path in (ENGINE / "tasks").glob("*.py")} - {"__init__"} == set(TASKS)
    for at, name in enumerate(TASKS):
        own = {
            module.split(".")[2] for module in imported(ENGINE / "tasks" / f"{name}.py") if "engine.tasks." in module
        }
        assert own <= set(TASKS[:at]), f"{name}: {sorted(own)}"


def test_the_map_names_every_room() -> None:
    documented = engine.__doc__ or ""
    for room in ORDER[:-1]:
        assert f"    {room}.py " in documented or f"    {room}/ " in documented, room


@pytest.mark.parametrize(("file", "folder"), [("engine/__init__.py", "photos"), ("README.md", "demo/photos")])
def test_the_first_example_runs(file: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images in folders, which are no labels; the manifest beside them can be read back."""
    text, end = (ENGINE.parent / file).read_text("utf-8"), "engine.annotate(samples, grouping))\n"
    example = dedent(text[text.index("    from pathlib import Path\n") : text.index(end) + len(end)])
    for number in range(10):
        draw(tmp_path / folder / ("a", "b")[number % 2] / f"{number}.png", light=0.1 + 0.08 * number, seed=number)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    (written,) = (tmp_path / folder).glob("*.manifest")
    back = read_samples(written)
    assert len(back) == 10 and all(back.path(sample).is_file() and "group" in sample.property for sample in back)


def test_importing_engine_is_quick_and_quiet() -> None:
    code = "import sys, engine; print([m for m in ('torch', 'cv2', 'sklearn') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
    assert run.stderr == ""


def test_every_public_name_is_there() -> None:
    assert all(getattr(engine, name) is not None for name in engine.__all__)
    assert not hasattr(engine, "nothing_of_that_name")
