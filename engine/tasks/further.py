"""Where else a request wants results, below OUT: `annotation_output`, `inf_output`; and the time that labels bear.

OUT holds everything in its usual place besides (CreateTask, table 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from engine.dataset import RESULT_NAME, Dataset, settled
from engine.detect.results import Detection
from engine.errors import UsageError
from engine.exports import Tally
from engine.label.results import Labeling
from engine.manifest import write_manifest
from engine.samples import Sample
from engine.tasks.inference import INFERENCE_NAME, write_inference
from engine.tasks.runner import Run
from engine.tasks.schema import SmartTaskConfig
from engine.tasks.values import moment

#: What results call their own files and folders in OUT.
_TAKEN: Final = frozenset(
    [
        *("annotations", "boxes.csv", "candidates.npz", "export", "labels.csv", "model", "models"),
        *("probabilities.npz", "report.html", "result.manifest", "service.json", "task.json"),
    ]
)


def below_out(field: str, given: str) -> str:
    """The folder below OUT that a field names. Raises UsageError for a place elsewhere: nothing is written there."""
    folder = Path(given)
    strange = "://" in given or "\0" in given or folder.is_absolute() or not folder.parts
    if strange or any(part.startswith(".") for part in folder.parts) or folder.parts[0] in _TAKEN:
        raise UsageError(f"{field}: must be a folder below OUT, as results, that nothing else has, got {given!r}")
    return folder.as_posix()


def check_outputs(config: SmartTaskConfig) -> None:
    """Raise UsageError for an output outside OUT, before anything is read."""
    for name in ("annotation_output", "inf_output"):
        if given := getattr(config, name):
            below_out(f"config.{name}", given)


def made_at(config: SmartTaskConfig) -> datetime:
    """The creation time of labels: what `time` says, else now."""
    return moment(config.time) if config.time else datetime.now()


def write_further(
    this: Run, dataset: Dataset, written: Sequence[Sample], result: Labeling | Detection, config: SmartTaskConfig
) -> None:
    """The manifest once more, with the files of its drawings, and what the model says of each image.

    dataset: its samples carry the labels. written: the same as OUT/result.manifest has them.
    """
    if config.annotation_output:
        out = this.out.below(below_out("config.annotation_output", config.annotation_output))
        write_manifest(out.target(RESULT_NAME), list(settled(dataset, out, Tally())))
    if config.inf_output:
        out = this.out.below(below_out("config.inf_output", config.inf_output))
        write_inference(out.target(INFERENCE_NAME), written, result)
