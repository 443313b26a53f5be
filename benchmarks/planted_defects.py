"""A defect for each reason: is it found, and are images without one left alone?

    python benchmarks/planted_defects.py --tree signs=FOLDER [--foreign FOLDER] [--boxes FOLDER]
        [--images 400] [--each 40] [--minutes 3]

Images: of each tree (one folder a class) so many are drawn, half of them labeled by people, half in question with their
true labels and confidences as those of a good model; beside these, for each defect, copies with it. --foreign: a folder
with images of something else. Boxes: --boxes is a folder with VOC annotations, treated likewise. Hard examples are
looked for with all miners that run without a model, and a threshold of 0, so that every image has its reasons. With
--minutes once more, with networks that so long learned from the labeled half (`fast`), and are asked.
Clips: images of the tree as frames 1 to 8 of a clip that moves and flickers a little, half of them labeled by people;
in some of the others one frame has another label than those beside it. One box: on each image of the tree a box around
the middle, where its object is; defects are of this box and of what is inside it.

Printed for each defect: its reason, the part of the images with it that have the reason among their first three, the
part of those without that have it among theirs, the part of those with it that have the reason anywhere, and where
CleanVision has the issue, what it finds of images with and without it.

Recorded, 2 cores, --tree signs=FOLDER --foreign CIFAR10 --boxes BCCD; a wrong label that nothing but content vectors
speaks against is found less often, for the threshold is what one in a hundred true ones reaches:

    signs, defective, 200 labeled, 200 without a defect
    defect             reasons   found  alarms   given   CleanVision
    darkened                 7  100.0%    0.5%  100.0%   100.0%   0.0%  dark
    bleached                 7  100.0%    0.5%  100.0%     0.0%   0.0%  light
    grey                   8/9  100.0%    0.0%  100.0%     0.0%   0.0%  grayscale
    vivid                  8/9  100.0%    0.0%  100.0%
    blurred                 10  100.0%    1.5%  100.0%     5.0%   0.0%  blurry
    stretched                6  100.0%    0.0%  100.0%   100.0%   0.0%  odd_aspect_ratio
    tiny                     5  100.0%    0.0%  100.0%   100.0%   0.0%  odd_size
    another label          2/3   57.5%    0.5%   57.5%
    not sure                 1  100.0%    0.0%  100.0%
    foreign                 30   52.5%    0.5%  100.0%
    signs, defective, by networks (--minutes 3, an earlier version): all as above but for
    grey, vivid            8/9  100.0%    1.0%
    blurred                 10  100.0%    3.0%
    another label          2/3  100.0%    0.5%
    foreign                 30   72.5%    4.0%
    signs, clips, 480 labeled, 440 without a defect
    odd frame                4  100.0%    3.6%  100.0%
    signs, one box, 200 labeled, 200 without a defect
    edge box                15  100.0%    1.0%  100.0%
    dark box                16  100.0%    1.0%  100.0%
    blurred box             17  100.0%    2.5%  100.0%
    stacked boxes        18/11  100.0%    0.0%  100.0%
    boxes, 182 labeled, 54 without a defect
    no box                0/11  100.0%    0.0%  100.0%
    many boxes           11/18  100.0%    0.0%  100.0%
    flat box                13  100.0%    1.9%  100.0%
    huge box          14/12/18  100.0%    0.0%  100.0%
    tiny box                14   83.3%    0.0%  100.0%
    another name           2/3  100.0%    3.7%  100.0%
    not sure                 1  100.0%    0.0%  100.0%

Foreign images are smaller, more colorful and blurred, too, which are their first reasons then. Three of the
18 tiny boxes, two of white cells, which are of many sizes, are abnormal, unclear and unlike (30, 17, 3) before small.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.dataset import Dataset, read_samples
from engine.hard.asking import Said
from engine.hard.config import HardConfig
from engine.hard.examples import HardExamples
from engine.hard.search import find_hard_examples
from engine.images import read_picture
from engine.label.labeling import auto_label
from engine.samples import IMAGE_CLASSIFICATION, OBJECT_DETECTION, Drawing, Label, Sample, Shape
from engine.sources import Sources

MACHINE = "modelarts/auto"
Pixels = np.ndarray


# ---- Defects of images: pixels RGB uint8 in and out.


def darkened(rgb: Pixels) -> Pixels:
    return (rgb * 0.25).astype(np.uint8)


def bleached(rgb: Pixels) -> Pixels:
    return (255 - (255 - rgb.astype(np.float32)) * 0.25).astype(np.uint8)


def grey(rgb: Pixels) -> Pixels:
    return np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)


def vivid(rgb: Pixels) -> Pixels:
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[:, :, 1] = (hsv[:, :, 1] * 2.5 + 60).clip(0, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)


def blurred(rgb: Pixels) -> Pixels:
    return cv2.GaussianBlur(rgb, (0, 0), 0.04 * min(rgb.shape[:2]))


def stretched(rgb: Pixels) -> Pixels:
    return cv2.resize(rgb, (3 * rgb.shape[1], rgb.shape[0]))


def tiny(rgb: Pixels) -> Pixels:
    return cv2.resize(rgb, (16, 16), interpolation=cv2.INTER_AREA)


#: The defect, its reasons (any of them counts), and the issue that CleanVision calls it.
OF_IMAGES: dict[str, tuple[Callable[[Pixels], Pixels] | None, tuple[int, ...], str | None]] = {
    "darkened": (darkened, (7,), "dark"),
    "bleached": (bleached, (7,), "light"),
    "grey": (grey, (8, 9), "grayscale"),
    "vivid": (vivid, (8, 9), None),
    "blurred": (blurred, (10,), "blurry"),
    "stretched": (stretched, (6,), "odd_aspect_ratio"),
    "tiny": (tiny, (5,), "odd_size"),
    "another label": (None, (2, 3), None),
    "not sure": (None, (1,), None),
}


def label(name: str, sure: float | None) -> tuple[Label, ...]:
    by = None if sure is None else MACHINE
    return (Label(type=IMAGE_CLASSIFICATION, name=name, annotated_by=by, confidence=sure),)


def defective(dataset: Dataset, folder: Path, options: argparse.Namespace) -> tuple[Dataset, np.ndarray]:
    """The drawn images under random names, and the defect of each ("" without, "people" for the labeled ones)."""
    chance = np.random.default_rng(0)
    order = chance.permutation(len(dataset))
    names = sorted({str(sample.labels[0].name) for sample in dataset})
    samples, kinds = [], []

    def add(rgb: Pixels, name: str, sure: float | None, kind: str) -> None:
        path = folder / f"{chance.integers(10**12):012}-x.png"
        cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        samples.append(Sample(path.name, label(name, sure)))
        kinds.append(kind)

    drawn = [
        (read_picture(dataset.path(dataset[at])).rgb, str(dataset[at].labels[0].name)) for at in order[: options.images]
    ]
    for number, (rgb, name) in enumerate(drawn):
        people = number < options.images // 2
        add(rgb, name, None if people else float(chance.beta(30, 1)), "people" if people else "")
    rest = order[options.images :]
    for number, (kind, (change, *_)) in enumerate(OF_IMAGES.items()):
        for at in rest[number * options.each : (number + 1) * options.each]:
            rgb, name = read_picture(dataset.path(dataset[at])).rgb, str(dataset[at].labels[0].name)
            other = names[(names.index(name) + int(chance.integers(1, len(names)))) % len(names)]
            sure = 0.4 if kind == "not sure" else float(chance.beta(30, 1))
            add(change(rgb) if change else rgb, other if kind == "another label" else name, sure, kind)
    foreign = sorted(Path(options.foreign).rglob("*.*g"))[:: max(1, options.step)] if options.foreign else []
    for path in foreign[: options.each]:
        add(read_picture(path).rgb, names[0], float(chance.beta(30, 1)), "foreign")
    return Dataset(tuple(samples), Sources(folder)), np.array(kinds)


def issues(folder: Path, dataset: Dataset) -> dict[str, np.ndarray]:
    """CleanVision: by issue (n,) bool."""
    try:
        from cleanvision import Imagelab
    except ImportError:
        return {}
    lab = Imagelab(data_path=str(folder))
    lab.find_issues({name: {} for *_, name in OF_IMAGES.values() if name}, verbose=False)
    rows = [str(folder / sample.source) for sample in dataset]
    columns = (column for column in lab.issues if column.startswith("is_"))
    return {name[3:-6]: lab.issues.loc[rows, name].to_numpy(bool) for name in columns}


# ---- Defects of boxes.


def moved(shapes: tuple[Shape, ...], kind: str, width: int, height: int, names: list[str]) -> tuple[Shape, ...]:
    first, rest = shapes[0], shapes[1:]
    x1, y1, *_ = first.xyxy
    if kind == "no box":
        return ()
    if kind == "many boxes":
        return tuple(
            replace(each, points=tuple((x + 2 * at, y + at) for x, y in each.points))
            for each in shapes
            for at in range(4)
        )
    if kind == "flat box":
        return (replace(first, points=((x1, y1), (x1 + 0.6 * width, y1 + 8))), *rest)
    if kind == "huge box":
        return (replace(first, points=((2, 2), (width - 2, height - 2))), *rest)
    if kind == "tiny box":
        return (replace(first, points=((x1, y1), (x1 + 5, y1 + 5))), *rest)
    if kind == "another name":
        return (replace(first, name=names[(names.index(first.name) + 1) % len(names)]), *rest)
    if kind == "not sure":
        return (replace(first, confidence=0.2), *rest)
    return shapes


OF_BOXES = {
    "no box": (0, 11),
    "many boxes": (11, 18),
    "flat box": (13,),
    "huge box": (14, 12, 18),
    "tiny box": (14,),
    "another name": (2, 3),
    "not sure": (1,),
}


# ---- Frames, and a box in the middle.

FRAMES = 8
OF_CLIPS = {"odd frame": (4,)}


def clips(dataset: Dataset, folder: Path, options: argparse.Namespace) -> tuple[Dataset, np.ndarray]:
    """Frames of clips in order, half of the clips labeled by people; the kind of each frame as for `defective`."""
    chance = np.random.default_rng(1)
    names = sorted({str(sample.labels[0].name) for sample in dataset})
    samples, kinds = [], []
    count = 3 * options.each
    for number, at in enumerate(chance.permutation(len(dataset))[:count].tolist()):
        rgb, name = read_picture(dataset.path(dataset[at])).rgb, str(dataset[at].labels[0].name)
        odd = int(chance.integers(1, FRAMES - 1)) if number < options.each else -1
        people = number >= 3 * options.each // 2
        other = names[(names.index(name) + int(chance.integers(1, len(names)))) % len(names)]
        for frame in range(FRAMES):
            light = 1 + 0.04 * chance.standard_normal()
            seen = np.roll(rgb, frame * max(1, rgb.shape[1] // 100), axis=1)
            path = folder / f"clip{number:03}_frame_{frame:04}.png"
            cv2.imwrite(str(path), cv2.cvtColor((seen * light).clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2BGR))
            sure = None if people else float(chance.beta(30, 1))
            samples.append(Sample(path.name, label(other if frame == odd else name, sure)))
            kinds.append("people" if people else "odd frame" if frame == odd else "")
    return Dataset(tuple(samples), Sources(folder)), np.array(kinds)


OF_ONE_BOX = {"edge box": (15,), "dark box": (16,), "blurred box": (17,), "stacked boxes": (18, 11)}


def one_box(dataset: Dataset, folder: Path, options: argparse.Namespace) -> tuple[Dataset, np.ndarray]:
    """Images with a box around their middle, and the kind of each as for `defective`."""
    chance = np.random.default_rng(2)
    samples, kinds = [], []
    planted = [kind for kind in OF_ONE_BOX for _ in range(options.each)]
    wanted = ["people"] * (options.images // 2) + [""] * (options.images // 2) + planted
    for kind, at in zip(wanted, chance.permutation(len(dataset)).tolist(), strict=False):
        rgb = read_picture(dataset.path(dataset[at])).rgb.copy()
        height, width = rgb.shape[:2]
        w, h = (0.5 + 0.06 * chance.standard_normal(2)).clip(0.3, 0.7) * (width, height)
        x, y = (0.5 + 0.04 * chance.standard_normal(2)) * (width, height) - (w / 2, h / 2)
        if kind == "edge box":
            x, y = chance.choice([0, width - w]), chance.choice([0, height - h])
        x, y = max(0.0, x), max(0.0, y)
        inside = np.s_[int(y) : int(y + h), int(x) : int(x + w)]
        if kind == "dark box":
            rgb[inside] = darkened(rgb[inside])
        elif kind == "blurred box":
            rgb[inside] = blurred(rgb[inside])
        stacked = 4 if kind == "stacked boxes" else 1
        by, sure = (None, None) if kind == "people" else (MACHINE, 0.97)
        corners = [((x + step, y + step), (x + step + w, y + step + h)) for step in range(stacked)]
        shapes = [Shape("hand", "bndbox", points, confidence=sure) for points in corners]
        path = folder / f"{chance.integers(10**12):012}-x.png"
        cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        drawn = Drawing(tuple(shapes), (width, height, 3))
        samples.append(Sample(path.name, (Label(OBJECT_DETECTION, annotated_by=by, drawing=drawn),)))
        kinds.append(kind)
    return Dataset(tuple(samples), Sources(folder)), np.array(kinds)


def defective_boxes(dataset: Dataset, options: argparse.Namespace) -> tuple[Dataset, np.ndarray]:
    chance = np.random.default_rng(0)
    with_boxes = [sample for sample in dataset if sample.boxes]
    names = sorted({shape.name for sample in with_boxes for shape in sample.boxes})
    order, samples, kinds = chance.permutation(len(with_boxes)), [], []
    people = len(order) // 2
    parts = np.array_split(np.arange(people, len(order)), len(OF_BOXES) + 3)
    kind_of = dict.fromkeys(range(people, len(order)), "")
    for kind, part in zip(OF_BOXES, parts, strict=False):
        kind_of |= dict.fromkeys(part.tolist(), kind)
    for number, at in enumerate(order.tolist()):
        sample = with_boxes[at]
        kind = kind_of.get(number, "people")
        made = []
        for each in sample.labels:
            assert each.drawing is not None
            shapes = tuple(replace(shape, confidence=float(chance.beta(30, 1))) for shape in each.drawing.shapes)
            if kind != "people":
                width, height = each.drawing.size[:2] if each.drawing.size else (640, 480)
                shapes = moved(shapes, kind, width, height, names)
                drawing = Drawing(shapes, each.drawing.size)
                each = replace(each, annotated_by=MACHINE, drawing=drawing)
            made.append(each)
        samples.append(replace(sample, labels=tuple(made)))
        kinds.append(kind)
    return dataset.with_samples(samples), np.array(kinds)


def passed(found: HardExamples, row: int) -> list[int]:
    """The reasons of a sample without the one that a hard sample gets where none is far from the usual."""
    return [number for number in found.reasons[row] if found.scores[number][row] > found.far[number]]


def taught(dataset: Dataset, minutes: float) -> dict[str, Any]:
    """Networks that learned from what people labeled, and what they say, as `find_hard_examples` takes them."""
    labeling = auto_label(dataset, "fast", minutes=minutes, min_per_class=2)
    sources = [sample.source for sample in dataset]
    return {
        "model": labeling.classifier,
        "said": Said(sources, labeling.labels, labeling.probabilities, labeling.judges),
    }


def table(
    title: str,
    dataset: Dataset,
    kinds: np.ndarray,
    reasons_of: dict[str, tuple[int, ...]],
    peers: dict[str, np.ndarray],
    model: dict[str, Any] | None = None,
) -> None:
    print(f"\n{title}, {int((kinds == 'people').sum())} labeled, {int((kinds == '').sum())} without a defect")
    found = find_hard_examples(dataset, config=HardConfig(threshold=0.0), **model or {})
    print(f"{'defect':16}{'reasons':>10}{'found':>8}{'alarms':>8}{'given':>8}   CleanVision")
    clean = kinds == ""
    for kind, wanted in reasons_of.items():
        if not (kinds == kind).any():
            continue
        told = [passed(found, row) for row in range(len(found))]
        has = np.array([bool(set(reasons[:3]) & set(wanted)) for reasons in told])
        given = np.array([bool(set(reasons) & set(wanted)) for reasons in told])
        recall, alarms = 100 * has[kinds == kind].mean(), 100 * has[clean].mean()
        line = f"{kind:16}{'/'.join(map(str, wanted)):>10}{recall:7.1f}%{alarms:7.1f}%"
        line += f"{100 * given[kinds == kind].mean():7.1f}%"
        issue = OF_IMAGES.get(kind, (None, (), None))[2]
        if issue in peers:
            line += (
                f"   {100 * peers[issue][kinds == kind].mean():5.1f}% {100 * peers[issue][clean].mean():5.1f}%  {issue}"
            )
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", action="append", default=[], metavar="NAME=FOLDER", help="one folder a class")
    parser.add_argument("--foreign", metavar="FOLDER", help="images of something else")
    parser.add_argument("--boxes", metavar="FOLDER", help="images with VOC annotations")
    parser.add_argument("--images", type=int, default=400, help="without a defect")
    parser.add_argument("--each", type=int, default=40, help="images with each defect")
    parser.add_argument("--step", type=int, default=97, help="every so many of the foreign images")
    parser.add_argument("--minutes", type=float, help="once more with networks that are trained so long")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        for name, _, path in (entry.partition("=") for entry in options.tree):
            given = read_samples(path, format="tree")
            of_images = {kind: wanted for kind, (_, wanted, _) in OF_IMAGES.items()} | {"foreign": (30,)}
            for made, wanted in ((defective, of_images), (clips, OF_CLIPS), (one_box, OF_ONE_BOX)):
                folder = Path(temporary) / f"{name}-{made.__name__}"
                folder.mkdir()
                dataset, kinds = made(given, folder, options)
                title = f"{name}, {made.__name__.replace('_', ' ')}"
                table(title, dataset, kinds, wanted, issues(folder, dataset) if made is defective else {})
                if options.minutes and made is defective:
                    theirs = {kind: reasons for kind, reasons in wanted.items() if kind != "not sure"}
                    table(f"{title}, by networks", dataset, kinds, theirs, {}, taught(dataset, options.minutes))
        if options.boxes:
            dataset, kinds = defective_boxes(read_samples(options.boxes), options)
            table("boxes", dataset, kinds, dict(OF_BOXES), {})


if __name__ == "__main__":
    main()
