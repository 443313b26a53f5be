"""The command as a user has it: what it prints, its exit codes, bad input, Ctrl-C and kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import draw

from engine.cli import main
from engine.dataset import read_samples
from engine.hard.reasons import OPERATOR_WEIGHTS, OPERATORS
from engine.manifest import read_manifest
from engine.tasks.contenders import ALGORITHMS

Output = pytest.CaptureFixture[str]

#: Commands with commands of their own, about what lies in the home folder.
SHELVES = ("models", "dataset", "token")


def lines(output: Output) -> tuple[list[str], list[str]]:
    captured = output.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def group(*arguments: object) -> int:
    return main(["group", *map(str, arguments)])


# ---- the commands


def test_group_tells_what_it_found_and_made(photos: Path, tmp_path: Path, capsys: Output) -> None:
    assert group(photos, "--out", tmp_path / "out", "--n-clusters", 3, "--image-brightness") == 0
    out, err = lines(capsys)
    assert out[0] == "24 images in 3 groups by brightness"
    assert [line.split()[:2] for line in out[1:4]] == [["1", "8"], ["2", "8"], ["3", "8"]]
    assert out[-1] == f"look at {tmp_path / 'out' / 'report.html'}"
    assert "read as plain images, nothing is a label (images): 24 images, no labels" in err
    assert any(line.startswith("reading images: 24 in ") for line in err)


def test_json_goes_to_stdout_alone(photos: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert group(photos, "--out", tmp_path / "out", "--n-clusters", 3, "--image-brightness", "--json") == 0
    answer = json.loads(capfdbinary.readouterr().out)
    assert answer == json.loads((tmp_path / "out" / "task.json").read_text())


def test_a_nested_folder_is_plain_images_unless_format_says_tree(tmp_path: Path, capsys: Output) -> None:
    for number in range(6):
        draw(tmp_path / "data" / ("cat", "dog")[number % 2] / f"{number}.png", light=0.3 + 0.4 * (number % 2))
    assert group(tmp_path / "data", "--out", tmp_path / "a", "--n-clusters", 2) == 0
    assert "--format tree takes the name of the last folder as label" in capsys.readouterr().err
    assert group(tmp_path / "data", "--out", tmp_path / "b", "--n-clusters", 2, "--format", "tree") == 2
    assert "n_clusters: must be at most the number of unlabeled images, got 2 for 0" in capsys.readouterr().err
    assert group(tmp_path / "data", "--out", tmp_path / "b", "--n-clusters", 2, "--format", "tree", "--all") == 0


def test_run_a_request(photos: Path, tmp_path: Path, capsys: Output) -> None:
    request = Path(__file__).parents[1] / "configs" / "requests" / "auto_grouping.json"
    assert main(["run", str(request), "--dataset", str(photos), "--out", str(tmp_path / "out")]) == 0
    assert lines(capsys)[0][0] == "24 images in 2 groups by content"
    other = request.with_name("pre_labeling.json")
    home = ["--home", str(tmp_path / "home")]
    assert main(["run", str(other), "--dataset", str(photos), "--out", str(tmp_path / "x"), *home]) == 1
    assert "model 'c4989033-7584-44ee-a180-1c476b810e46': there is none" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_features(photos: Path, tmp_path: Path, capsys: Output) -> None:
    assert main(["features", str(photos), str(photos), "--out", str(tmp_path / "out")]) == 0
    out, _ = lines(capsys)
    assert out[0].startswith("photos: 24 images; medians: resolution 1728, aspect_ratio 1.333, brightness 0.5")
    assert out[1].startswith("photos (2): 24 images")


def test_convert_there_and_back(photos: Path, tmp_path: Path, capsys: Output) -> None:
    tree, manifest = tmp_path / "tree", tmp_path / "manifest"
    group(photos, "--out", tmp_path / "out", "--n-clusters", 3, "--image-brightness")
    assert main(["label-group", str(tmp_path / "out"), "1", "--label", "dark", "--by", "anna"]) == 0
    assert main(["convert", str(tmp_path / "out"), "--out", str(tree), "--to", "tree"]) == 0
    assert sorted(path.name for path in (tree / "dark").iterdir()) == [f"light-0-{n}.png" for n in range(8)]
    capsys.readouterr()
    assert main(["convert", str(tree), "--out", str(manifest), "--to", "manifest"]) == 0
    assert capsys.readouterr().out == f"{manifest / 'tree.manifest'}: 24 samples, 8 labels\n"


def test_label_and_drop(photos: Path, tmp_path: Path, capsys: Output) -> None:
    out = tmp_path / "out"
    group(photos, "--out", out, "--n-clusters", 3, "--image-brightness")
    capsys.readouterr()
    assert main(["label-group", str(out), "2", "--label", "mid"]) == 0
    assert main(["label-group", str(out), "2", "--label", "other"]) == 0
    assert lines(capsys)[0] == [
        "group 2: 8 samples labeled mid",
        "group 2: 0 samples labeled other",
        "8 keep the label that a person gave them (--replace changes them too)",
    ]
    assert main(["drop-group", str(out), "3", "--to", str(tmp_path / "rejected")]) == 0
    assert lines(capsys)[0][1] == f"8 files moved to {tmp_path / 'rejected'}"
    assert main(["drop-group", str(out), "3"]) == 2
    capsys.readouterr()
    assert main(["drop-group", str(out), "3", "--to", str(tmp_path / "elsewhere")]) == 0
    assert lines(capsys)[0] == [f"8 files moved to {tmp_path / 'elsewhere'}"]


def help_of(command: str, capsys: Output) -> str:
    with pytest.raises(SystemExit) as exit:
        main([*command.split(), "--help"])
    assert exit.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["", "group", "label-group", "drop-group", "features", "convert", "run"])
def test_help(command: str, capsys: Output) -> None:
    text = help_of(command, capsys)
    assert f"usage: labelengine {command}".strip() in text
    assert max(map(len, text.splitlines())) <= 112
    if command == "group":
        for flag in (
            "--n-clusters",
            "--image-brightness",
            "--image-colorfulness",
            "--ambiguity",
            "--property",
            "--seed",
        ):
            assert flag in text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("group", ("1 the samples' attribute (1)", "gets the group (group)")),
        ("label", ("ones too (accurate)", "1 to 10 (fast)", "label needs (5)", "an image is hard; left out: 0.1 ")),
        ("label", ("--min-per-class N", "--batch-size N", "--key-sample-output DIR", "copied to (key_samples)")),
        ("label", (f"name:weight+..., of {', '.join(OPERATORS)}; left out: {', '.join(OPERATOR_WEIGHTS)}",)),
        ("prelabel", ("what the model must label: 0 images, 1 boxes", "are given; left out: the model's own")),
        ("hard", ("a sample is hard; left out: 0.1, with --labeled 0.5", "needs (with --labeled); left out: 5")),
        ("hard", ("budget of the training (with --labeled);", "as task.json has them (with --labeled)")),
        ("simulate", tuple(ALGORITHMS)),
        ("search", ("--time-in-video TIME",)),
        ("serve", ("pip install '.[server]' in the folder of labelengine",)),
        ("deploy", ("pip install '.[server]' in the folder of labelengine",)),
        ("models import", ("pip install '.[onnx]' in the folder of labelengine",)),
        *((command, (f"usage: labelengine {command} [-h] [--home DIR] COMMAND ... ",)) for command in SHELVES),
        *((command, ("keeps models, data sets, tasks and tokens ($LABELENGINE_HOME",)) for command in SHELVES),
    ],
)
def test_help_says_what_holds_for_this_command(command: str, words: tuple[str, ...], capsys: Output) -> None:
    text = " ".join(help_of(command, capsys).split())
    for each in words:
        assert each in text


@pytest.mark.parametrize("arguments", [["models"], ["models", "list"], ["dataset"], ["token"]])
def test_the_home_folder_may_be_named_before_and_after(arguments: list[str], tmp_path: Path, capsys: Output) -> None:
    """What the command was given holds for what it is about, unless that was given another."""
    home, other = tmp_path / "home", tmp_path / "other"
    draw(tmp_path / "data" / "a.png")
    assert main(["dataset", "--home", str(home), "add", "pets", str(tmp_path / "data")]) == 0
    assert main(["token", "--home", str(other), "add", "--home", str(home)]) == 0
    assert home.is_dir() and not other.exists()
    capsys.readouterr()
    command, *further = arguments
    assert main([command, "--home", str(home), *further]) == 0
    out, err = lines(capsys)
    if command == "models":
        assert (out, err) == ([], [f"no model in {home / 'models'} (labelengine models import adds one)"])
    else:
        assert len(out) == 1 and err == []


# ---- bad input: one clear line, the right exit code, nothing lost


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--n-clusters", "1"], "error: --n-clusters: must be 2..200, got 1"),
        (["--n-clusters", "201"], "error: --n-clusters: must be 2..200, got 201"),
        (["--n-clusters", "x"], "error: --n-clusters: must be an integer 2..200, got 'x'"),
        (["--seed", "-1"], "error: --seed: must be 0..4294967295, got -1"),
        (["--device", "tpu"], "error: --device: must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        (["--map", "nothing"], "error: --map: must be SCHEME://PREFIX=FOLDER, got 'nothing'"),
    ],
)
def test_wrong_options(photos: Path, tmp_path: Path, capsys: Output, arguments: list[str], line: str) -> None:
    assert group(photos, "--out", tmp_path / "out", *arguments) == 2
    assert lines(capsys)[1][-1] == line
    assert not (tmp_path / "out").exists()


def test_more_groups_than_images(photos: Path, tmp_path: Path, capsys: Output) -> None:
    assert group(photos, "--out", tmp_path / "out", "--n-clusters", 25) == 2
    assert lines(capsys)[1][-1] == "error: n_clusters: must be at most the number of unlabeled images, got 25 for 24"
    assert group(photos, "--out", tmp_path / "out", "--n-clusters", 24) == 0, "a failed run does not block its folder"


def test_data_that_is_not_there(tmp_path: Path, capsys: Output) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("hello")
    for data, told in (
        (tmp_path / "nothing", "no such file"),
        (empty, "an empty folder"),
        (tmp_path / "texts", ".txt"),
    ):
        assert group(data, "--out", tmp_path / "out") == 1
        last = lines(capsys)[1][-1]
        assert last.startswith(f"error: {data}: must ")
        assert told in last
        assert not (tmp_path / "out").exists()


def test_every_image_broken(tmp_path: Path, capsys: Output) -> None:
    for number in range(4):
        path = tmp_path / "data" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"" if number else b"no image")
    assert group(tmp_path / "data", "--out", tmp_path / "out", "--n-clusters", 2) == 2
    assert lines(capsys)[1][-1].endswith("must be at most the number of images that can be read, got 2 for 0")
    assert json.loads((tmp_path / "out" / "task.json").read_text())["status"] == 2


def test_one_broken_among_many(photos: Path, tmp_path: Path, capsys: Output) -> None:
    (photos / "cut.png").write_bytes((photos / "light-0-0.png").read_bytes()[:400])
    assert group(photos, "--out", tmp_path / "out", "--n-clusters", 3, "--image-brightness") == 0
    out, err = lines(capsys)
    assert out[0] == "24 images in 3 groups by brightness"
    assert any(line.startswith("could not use 'cut.png': ") for line in err)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{not json}", "data.manifest:2: "),
        (b'{"source": "\xff"}', "data.manifest:2: "),
        (b'{"usage": "TRAIN"}', "data.manifest:2: "),
        (b'{"source": "a.png", "annotation": 5}', "data.manifest:2: "),
    ],
)
def test_a_bad_line_of_a_manifest(photos: Path, tmp_path: Path, capsys: Output, line: bytes, told: str) -> None:
    manifest = photos / "data.manifest"
    manifest.write_bytes(b'{"source": "light-0-0.png"}\n' + line + b"\n")
    assert group(manifest, "--out", tmp_path / "out") == 1
    assert told in lines(capsys)[1][-1]
    assert not (tmp_path / "out").exists()


def test_a_manifest_of_odd_samples(photos: Path, tmp_path: Path, capsys: Output) -> None:
    names = ["with space.png", "with 'quotes\".png", "straße.png", "new\nline.png"]
    for number, name in enumerate(names):
        draw(photos / name, light=0.2, seed=100 + number)
    records = [{"source": path.name} for path in sorted(photos.iterdir())]
    records += [
        {"source": "../photos/light-0-0.png"},
        {"source": "light-0-0.png", "id": "same"},
        {"source": "light-0-0.png", "id": "same"},
        {"source": "../photos"},
        {"source": "s3://bucket/a.png"},
        {"source": "content://hello", "sample-type": 1},
        {"source": "light-1-0.png", "note": "x" * 10_000_000},
    ]
    manifest = photos / "data.manifest"
    manifest.write_text("".join(json.dumps(record) + "\n" for record in records))
    options = ["--n-clusters", 3, "--image-brightness", "--result-type", 0]
    assert group(manifest, "--out", tmp_path / "out", *options) == 0
    out, err = lines(capsys)
    assert out[0] == "32 images in 3 groups by brightness"
    assert sum(line.startswith("could not use ") for line in err) == 2
    after = list(read_manifest(tmp_path / "out" / "result.manifest"))
    assert len(after) == len(records)
    assert len(after[-1].extra["note"]) == 10_000_000
    placed = [path for path in (tmp_path / "out" / "groups").rglob("*") if path.is_file()]
    assert len(placed) == 32 + 3


def test_a_label_cannot_lead_out_of_a_tree(photos: Path, tmp_path: Path) -> None:
    for label in ("..", "../../escaped", "/etc", "a/b"):
        record = {
            "source": "light-0-0.png",
            "annotation": [{"type": "modelarts/image_classification", "name": label}],
        }
        with (photos / "data.manifest").open("a") as file:
            file.write(json.dumps(record) + "\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    out = tmp_path / "tree"
    assert main(["convert", str(photos / "data.manifest"), "--out", str(out), "--to", "tree"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "tree"])
    assert len(list(out.rglob("*.png"))) == 4
    names = sorted(sample.labels[0].name or "" for sample in read_samples(out))
    assert names == sorted(["..", "../../escaped", "/etc", "a/b"])


def test_an_output_that_cannot_be_written(photos: Path, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nothing"):
        assert group(photos, "--out", out, "--n-clusters", 2, "--image-brightness") == 1
        assert lines(capsys)[1][-1].startswith(f"error: {out}")


def test_a_disk_that_is_full(photos: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert group(photos, "--out", tmp_path / "out", "--n-clusters", 2, "--image-brightness") == 1
    assert lines(capsys)[1][-1].endswith("task.json: cannot be written: No space left on device")


def test_a_loop_of_links(photos: Path, tmp_path: Path, capsys: Output) -> None:
    (photos / "loop").symlink_to(photos, target_is_directory=True)
    (photos / "self.png").symlink_to(photos / "self.png")
    assert group(photos, "--out", tmp_path / "out", "--n-clusters", 3, "--image-brightness") == 0
    assert lines(capsys)[0][0] == "24 images in 3 groups by brightness"


def test_a_result_is_not_overwritten_unasked(photos: Path, tmp_path: Path, capsys: Output) -> None:
    options = ["--out", tmp_path / "out", "--n-clusters", 3, "--image-brightness"]
    assert group(photos, *options) == 0
    assert group(photos, *options) == 1
    assert "must be new or empty" in lines(capsys)[1][-1]
    assert group(photos, *options, "--overwrite") == 0
    assert group(photos, *options, "--resume") == 0


# ---- interrupted


def test_a_reader_that_goes_away_is_no_success(photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine", "group", str(photos), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert not (tmp_path / "out" / "result.manifest").exists()


def started(photos: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """A run of many images by one thread, in a process of its own, that has begun to read them."""
    command = [sys.executable, "-m", "engine", "group", str(photos), "--out", str(out), "--threads", "1", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    store = out / ".labelengine-cache"
    for _ in range(3000):
        if process.poll() is not None or any(path.stat().st_size > 0 for path in store.glob("*.store")):
            break
        time.sleep(0.005)
    assert process.poll() is None, process.stderr and process.stderr.read()
    return process


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for number in range(400):
        draw(folder / f"{number:03}.png", light=0.2 + 0.2 * (number % 4), seed=number, size=(900, 660))
    return folder


def test_ctrl_c_stops_cleanly_and_resume_goes_on(many: Path, tmp_path: Path, capsys: Output) -> None:
    out, options = tmp_path / "out", ["--n-clusters", "4", "--image-brightness"]
    process = started(many, out, *options)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].endswith("; --resume goes on")
    assert json.loads((out / "task.json").read_text())["status"] == 5
    assert group(many, "--out", out, *options) == 1
    assert "--resume goes on with it" in lines(capsys)[1][-1]
    assert group(many, "--out", out, *options, "--resume") == 0
    assert "images were known already" in capsys.readouterr().err
    assert group(many, "--out", tmp_path / "whole", *options) == 0
    for name in ("features.parquet", "report.html"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_kill_9_and_resume(many: Path, tmp_path: Path, capsys: Output) -> None:
    out, options = tmp_path / "out", ["--n-clusters", "4", "--image-brightness"]
    process = started(many, out, *options)
    process.kill()
    process.communicate(timeout=60)
    assert json.loads((out / "task.json").read_text())["status"] == 1
    assert group(many, "--out", out, *options, "--resume") == 0
    captured, err = lines(capsys)
    assert captured[0] == "400 images in 4 groups by brightness"
    assert any(line.endswith("images were known already") for line in err)
    assert not (out / ".labelengine-cache").exists()
