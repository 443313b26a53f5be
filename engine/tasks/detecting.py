"""Auto labeling of boxes by active learning as a task: a request and a data set in, OUT full of boxes to be confirmed.

    result.manifest     every sample; automatic boxes, with confidences and marks of hard examples, where people drew
                        none
    annotations/        a PASCAL VOC file for each image that got boxes, confidence and hard coefficient in each object
    boxes.csv           the same boxes as a table
    candidates.npz      every box that may be there with its confidence, more than are given; of labeled images out of
                        fold
    model/              the model, see `models.py`
    report.html         the images to look at, the hardest first
    key_samples/        with collect_key_sample: the hard examples within confidence_scope, and key_samples.manifest

`task.json` around it is the runner's. Knows nothing of the command line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from engine.dataset import RESULT_NAME, Dataset, settled
from engine.detect.accurate import ALONE, TEACHING_STAGE
from engine.detect.crossfit import Unfinished
from engine.detect.detecting import LABELING, MEMBERS, READING, auto_detect
from engine.detect.detector import BoxDetector
from engine.detect.results import Detection, annotated
from engine.detect.trunk import Trunk, read_trunk
from engine.errors import Failure, Stopped, UsageError
from engine.exports import Tally
from engine.files import write_bytes, write_text
from engine.hard.config import HardConfig
from engine.hard.detected import LOOKING, MEASURING, hard_detections
from engine.hard.examples import HardExamples
from engine.hard.marks import marked_boxes
from engine.hard.questions import automatic_boxes
from engine.label.plan import NETWORK_STAGE
from engine.manifest import write_manifest
from engine.models import save_model
from engine.report import render
from engine.samples import LABEL_TYPES, OBJECT_DETECTION, Sample
from engine.tasks.candidates import CANDIDATES_NAME, Candidates, write_candidates
from engine.tasks.detecting_page import detecting_page
from engine.tasks.further import check_outputs, made_at, write_further
from engine.tasks.grouping import device_of, on_threads
from engine.tasks.key_samples import COPYING, DEFAULT_SCOPE, copy_key_samples, key_folder, within
from engine.tasks.parameters import Parameters, hard_config, read_parameters
from engine.tasks.request import asked_for, notices
from engine.tasks.runner import Outcome, Run, Task
from engine.tasks.schema import SmartTaskConfig, TaskRequest
from engine.threads import processors

REPORT_NAME: Final = "report.html"
BOXES_NAME: Final = "boxes.csv"
MODEL_FOLDER: Final = "model"
DEFAULT_ALGORITHM: Final = "accurate"

#: Seconds that writing and measuring take: at least, and an image.
_WRITING: Final = 2.0
_WRITING_EACH: Final = 1e-2

#: Where the time goes, in percent.
_STAGES: Final = {
    READING: 2.0,
    "looking at labeled images": 1.0,
    LABELING: 4.0,
    MEASURING: 1.0,
    LOOKING: 4.0,
    "writing the result": 1.0,
    COPYING: 1.0,
    "drawing the page": 1.0,
}
_COLUMNS: Final = (
    *("source", "label", "xmin", "ymin", "xmax", "ymax", "confidence", "hard_coefficient", "hard_reasons"),
)


def detecting_task(request: TaskRequest, dataset: Dataset) -> Task:
    """The task that a request for auto-label asks for, of boxes. Raises UsageError or InputError for options that
    fail."""
    config = request.config
    options = read_parameters(config.parameters, request.task_type)
    lines = [*dataset.notes, *notices(request)]
    if config.algorithm_type is None:
        lines.append(f"config.algorithm_type was not given: {DEFAULT_ALGORITHM}")
    trunk = trunk_of(options)
    check_outputs(config)
    hard = hard_config(options)
    copies = key_folder(config.key_sample_output) if request.collect_key_sample else None
    members = options.networks or MEMBERS[config.algorithm_type or DEFAULT_ALGORITHM]
    alone = 1.0 if config.algorithm_type == "fast" else ALONE
    training = {
        stage.format(number, count): share * 85.0 / count
        for count in range(1, members + 1)  # there are fewer of them where time is short
        for number in range(1, count + 1)
        for stage, share in ((NETWORK_STAGE, alone), (TEACHING_STAGE, 1 - alone))
        if share
    }
    return Task(
        job=on_threads(options.threads, lambda this: _detect(this, dataset, config, options, trunk, hard, copies)),
        kind=request.task_type,
        config=asked_for(request),
        dataset=dataset.name,
        stages={**_STAGES, **training},
        files=dataset.files,
        digest=dataset.digest,
        notices=tuple(lines),
    )


def trunk_of(options: Parameters) -> Trunk | None:
    """The trained trunk that the parameters name; None: from scratch. Raises UsageError, InputError for its weights."""
    if options.encoder is None:
        if options.weights is not None:
            raise UsageError(f"weights: belong to an encoder, got {options.weights} and no encoder")
        return None
    return read_trunk(options.encoder, Path(options.weights) if options.weights else None)


def _detect(
    this: Run,
    dataset: Dataset,
    config: SmartTaskConfig,
    options: Parameters,
    trunk: Trunk | None,
    hard: HardConfig,
    copies: str | None,
) -> Outcome:
    threads = options.threads or processors()
    try:
        detection = auto_detect(
            dataset,
            config.algorithm_type or DEFAULT_ALGORITHM,
            minutes=options.minutes,
            steps=options.steps or (),
            min_per_class=options.min_per_class,
            image_size=options.image_size,
            batch_size=options.batch_size,
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            networks=options.networks,
            trunk=trunk,
            precision=options.precision,
            compiled=options.compile,
            score_threshold=options.score_threshold,
            seed=options.seed,
            threads=options.threads,
            device=device_of(options.device),
            max_pixels=options.max_pixels,
            folder=this.cache,
            reserve=_WRITING + _WRITING_EACH * len(dataset),
            looks=(options.networks or MEMBERS[config.algorithm_type or DEFAULT_ALGORITHM]) + len(hard.altering),
            stage=this.stage,
            note=this.note,
            stopped=this.stopped,
        )
    except Unfinished as stopped:
        if stopped.verdict is None:
            raise
        _save(this, stopped.verdict.detector, stopped.verdict.found)
        raise Stopped(f"{stopped}; {MODEL_FOLDER}/ holds the best model so far") from None
    assert detection.detector is not None
    # Now, for a stop in what follows shall not lose it.
    _save(this, detection.detector, detection.choices)
    for line in detection.notes:
        this.note(line)
    samples = annotated(dataset.samples, detection, time=made_at(config))
    found, vectors = hard_detections(
        samples,
        detection,
        hard,
        sources=dataset.sources,
        folder=this.cache,
        threads=threads,
        max_pixels=options.max_pixels,
        seed=options.seed,
        stage=this.stage,
        stopped=this.stopped,
    )
    samples = marked_boxes(samples, found, np.flatnonzero(detection.automatic).tolist())
    return delivered_boxes(this, dataset, detection, samples, found, vectors, config, options, copies, saved=True)


def delivered_boxes(
    this: Run,
    dataset: Dataset,
    detection: Detection,
    samples: tuple[Sample, ...],
    found: HardExamples,
    vectors: Tensor,
    config: SmartTaskConfig,
    options: Parameters,
    copies: str | None,
    *,
    saved: bool = False,
    source: str | None = None,
) -> Outcome:
    """Write all that a detection leaves in OUT; see `labeling.delivered`."""
    marked = dataset.with_samples(samples)
    failures = [*dataset.failures, *detection.failures]
    written = _write_result(this, marked, detection, failures)
    write_further(this, marked, written, detection, config)
    scope = config.confidence_scope or DEFAULT_SCOPE
    key = np.flatnonzero(detection.automatic & within(_least_sure(detection), scope) & found.hard)
    copied = None
    if copies is not None:
        order = key[np.argsort(-found.coefficients[key], kind="stable")]
        copied = copy_key_samples(this, marked, order, copies, failures)
    page = detecting_page(
        marked,
        detection,
        found,
        vectors,
        failures=failures,
        written=written,
        notes=this.notices,
        threads=options.threads or processors(),
        source=source,
        begin=partial(this.stage, "drawing the page"),
    )
    write_text(this.out.target(REPORT_NAME), render(page))
    result = _result(dataset, detection, found, scope, copied)
    result["model_path"] = MODEL_FOLDER if saved else None
    return Outcome(result, tuple(failures))


def _least_sure(detection: Detection) -> npt.NDArray[np.float32]:
    """(n,) the confidence of the least certain box that is given; NaN where there is none."""
    least = np.full(len(detection), np.nan, np.float32)
    for row, boxes in enumerate(detection.candidates):
        if boxes is not None and bool((given := detection.given(row)).any()):
            least[row] = float(boxes.scores[given].min())
    return least


def _write_result(this: Run, dataset: Dataset, detection: Detection, failures: list[Failure]) -> list[Sample]:
    """The manifest with its annotation files and the table; gives the samples as the manifest has them."""
    advance = this.stage("writing the result", len(dataset))
    tally = Tally()
    written = list(settled(dataset, this.out, tally))
    write_manifest(this.out.target(RESULT_NAME), written)
    write_bytes(this.out.target(BOXES_NAME), _table(written, detection))
    write_candidates(this.out.target(CANDIDATES_NAME), _candidates(written, detection))
    advance(len(dataset))
    for line in tally.notes:
        this.note(line)
    failures += tally.failures
    return written


def _candidates(samples: list[Sample], detection: Detection) -> Candidates:
    candidates = detection.candidates[: len(samples)]
    known = np.array([boxes is not None for boxes in candidates], bool)
    there = [boxes for boxes in candidates if boxes is not None]
    counts = np.zeros(len(samples), np.int64)
    counts[known] = [len(boxes.scores) for boxes in there]
    return Candidates(
        tuple(sample.source for sample in samples),
        detection.labels,
        np.array(detection.thresholds, np.float64),
        detection.sketches.labeled[: len(samples)],
        known,
        detection.judges[: len(samples)],
        counts,
        np.concatenate([np.zeros((0, 4), np.float32), *(boxes.xyxy.numpy() for boxes in there)]).astype(np.float32),
        np.concatenate([np.zeros(0, np.int64), *(boxes.classes.numpy() for boxes in there)]),
        np.concatenate([np.zeros(0, np.float32), *(boxes.scores.numpy() for boxes in there)]).astype(np.float32),
    )


def _table(samples: list[Sample], detection: Detection) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(_COLUMNS)
    for row in np.flatnonzero(detection.automatic).tolist():
        for shape in automatic_boxes(samples[row]):
            reasons = "-".join(map(str, shape.hard_reasons))
            writer.writerow(
                (samples[row].source, shape.name, *shape.xyxy, shape.confidence, shape.hard_coefficient, reasons)
            )
    return text.getvalue().encode("utf-8", "surrogatepass")


def _save(this: Run, detector: BoxDetector, choices: Mapping[str, Any]) -> None:
    metrics = {name: value for name, value in choices.items() if name != "training_digest"}
    digest = str(choices.get("training_digest", ""))
    save_model(this.out, detector, folder=MODEL_FOLDER, metrics=metrics, training_digest=digest, created=datetime.now())
    this.keep(MODEL_FOLDER)


def _result(
    dataset: Dataset, detection: Detection, found: HardExamples, scope: tuple[float, float], key: int | None
) -> dict[str, Any]:
    """The `result` of the task answer; from `labels` on, ours."""
    automatic = detection.automatic
    given = detection.automatic_counts.sum(axis=0).tolist()
    counts = zip(detection.labels, detection.drawn_counts.tolist(), given, strict=True)
    return {
        "annotated_sample_count": int(automatic.sum()),
        "total_sample_count": dataset.own,
        "confidence_scope": f"{scope[0]:.2f}-{scope[1]:.2f}",
        "dataset_name": dataset.name,
        "dataset_type": LABEL_TYPES[OBJECT_DETECTION],
        "manifest_path": RESULT_NAME,
        "key_sample_count": key,
        "hard_sample_count": int((found.hard & automatic).sum()),
        "hard_box_count": int(found.labels.hard.sum()),
        "labels": [{"label": name, "human": human, "automatic": automatic_} for name, human, automatic_ in counts],
        "algorithm_type": detection.algorithm_type,
        "choices": dict(detection.choices),
        "hard_examples": dict(found.choices),
    }
