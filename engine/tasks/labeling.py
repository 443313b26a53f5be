"""Auto labeling by active learning as a task: a request and a data set in, OUT full of labels to be confirmed.

    result.manifest     every sample; automatic labels, with confidences and marks of hard examples, where people gave
                        none
    labels.csv          the same labels as a table
    probabilities.npz   what the model says of every sample, and out of fold of those that people labeled
    model/              the model, see `models.py`
    report.html         the labels to look at, the hardest first
    key_samples/        with collect_key_sample: the hard examples within confidence_scope, and key_samples.manifest

`task.json` around it is the runner's. Knows nothing of the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

import numpy as np
from torch import Tensor

from engine.dataset import RESULT_NAME, Dataset, settled
from engine.decisions import write_labels
from engine.errors import Failure, Stopped
from engine.exports import Tally
from engine.files import write_text
from engine.hard.config import HardConfig
from engine.hard.examples import HardExamples, hard_examples
from engine.hard.labeled import evidence_of
from engine.hard.marks import marked
from engine.images import converted_in_words
from engine.label.accurate import PRETRAINING_SHARE, TEACHING_SHARE, TEACHING_STAGE
from engine.label.classifier import Classifier
from engine.label.labeling import MEMBERS, auto_label
from engine.label.opinions import Unfinished
from engine.label.plan import NETWORK_STAGE
from engine.label.results import Labeling, annotated
from engine.label.targets import human_labels
from engine.manifest import write_manifest
from engine.models import save_model
from engine.report import render
from engine.samples import IMAGE_CLASSIFICATION, LABEL_TYPES, Sample
from engine.tasks.further import check_outputs, made_at, write_further
from engine.tasks.grouping import device_of, encoder_of, on_threads
from engine.tasks.key_samples import COPYING, DEFAULT_SCOPE, copy_key_samples, key_folder, within
from engine.tasks.labeling_page import labeling_page
from engine.tasks.parameters import Parameters, hard_config, read_parameters
from engine.tasks.probabilities import PROBABILITIES_NAME, Probabilities, write_probabilities
from engine.tasks.request import asked_for, notices
from engine.tasks.runner import Outcome, Run, Task
from engine.tasks.schema import SmartTaskConfig, TaskRequest
from engine.threads import processors

REPORT_NAME: Final = "report.html"
LABELS_NAME: Final = "labels.csv"
MODEL_FOLDER: Final = "model"

DEFAULT_ALGORITHM: Final = "accurate"

#: Seconds that writing takes: at least, and an image.
_WRITING: Final = 2.0
_WRITING_EACH: Final = 3e-4

#: Where the time goes, in percent; the networks share TRAINING.
HARD_STAGE: Final = "finding hard examples"
_STAGES: Final = {
    "reading images": 3.0,
    "looking at labeled images": 1.0,
    "labeling": 3.0,
    HARD_STAGE: 3.0,
    "writing the result": 2.0,
}
_DRAWING: Final = {COPYING: 1.0, "drawing the page": 1.0}
_TRAINING: Final = 86.0
_BEFORE_TRAINING: Final = {
    "learning to tell images apart": 100 * PRETRAINING_SHARE,
    "spreading labels": 4.0,
}


def _stages(algorithm_type: str, networks: int | None) -> dict[str, float]:
    """The stages of a task, each with its share of the time."""
    before = _BEFORE_TRAINING if algorithm_type == "accurate" else {}
    count = networks or MEMBERS[algorithm_type]
    left = _TRAINING - sum(before.values())
    lessons = {TEACHING_STAGE: TEACHING_SHARE * left, NETWORK_STAGE: (1 - TEACHING_SHARE) * left}
    if algorithm_type == "fast":
        lessons = {NETWORK_STAGE: left}
    training = {
        lesson.format(number, count): share / count
        for lesson, share in lessons.items()
        for number in range(1, count + 1)
    }
    # `accurate` with many labels does as `fast` does.
    many = networks or MEMBERS["fast"]
    training = {NETWORK_STAGE.format(number, many): left / many for number in range(1, many + 1)} | training
    return {**_STAGES, **before, **training, **_DRAWING}


def labeling_task(request: TaskRequest, dataset: Dataset) -> Task:
    """The task that a request for auto-label asks for. Raises UsageError or InputError for options that fail."""
    config = request.config
    options = read_parameters(config.parameters, request.task_type)
    lines = [*dataset.notes, *notices(request)]
    if config.algorithm_type is None:
        lines.append(f"config.algorithm_type was not given: {DEFAULT_ALGORITHM}")
    check_outputs(config)
    hard = hard_config(options)
    encoder_of(options)  # so that wrong weights are said before anything is read
    copies = key_folder(config.key_sample_output) if request.collect_key_sample else None
    return Task(
        job=on_threads(options.threads, lambda this: _label(this, dataset, config, options, hard, copies)),
        kind=request.task_type,
        config=asked_for(request),
        dataset=dataset.name,
        stages=_stages(config.algorithm_type or DEFAULT_ALGORITHM, options.networks),
        files=dataset.files,
        digest=dataset.digest,
        notices=tuple(lines),
    )


def _label(
    this: Run,
    dataset: Dataset,
    config: SmartTaskConfig,
    options: Parameters,
    hard: HardConfig,
    copies: str | None,
) -> Outcome:
    algorithm_type = config.algorithm_type or DEFAULT_ALGORITHM
    try:
        labeling = auto_label(
            dataset,
            algorithm_type,
            minutes=options.minutes,
            steps=options.steps or (),
            min_per_class=options.min_per_class,
            encoder=encoder_of(options),
            image_size=options.image_size,
            batch_size=options.batch_size,
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            networks=options.networks,
            precision=options.precision,
            compiled=options.compile,
            seed=options.seed,
            threads=options.threads,
            device=device_of(options.device),
            max_pixels=options.max_pixels,
            folder=this.cache,
            reserve=_WRITING + _WRITING_EACH * len(dataset),
            looks=(options.networks or MEMBERS[algorithm_type]) + len(hard.altering),
            stage=this.stage,
            note=this.note,
            stopped=this.stopped,
        )
    except Unfinished as stopped:
        _save(this, stopped.verdict.classifier, stopped.verdict.found)
        raise Stopped(f"{stopped}; {MODEL_FOLDER}/ holds the best model so far") from None
    assert isinstance(labeling.classifier, Classifier)
    _save(this, labeling.classifier, labeling.choices)  # now, for a stop in what follows shall not lose it
    for line in (*labeling.notes, *converted_in_words(labeling.survey.notes)):
        this.note(line)
    found, vectors = _hard_examples(this, dataset, labeling, hard, options.seed)
    samples = annotated(dataset.samples, labeling, time=made_at(config))
    samples = marked(samples, found, np.flatnonzero(labeling.automatic).tolist(), labeling.labels)
    return delivered(this, dataset, labeling, samples, found, vectors, config, options, copies, saved=True)


def delivered(
    this: Run,
    dataset: Dataset,
    labeling: Labeling,
    samples: tuple[Sample, ...],
    found: HardExamples,
    vectors: Tensor | None,
    config: SmartTaskConfig,
    options: Parameters,
    copies: str | None,
    *,
    saved: bool = False,
    source: str | None = None,
) -> Outcome:
    """Write all that a labeling leaves in OUT. samples: with their labels and marks. vectors: (n, d), how images look.
    copies: the folder of key samples; None: none are copied. saved: whether the model is there. source: what the labels
    come from, in words of the page."""
    failures = [*dataset.failures, *labeling.survey.failures]
    written = _write_result(this, dataset.with_samples(samples), labeling, failures)
    write_further(this, dataset.with_samples(samples), written, labeling, config)
    scope = config.confidence_scope or DEFAULT_SCOPE
    key = np.flatnonzero(labeling.automatic & within(labeling.confidences, scope) & found.hard)
    copied = None
    if copies is not None:
        order = key[np.argsort(-found.coefficients[key], kind="stable")]
        copied = copy_key_samples(this, dataset.with_samples(samples), order, copies, failures)
    page = labeling_page(
        dataset,
        labeling,
        found,
        notes=this.notices,
        threads=options.threads or processors(),
        begin=partial(this.stage, "drawing the page"),
        written=written,
        vectors=vectors,
        source=source,
    )
    write_text(this.out.target(REPORT_NAME), render(page))
    result = _result(dataset, labeling, found, scope, copied)
    result["model_path"] = MODEL_FOLDER if saved else None
    return Outcome(result, tuple(failures))


def _hard_examples(
    this: Run, dataset: Dataset, labeling: Labeling, config: HardConfig, seed: int
) -> tuple[HardExamples, Tensor | None]:
    """What is hard, and how the images look, (n, d); None where no network sees them."""
    assert labeling.survey.thumbnails is not None
    evidence = evidence_of(
        dataset.samples,
        labeling,
        labeling.survey.thumbnails,
        operators=config.altering,
        progress=this.stage(HARD_STAGE, len(labeling.survey.thumbnails)),
        stopped=this.stopped,
    )
    return hard_examples(evidence, config, seed=seed), evidence.views[0].vectors if evidence.views else None


def _write_result(this: Run, dataset: Dataset, labeling: Labeling, failures: list[Failure]) -> list[Sample]:
    """The manifest, the table and the probabilities; gives the samples as the manifest has them."""
    advance = this.stage("writing the result", len(dataset))
    tally = Tally()
    written = list(settled(dataset, this.out, tally))
    write_manifest(this.out.target(RESULT_NAME), written)
    write_labels(this.out.target(LABELS_NAME), written)
    sources, own = tuple(sample.source for sample in written), dataset.own
    said = Probabilities(
        sources,
        labeling.labels,
        labeling.probabilities[:own],
        np.array([bool(human_labels(sample)) for sample in written[:own]], bool),  # of unreadable images, too
        labeling.judges[:own],
    )
    write_probabilities(this.out.target(PROBABILITIES_NAME), said)
    advance(len(dataset))
    for line in tally.notes:
        this.note(line)
    failures += tally.failures
    return written


def _save(this: Run, classifier: Classifier, choices: Mapping[str, Any]) -> None:
    metrics = {name: value for name, value in choices.items() if name != "training_digest"}
    digest = str(choices.get("training_digest", ""))
    created = datetime.now()
    save_model(this.out, classifier, folder=MODEL_FOLDER, metrics=metrics, training_digest=digest, created=created)
    this.keep(MODEL_FOLDER)


def _result(
    dataset: Dataset, labeling: Labeling, found: HardExamples, scope: tuple[float, float], key: int | None
) -> dict[str, Any]:
    """The `result` of the task answer; from `labels` on, ours."""
    automatic = labeling.automatic
    counts = labeling.predicted[automatic].sum(axis=0).tolist()
    return {
        "annotated_sample_count": int(automatic.sum()),
        "total_sample_count": dataset.own,
        "confidence_scope": f"{scope[0]:.2f}-{scope[1]:.2f}",
        "dataset_name": dataset.name,
        "dataset_type": LABEL_TYPES[IMAGE_CLASSIFICATION],
        "manifest_path": RESULT_NAME,
        "key_sample_count": key,
        "hard_sample_count": int((found.hard & automatic).sum()),
        "labels": [
            {"label": name, "human": human, "automatic": count}
            for name, human, count in zip(
                labeling.labels, labeling.targets.matrix.sum(axis=0).tolist(), counts, strict=True
            )
        ],
        "multi_label": labeling.targets.multi_label,
        "algorithm_type": labeling.algorithm_type,
        "choices": dict(labeling.choices),
        "hard_examples": dict(found.choices),
    }
