"""The intelligent-task engines of a data-labeling service, on your own machine.

    from pathlib import Path
    import engine

    samples = engine.read_samples("photos", format="images")     # else folders inside are labels
    grouping = engine.group(samples, n_clusters=8, image_brightness=True)
    engine.write_manifest(Path("photos/photos.manifest"), engine.annotate(samples, grouping))

The house, in the order of its imports (a room knows those above it, never those below):

    errors.py       the exception tree, Failure
    samples.py      Sample, Label, Drawing, Shape, the states
    predictions.py  Predictions, Predictor: what rooms hand to one another
    files.py        files written whole or not at all
    threads.py      processors that there are, threads of torch
    home.py         where this machine keeps what outlives a run
    sources.py      where a source lies on this machine
    manifest.py     JSON lines <-> samples
    voc.py          PASCAL VOC XML <-> drawings
    coco.py         COCO instances JSON <-> drawings
    outfolder.py    a folder that only its own results are written to
    folders/        folders (tree, tile, voc, yolo, coco, images) -> samples
    exports.py      samples -> folders
    dataset.py      the one door to data sets: read_samples, write_dataset
    jpeg.py         the size of a plain JPEG, from its header
    pillow.py       Pillow without its own limit of sizes
    images.py       files -> pixels, in parallel; what cannot be read is recorded
    features.py     pixels and boxes -> brightness, colorfulness, blur, ...
    store.py        bytes under a key: what a stopped run has done
    survey.py       one pass over a data set: features and thumbnails
    embeddings.py   thumbnails -> vectors of what they show
    sums.py         values -> sums by group, the same bits on any device
    kmeans.py       points -> clusters
    grouping.py     auto grouping: group, annotate
    decisions.py    what people decided about labels: jsonl and csv
    evaluation.py   how good predictions are: accuracy, calibration, ...
    label/          auto labeling of images: fast, accurate
    detect/         auto labeling of boxes: a detector, fast, accurate
    hard/           hard examples: reasons, miners, the coefficient
    annotating.py   any result -> samples that carry it
    models/         trained models on disk, ours and others', known by name
    prelabel.py     an existing model labels what is there
    report/         any result -> one HTML page
    tasks/          requests, and one runner for every task
    server/         the task API over HTTP
    cli/            the command `labelengine`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.annotating import annotate
    from engine.dataset import Dataset, read_samples, write_dataset
    from engine.detect.detecting import auto_detect
    from engine.detect.results import Detection
    from engine.errors import EngineError, Failure
    from engine.grouping import Group, Grouping, group
    from engine.hard.config import HardConfig
    from engine.hard.examples import HardExamples, hard_examples
    from engine.hard.mining import Evidence
    from engine.hard.planted import label_errors
    from engine.hard.search import find_hard_examples
    from engine.label.labeling import auto_label
    from engine.label.results import Labeling
    from engine.manifest import read_manifest, write_manifest
    from engine.models import load_any
    from engine.prelabel import pre_detect, pre_label
    from engine.samples import Drawing, Label, Sample, Shape

__all__ = [
    "Dataset",
    "Detection",
    "Drawing",
    "EngineError",
    "Evidence",
    "Failure",
    "Group",
    "Grouping",
    "HardConfig",
    "HardExamples",
    "Label",
    "Labeling",
    "Sample",
    "Shape",
    "annotate",
    "auto_detect",
    "auto_label",
    "find_hard_examples",
    "group",
    "hard_examples",
    "label_errors",
    "load_any",
    "pre_detect",
    "pre_label",
    "read_manifest",
    "read_samples",
    "write_dataset",
    "write_manifest",
]

#: Where each public name lives. They are imported when first used: `import engine` is quick and loads no torch.
_ROOMS = {
    "dataset": ("Dataset", "read_samples", "write_dataset"),
    "errors": ("EngineError", "Failure"),
    "annotating": ("annotate",),
    "detect.detecting": ("auto_detect",),
    "detect.results": ("Detection",),
    "grouping": ("Group", "Grouping", "group"),
    "hard.config": ("HardConfig",),
    "hard.examples": ("HardExamples", "hard_examples"),
    "hard.mining": ("Evidence",),
    "hard.planted": ("label_errors",),
    "hard.search": ("find_hard_examples",),
    "label.labeling": ("auto_label",),
    "label.results": ("Labeling",),
    "manifest": ("read_manifest", "write_manifest"),
    "models": ("load_any",),
    "prelabel": ("pre_detect", "pre_label"),
    "samples": ("Drawing", "Label", "Sample", "Shape"),
}


def __getattr__(name: str) -> Any:
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(f"engine.{room}"), name)
    raise AttributeError(f"module 'engine' has no attribute {name!r}")
