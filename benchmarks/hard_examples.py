"""Hard examples against their peers: who meets the wrong automatic labels first?

    python benchmarks/hard_examples.py [--tree signs=FOLDER --tree cifar10=FOLDER] [--only digits] [--labels 50,100]
        [--algorithms fast,accurate] [--minutes 1] [--seeds 5] [--most 4000] [--keep FOLDER] [--ablation]
        [--no-review] [--device cpu] [--jobs 1] [--out cells.json]

Data sets: the digits of datasets/digits.py, and every tree (one folder a class) given. Images are linked under random
names, so that neither folder nor order tells a class. In each cell (data set, algorithm, labels) and for each seed, so
many images keep their labels, as many of each class; auto labeling labels the rest; then everybody orders the automatic
labels by difficulty, from the same probabilities and embeddings (the algorithm `logistic` is scikit-learn's regression
on our content vectors, from arrays alone: a run takes a second, so that there can be many):

    ours            `calibrated`; "ours, weights" the documented weights
    peers           least confidence, margin, entropy (of FiftyOne's hardness), at random; cleanlab:
                    get_label_quality_scores by its three methods, and OutOfDistribution on the embeddings of the first
                    network

Printed: area under the ROC curve for "the label is wrong", average precision, share of the errors among the first 10
and 20 % reviewed, the share to review until 98 and 99.5 % are right (seen afterwards), the mean over the seeds;
expected calibration error and Brier skill of the calibrated coefficient; the difference of areas to the best peer with
a 90 % interval (bootstrap over the images, paired); how often the 90 % interval of what a review leaves holds the truth
(at 0, 5, 10 and 20 % reviewed); how many labels are hard by weights at the documented threshold, and how many of the
wrong ones; what part of the images a person must review until the engine, which learns from the review, says that 98
and 99.5 % are right, how many are, and how many a person has touched, with those labeled first; seconds of all miners
over those of one look at every image by all networks; of several cells a summary. With --ablation the area of each
miner alone and of all but each, by both combiners. --keep: what labeling has found is kept in FOLDER, and used again by
a later run, which then takes seconds. --jobs: so many seeds at once, each on its part of the processors (and all on one
--device), where figures of speed mean nothing.

Recorded, 2 cores without AMX, one for each labeling (--jobs 2; other work ran beside), --tree signs=FOLDER --tree
cifar10=FOLDER --most 4000 --no-review, with --labels 50,100,200 of digits (--seeds 10), 100,200,400 of signs,
100,250,1000 of cifar10, and --minutes as the rows say:

ours, best peer                  wrong       AUROC          AP        20 %       to 98    area above   ECE skill held
digits, 50 labels, fast 0.5        4.5 0.985 0.968 0.746 0.543 0.999 0.981 0.035 0.047 +0.015 +0.018 0.017  0.50  100
digits, 100 labels, fast 0.5       2.4 0.985 0.969 0.714 0.494 0.992 0.973 0.006 0.009 +0.013 +0.019 0.013  0.40  100
digits, 200 labels, fast 0.5       1.8 0.991 0.980 0.731 0.465 1.000 0.998 0.002 0.003 +0.009 +0.013 0.009  0.40  100
signs, 100 labels, fast 0.5        3.8 0.965 0.946 0.687 0.441 0.966 0.947 0.026 0.039 +0.016 +0.022 0.016  0.42  100
signs, 200 labels, fast 0.5        1.8 0.947 0.928 0.684 0.420 0.930 0.923 0.004 0.007 +0.010 +0.032 0.011  0.39  100
signs, 400 labels, fast 0.5        1.6 0.952 0.940 0.675 0.439 0.936 0.936 0.000 0.001 +0.004 +0.024 0.007  0.47  100
cifar10, 100 labels, fast 1       57.0 0.696 0.676 0.742 0.715 0.280 0.268 0.911 0.913 +0.017 +0.023 0.084  0.08  100
cifar10, 250 labels, fast 1       46.5 0.755 0.729 0.704 0.673 0.324 0.311 0.832 0.853 +0.023 +0.031 0.046  0.19  100
cifar10, 1000 labels, fast 1      35.2 0.802 0.779 0.655 0.622 0.395 0.374 0.703 0.727 +0.020 +0.026 0.034  0.25  100
digits, 50 labels, accurate 1      2.4 0.977 0.969 0.569 0.428 0.994 0.979 0.011 0.015 +0.007 +0.010 0.010  0.32  100
digits, 100 labels, accurate 1     1.8 0.983 0.976 0.596 0.476 0.989 0.976 0.002 0.004 +0.005 +0.009 0.011  0.32  100
digits, 200 labels, accurate 1     1.0 0.993 0.989 0.560 0.429 1.000 1.000 0.001 0.001 +0.003 +0.006 0.006  0.28  100
signs, 100 labels, accurate 1      4.5 0.958 0.937 0.619 0.434 0.952 0.911 0.043 0.056 +0.018 +0.024 0.022  0.36  100
signs, 200 labels, accurate 1      2.8 0.955 0.941 0.684 0.435 0.952 0.952 0.017 0.019 +0.009 +0.021 0.015  0.40  100
signs, 400 labels, accurate 1      0.5 0.902 0.867 0.550 0.287 0.838 0.838 0.000 0.000 +0.004 +0.079 0.007  0.32  100
cifar10, 100 labels, accurate 1   56.5 0.687 0.673 0.727 0.709 0.276 0.269 0.919 0.920 +0.011 +0.018 0.083  0.06  100
cifar10, 250 labels, accurate 1   46.0 0.748 0.727 0.693 0.667 0.324 0.311 0.843 0.854 +0.018 +0.025 0.044  0.18  100
cifar10, 1000 labels, accurate 1  38.8 0.792 0.763 0.681 0.634 0.376 0.351 0.740 0.769 +0.026 +0.032 0.043  0.23  100
mean                                   0.893 0.875 0.668 0.517 0.751 0.739 0.283 0.291        +0.018 0.026  0.31  100

The best peer of each measure; `area above` is the interval of the difference to the best peer's area, in the last line
its mean. Of what the best peer leaves to an oracle among the first 10 and 20 % reviewed 30 and 28 % are met. By weights
12 to 27 % of the automatic labels are hard, of digits and signs with 84 to 100 % of the wrong ones. All miners take 2.0
to 3.4 times one look. (What doubts weigh was chosen by arithmetic on about a third of these labelings, and is the same
for all of them.)

With reviews, --seeds 5 --algorithms fast --minutes 0.5
    digits, 50 labels
    until 98 % are right: 8.1 % reviewed, then 99.95 % are; 10.7 % of all images touched
    until 99.5 % are right: 17.0 % reviewed, then 100.00 % are; 19.3 % of all images touched
    digits, 100 labels
    until 98 % are right: 4.0 % reviewed, then 99.94 % are; 9.3 % of all images touched
    until 99.5 % are right: 14.4 % reviewed, then 100.00 % are; 19.2 % of all images touched
    signs, 100 labels
    until 98 % are right: 6.9 % reviewed, then 99.79 % are; 11.4 % of all images touched
    until 99.5 % are right: 14.3 % reviewed, then 99.89 % are; 18.4 % of all images touched
    signs, 200 labels
    until 98 % are right: 3.9 % reviewed, then 99.82 % are; 13.2 % of all images touched
    until 99.5 % are right: 11.4 % reviewed, then 99.90 % are; 20.0 % of all images touched
    (the goals were reached in all 20 runs)

--algorithms logistic --seeds 10 --labels 100,250 --most 4000 --no-review
ours, best peer                  wrong       AUROC          AP        20 %       to 98    area above   ECE skill held
digits, 100 labels, logistic 1     4.3 0.994 0.961 0.895 0.524 0.999 0.966 0.025 0.044 +0.029 +0.037 0.023  0.65   95
digits, 250 labels, logistic 1     1.9 0.996 0.975 0.886 0.483 1.000 0.989 0.001 0.002 +0.017 +0.024 0.009  0.63  100
signs, 100 labels, logistic 1     27.4 0.874 0.821 0.678 0.583 0.508 0.443 0.507 0.592 +0.049 +0.055 0.068  0.31   90
signs, 250 labels, logistic 1     18.2 0.914 0.870 0.671 0.571 0.684 0.596 0.322 0.408 +0.041 +0.048 0.034  0.39   98
cifar10, 100 labels, logistic 1   66.5 0.719 0.647 0.821 0.765 0.262 0.241 0.928 0.944 +0.068 +0.076 0.088  0.09  100
cifar10, 250 labels, logistic 1   58.7 0.758 0.678 0.799 0.725 0.291 0.261 0.888 0.918 +0.077 +0.085 0.070  0.17  100
mean                                   0.876 0.825 0.792 0.608 0.624 0.583 0.445 0.484        +0.050 0.049  0.37   97

--only digits --labels 50 --algorithms fast --minutes 0.5 --seeds 5 --no-review --ablation (calibrated 0.986, weights
0.966)
    without clustering_mining            calibrated 0.970, weights 0.960
    without aug_consistent_mining        calibrated 0.987, weights 0.974
    without feature_distribution_mining  calibrated 0.986, weights 0.966
    without sequential_mining            calibrated 0.986, weights 0.966
    without image_similarity_mining      calibrated 0.986, weights 0.966
    without predict_score_mining         calibrated 0.986, weights 0.958
    without anomaly_detection_mining     calibrated 0.986, weights 0.962
    clustering_mining alone              calibrated 0.987, weights 0.975
    aug_consistent_mining alone          calibrated 0.970, weights 0.745
    feature_distribution_mining alone    calibrated 0.970, weights 0.592
    sequential_mining alone              calibrated 0.970, weights 0.500
    image_similarity_mining alone        calibrated 0.970, weights 0.954
    predict_score_mining alone           calibrated 0.970, weights 0.970
    anomaly_detection_mining alone       calibrated 0.971, weights 0.936
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import pickle
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from engine.dataset import Dataset, read_samples
from engine.embeddings import Gradients, content_vectors
from engine.evaluation import expected_calibration_error
from engine.hard.combine import reviews_to_reach
from engine.hard.config import HardConfig
from engine.hard.examples import HardExamples, hard_examples
from engine.hard.labeled import Look, evidence_of
from engine.hard.mining import Evidence
from engine.hard.reasons import OPERATOR_WEIGHTS, WEIGHTS
from engine.label.labeling import auto_label
from engine.sources import Sources
from engine.survey import survey
from engine.tasks.peers import logistic
from engine.threads import processors

DATASETS = Path(__file__).parents[1] / "datasets"
LABELS = {"digits": (50, 100), "signs": (50, 100, 200), "cifar10": (250, 1000, 4000)}
USUAL_LABELS = (100, 200)
OURS, BY_WEIGHTS = "ours", "ours, weights"
BOOTSTRAPS = 200
MARKS = (0.0, 0.05, 0.1, 0.2)
GOALS = (0.98, 0.995)
#: The version of what is kept of a labeling.
_KEPT = 2
#: Not one of ours: labels that somebody else has made.
LOGISTIC = "logistic"


# ---- The data.


def digits(out: Path) -> Path:
    spec = importlib.util.spec_from_file_location("digits", DATASETS / "digits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write(out, layout="tree")
    return out


def under_random_names(dataset: Dataset, folder: Path) -> tuple[Dataset, np.ndarray]:
    """The same images in another order and one folder, and their classes (n,)."""
    folder.mkdir()
    order = np.random.default_rng(0).permutation(len(dataset))
    samples, names = [], []
    for number, row in enumerate(order.tolist()):
        sample = dataset[row]
        path = dataset.path(sample).resolve()
        target = folder / f"{number:06}{path.suffix}"
        os.symlink(path, target)
        samples.append(replace(sample, source=target.name))
        names.append(str(sample.labels[0].name))
    return replace(dataset, samples=tuple(samples), sources=Sources(folder)), np.array(names)


def with_labels(dataset: Dataset, names: np.ndarray, count: int, seed: int) -> Dataset:
    """So many samples keep their labels, as many of each class as near as can be."""
    chance, kept = np.random.default_rng(seed), np.zeros(len(names), bool)
    classes = np.unique(names)
    for at, name in enumerate(classes):
        rows = chance.permutation(np.flatnonzero(names == name))
        kept[rows[: count // len(classes) + (at < count % len(classes))]] = True
    return dataset.with_samples(
        sample if keep else replace(sample, labels=()) for sample, keep in zip(dataset, kept, strict=True)
    )


# ---- Those who order.


def peers(
    probabilities: np.ndarray, given: np.ndarray, vectors: np.ndarray, seen: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Difficulty of m automatic labels, larger = harder. probabilities: (m, k). given: (m,) class numbers. vectors: of
    all n samples, the m first. seen: positions of the labeled ones."""
    ordered = np.sort(probabilities, axis=1)
    found = {
        "least confidence": 1 - ordered[:, -1],
        "margin": ordered[:, -2] - ordered[:, -1],
        "entropy": -(probabilities * np.log(probabilities.clip(1e-12))).sum(axis=1),
        "random": np.random.default_rng(seed).random(len(given)),
    }
    try:
        from cleanlab.outlier import OutOfDistribution
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return found
    for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        found[f"cleanlab {method}"] = -get_label_quality_scores(given, probabilities, method=method)
    judge = OutOfDistribution({"k": min(10, len(seen) - 1)})
    judge.fit(features=vectors[seen], verbose=False)
    found["cleanlab OutOfDistribution"] = -judge.score(features=vectors[: len(given)])
    return found


@dataclass
class Observed:
    """One labeling, and what is known about it. rows: of the automatic labels. truth: (m, k) bool, what they should
    be. wrong: which of them are."""

    evidence: Evidence
    rows: np.ndarray
    truth: torch.Tensor
    wrong: np.ndarray
    seconds: float
    looking: float  # all miners, over one look at every image


@dataclass(frozen=True)
class Cell:
    """What is labeled, and how: a data set whose images have these names, so many of them labeled."""

    name: str
    dataset: Dataset
    names: np.ndarray
    algorithm: str
    labels: int
    minutes: float
    device: str

    @property
    def title(self) -> str:
        return f"{self.name}, {self.labels} labels, {self.algorithm} {self.minutes:g} min"

    def file_name(self, seed: int) -> str:
        return f"{self.name}-{self.algorithm}-{self.labels}-{self.minutes:g}-{seed}-{_KEPT}"


def observed(cell: Cell, seed: int, folder: Path, keep: Path | None) -> Observed:
    """Label a data set, or take what is kept of it."""
    dataset, names = with_labels(cell.dataset, cell.names, cell.labels, seed), cell.names
    if cell.algorithm == LOGISTIC:
        return of_arrays(dataset, names, seed)
    if keep is not None and keep.is_file():
        return Observed(**pickle.loads(keep.read_bytes()))  # written by ourselves
    began = time.perf_counter()
    labeling = auto_label(
        dataset,
        cell.algorithm,
        minutes=cell.minutes,
        seed=seed,
        min_per_class=2,
        device=torch.device(cell.device),
        folder=folder,
    )
    seconds = time.perf_counter() - began
    thumbnails, committee = labeling.survey.thumbnails, labeling.classifier.committee
    assert thumbnails is not None and committee is not None
    began = time.perf_counter()
    Look(committee, False, ()).at(thumbnails, torch.full((len(labeling),), -1))
    once = time.perf_counter() - began
    began = time.perf_counter()
    evidence = evidence_of(dataset.samples, labeling, thumbnails, operators=tuple(OPERATOR_WEIGHTS))
    hard_examples(evidence, HardConfig(combiner="calibrated"), seed=seed)
    looking = (time.perf_counter() - began) / once
    rows = np.flatnonzero(labeling.automatic)
    truth = torch.from_numpy(names[rows][:, None] == np.array(labeling.labels))
    found = Observed(evidence, rows, truth, (evidence.given[rows] != truth).any(dim=1).numpy(), seconds, looking)
    if keep is not None:
        keep.parent.mkdir(parents=True, exist_ok=True)
        keep.write_bytes(pickle.dumps(vars(found)))  # in another process this module has another name
    return found


def of_arrays(dataset: Dataset, names: np.ndarray, seed: int) -> Observed:
    """Labels by logistic regression on content vectors, those of labeled images out of fold: what people have who come
    with arrays, in seconds."""
    began = time.perf_counter()
    vectors = vectors_of(dataset)
    classes = np.unique(names)
    numbers = np.searchsorted(classes, names)
    seen = np.array([bool(sample.labels) for sample in dataset])
    told = np.eye(len(classes), dtype=bool)[numbers]
    p = logistic(vectors[seen], told[seen], vectors, False)
    place = np.flatnonzero(seen)
    for fit, held in StratifiedKFold(5, shuffle=True, random_state=seed).split(place, numbers[place]):
        p[place[held]] = logistic(vectors[place[fit]], told[place[fit]], vectors[place[held]], False)
    evidence = Evidence.of_arrays(p, np.where(seen, numbers, -1), embeddings=vectors)
    rows = np.flatnonzero(~seen)
    truth = torch.from_numpy(told[rows])
    wrong = (evidence.given[rows] != truth).any(dim=1).numpy()
    return Observed(evidence, rows, truth, wrong, time.perf_counter() - began, float("nan"))


_vectors: dict[Path, np.ndarray] = {}


def vectors_of(dataset: Dataset) -> np.ndarray:
    """How the images of a data set look, (n, d); found once."""
    if dataset.sources.root not in _vectors:
        with tempfile.TemporaryDirectory() as temporary:
            encoder = Gradients()
            found = survey(dataset, dataset.sources, folder=Path(temporary), thumbnail_side=encoder.size).thumbnails
            assert found is not None
            vectors = content_vectors(lambda: found.batches(256), encoder=encoder)
            _vectors[dataset.sources.root] = vectors.numpy()
    return _vectors[dataset.sources.root]


def trial(cell: Cell, seed: int, folder: Path, keep: Path | None, ablation: bool, reviewing: bool) -> dict[str, Any]:
    """Everybody's order of the labels of one labeling."""
    warnings.simplefilter("ignore")
    name = cell.file_name(seed)
    found = observed(cell, seed, folder / name, keep / f"{name}.pkl" if keep else None)
    evidence, rows, wrong = found.evidence, found.rows, found.wrong
    calibrated = hard_examples(evidence, HardConfig(combiner="calibrated"), seed=seed)
    by_weights = hard_examples(evidence, HardConfig(combiner="weights"), seed=seed)
    labeled = np.flatnonzero(evidence.told.any(dim=1).numpy())
    vectors = np.concatenate([evidence.views[0].vectors.numpy()[part] for part in (rows, labeled)])
    seen = np.arange(len(rows), len(vectors))
    probabilities = evidence.probabilities[rows].double().numpy()
    given = evidence.given[rows].int().argmax(dim=1).numpy()
    return {
        "wrong": wrong,
        "scores": {
            OURS: calibrated.coefficients[rows],
            BY_WEIGHTS: by_weights.coefficients[rows],
            **peers(probabilities / probabilities.sum(axis=1, keepdims=True), given, vectors, seen, seed),
        },
        "hard": by_weights.hard[rows],
        "covered": covered(calibrated, rows, wrong),
        "efforts": [effort(evidence, rows, found.truth, goal, seed) for goal in GOALS] if reviewing else [],
        "labels": cell.labels,
        "images": len(cell.names),
        "seconds": found.seconds,
        "looking": found.looking,
        "choices": dict(calibrated.choices),
        "reasons": {number: area(np.nan_to_num(score[rows]), wrong) for number, score in calibrated.scores.items()},
        "ablation": ablations(evidence, rows, wrong, seed) if ablation else {},
    }


def effort(evidence: Evidence, rows: np.ndarray, truth: torch.Tensor, goal: float, seed: int) -> tuple[float, float]:
    """The part to review, hardest first, until the engine says that this share is right; the share that then is.

    A person reviews a twentieth of what the engine asks for, 20 images at least, then it learns from that, and so on.
    """
    total, reviewed = len(rows), np.zeros(len(rows), bool)
    given = evidence.given[rows]
    wrong = (given != truth).any(dim=1).numpy()
    while True:
        found = hard_examples(confirmed(evidence, rows, truth, reviewed), HardConfig(combiner="calibrated"), seed=seed)
        rest = np.flatnonzero(~reviewed)
        wanted = reviews_to_reach(found.left, 1 - (1 - goal) * total / max(1, len(rest))) if len(rest) else 0
        assert wanted is not None
        if wanted == 0:
            return reviewed.mean(), 1 - wrong[~reviewed].sum() / total
        order = rest[np.argsort(-found.coefficients[rows[rest]], kind="stable")]
        reviewed[order[: max(20, wanted // 20)]] = True


def confirmed(evidence: Evidence, rows: np.ndarray, truth: torch.Tensor, reviewed: np.ndarray) -> Evidence:
    """What is known after a review, as `hard` finds it after `confirm`. rows: (m,). truth: (m, k). reviewed: (m,)."""
    told, judged, chosen = evidence.told.clone(), evidence.judged.clone(), torch.zeros(len(evidence), dtype=torch.bool)
    now = torch.from_numpy(rows[reviewed])
    told[now], judged[now], chosen[now] = truth[reviewed], True, True
    views = tuple(replace(view, seen=torch.cat([view.seen, now])) for view in evidence.views)
    return replace(evidence, told=told, judged=judged, chosen=chosen, views=views)


def ablations(evidence: Evidence, rows: np.ndarray, wrong: np.ndarray, seed: int) -> dict[str, tuple[float, ...]]:
    """Areas by `calibrated` and `weights`, of all but each miner and of each alone."""

    def areas(miners: set[str]) -> tuple[float, ...]:
        chosen = {name: weight for name, weight in WEIGHTS.items() if name in miners}
        configs = (HardConfig(algo_config=chosen, combiner=combiner) for combiner in ("calibrated", "weights"))
        return tuple(area(hard_examples(evidence, each, seed=seed).coefficients[rows], wrong) for each in configs)

    without = {f"without {name}": areas(set(WEIGHTS) - {name}) for name in WEIGHTS}
    return without | {f"{name} alone": areas({name}) for name in WEIGHTS}


def covered(found: HardExamples, rows: np.ndarray, wrong: np.ndarray) -> list[bool]:
    """At each of MARKS, whether the interval of what is left holds what is left."""
    ordered = wrong[np.argsort(-found.coefficients[rows], kind="stable")]
    told = [min(found.left, key=lambda each: abs(each.reviewed - mark * len(rows))) for mark in MARKS]
    return [each.low - 0.5 <= ordered[each.reviewed :].sum() <= each.high + 0.5 for each in told]


# ---- How well.


def area(score: np.ndarray, wrong: np.ndarray) -> float:
    return float(roc_auc_score(wrong, score)) if 0 < wrong.sum() < len(wrong) else float("nan")


def met(score: np.ndarray, wrong: np.ndarray, share: float) -> float:
    """The share of the errors among the first so many."""
    first = np.argsort(-score, kind="stable")[: round(share * len(score))]
    return float(wrong[first].sum() / max(1, wrong.sum()))


def reviewed_until(score: np.ndarray, wrong: np.ndarray, goal: float) -> float:
    """The share to review in this order until so many are right, as one sees afterwards."""
    places = np.flatnonzero(wrong[np.argsort(-score, kind="stable")])
    left = int((1 - goal) * len(wrong))
    return (places[len(places) - left - 1] + 1) / len(wrong) if len(places) > left else 0.0


def skill(p: np.ndarray, wrong: np.ndarray) -> float:
    """Of the Brier score, above that of the true share for everyone."""
    constant = float(np.mean((wrong - wrong.mean()) ** 2))
    return 1 - float(np.mean((p - wrong) ** 2)) / constant if constant else float("nan")


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "AUROC": area,
    "AP": lambda score, wrong: float(average_precision_score(wrong, score)),
    "10 %": lambda score, wrong: met(score, wrong, 0.1),
    "20 %": lambda score, wrong: met(score, wrong, 0.2),
    "to 98": lambda score, wrong: reviewed_until(score, wrong, 0.98),
    "to 99.5": lambda score, wrong: reviewed_until(score, wrong, 0.995),
}


#: What a line of the summary has.
SUMMED = ("AUROC", "AP", "20 %", "to 98")


def against_best_peer(trials: list[dict[str, Any]]) -> tuple[str, float, float, float]:
    """The peer of the largest mean area; how far ours lies above it, and a 90 % interval of that."""
    names = [name for name in trials[0]["scores"] if name not in (OURS, BY_WEIGHTS)]
    mean = {name: np.nanmean([area(each["scores"][name], each["wrong"]) for each in trials]) for name in names}
    best = max(names, key=lambda name: mean[name])
    chance, gaps = np.random.default_rng(0), []
    for _ in range(BOOTSTRAPS):
        gap = []
        for each in trials:
            drawn = chance.integers(0, len(each["wrong"]), len(each["wrong"]))
            wrong = each["wrong"][drawn]
            gap.append(area(each["scores"][OURS][drawn], wrong) - area(each["scores"][best][drawn], wrong))
        gaps.append(np.nanmean(gap))
    ours = np.nanmean([area(each["scores"][OURS], each["wrong"]) for each in trials])
    return best, float(ours - mean[best]), float(np.quantile(gaps, 0.05)), float(np.quantile(gaps, 0.95))


def against(trials: list[dict[str, Any]], measure: str) -> tuple[float, float]:
    """The mean of ours, and of the peer that is best at it."""
    work, best = MEASURES[measure], min if measure.startswith("to ") else max
    mean = {name: np.nanmean([work(t["scores"][name], t["wrong"]) for t in trials]) for name in trials[0]["scores"]}
    return float(mean[OURS]), float(best(value for name, value in mean.items() if name not in (OURS, BY_WEIGHTS)))


def summary(told: list[dict[str, Any]]) -> None:
    """A line a cell: ours and the peer that is best at it, measure by measure."""
    print(f"\n{'ours, best peer':32}{'wrong':>6}" + "".join(f"{name:>12}" for name in SUMMED), end="")
    print(f"{'area above':>14}{'ECE':>6}{'skill':>6}{'held':>5}")
    rows = [[part for name in SUMMED for part in each["measures"][name]] for each in told]
    for each, row in zip(told, rows, strict=True):
        print(f"{each['cell'].removesuffix(' min'):32}{100 * each['wrong']:6.1f}{_numbers(row)}", end="")
        low, high = each["interval"]
        print(f"{low:+7.3f}{high:+7.3f}{each['ece']:6.3f}{each['skill']:6.2f}{100 * each['covered']:5.0f}")
    print(f"{'mean':38}{_numbers(np.nanmean(rows, axis=0))}", end="")
    ece, skilled, held = (np.mean([each[name] for each in told]) for name in ("ece", "skill", "covered"))
    print(f"{np.mean([each['gap'] for each in told]):+14.3f}{ece:6.3f}{skilled:6.2f}{100 * held:5.0f}")


def _numbers(values: Iterable[float]) -> str:
    return "".join(f"{value:6.3f}" for value in values)


def report(title: str, trials: list[dict[str, Any]]) -> dict[str, Any]:
    print(f"\n{title}; {len(trials)} seeds, {100 * np.mean([t['wrong'].mean() for t in trials]):.2f} % wrong")
    print(f"{'':38}" + "".join(f"{name:>8}" for name in MEASURES))
    for name in trials[0]["scores"]:
        values = [np.nanmean([work(t["scores"][name], t["wrong"]) for t in trials]) for work in MEASURES.values()]
        print(f"{name:38}" + "".join(f"{value:8.3f}" for value in values))
    ece = np.mean([expected_calibration_error(t["scores"][OURS].clip(0, 1), t["wrong"]) for t in trials])
    brier = np.mean([skill(t["scores"][OURS], t["wrong"]) for t in trials])
    hard, caught = np.mean([[t["hard"].mean(), t["hard"][t["wrong"]].mean()] for t in trials], axis=0)
    best, gap, low, high = against_best_peer(trials)
    held = np.mean([t["covered"] for t in trials])
    print(f"ours above {best}: {gap:+.3f} ({low:+.3f} to {high:+.3f}); ECE {ece:.3f}, Brier skill {brier:.3f}", end="")
    print(f", interval holds the truth in {100 * held:.0f} % of {len(trials) * len(MARKS)}")
    print(f"by weights {100 * hard:.0f} % are hard, and {100 * caught:.0f} % of the wrong ones")
    for at, goal in enumerate(GOALS if trials[0]["efforts"] else ()):
        parts, right = np.mean([t["efforts"][at] for t in trials], axis=0)
        touched = np.mean([(t["labels"] + t["efforts"][at][0] * len(t["wrong"])) / t["images"] for t in trials])
        reached = np.mean([t["efforts"][at][1] >= goal for t in trials])
        print(f"until {100 * goal:g} % are right: {100 * parts:.1f} % reviewed, then {100 * right:.2f} % are", end="; ")
        print(f"{100 * touched:.1f} % of all images touched", end="; ")
        print(f"the goal was reached in {100 * reached:.0f} % of the runs")
    seconds, looking = (np.mean([t[name] for t in trials]) for name in ("seconds", "looking"))
    looks = "" if np.isnan(looking) else f"; all miners {looking:.1f} x one look at every image by all networks"
    print(f"labeling {seconds:.0f} s{looks}")
    for what in trials[0]["ablation"]:
        areas = np.nanmean([t["ablation"][what] for t in trials], axis=0)
        print(f"  {what:36} calibrated {areas[0]:.3f}, weights {areas[1]:.3f}")
    reasons = {number: float(np.nanmean([t["reasons"][number] for t in trials])) for number in trials[0]["reasons"]}
    print("AUROC by reason: " + ", ".join(f"{number} {value:.2f}" for number, value in reasons.items()), flush=True)
    return {
        "cell": title,
        "wrong": float(np.mean([t["wrong"].mean() for t in trials])),
        "measures": {name: against(trials, name) for name in MEASURES},
        "gap": gap,
        "interval": [low, high],
        "covered": float(held),
        "efforts": np.mean([t["efforts"] for t in trials], axis=0).tolist(),
        "ece": float(ece),
        "skill": float(brier),
        "reasons": reasons,
    }


def data_sets(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Dataset]]:
    only = options.only.split(",") if options.only else []
    if not only or "digits" in only:
        yield "digits", read_samples(digits(folder / "digits"), format="tree")
    for name, _, path in (entry.partition("=") for entry in options.tree):
        if not only or name in only:
            dataset = read_samples(path, format="tree")
            step = max(1, -(-len(dataset) // options.most)) if options.most else 1
            yield name, dataset.with_samples(dataset.samples[::step])


def cells(options: argparse.Namespace, folder: Path) -> Iterator[Cell]:
    for name, given in data_sets(options, folder):
        dataset, names = under_random_names(given, folder / f"{name}-flat")
        labels = options.labels.split(",") if options.labels else LABELS.get(name, USUAL_LABELS)
        for algorithm in options.algorithms.split(","):
            for count in map(int, labels):
                yield Cell(name, dataset, names, algorithm, count, options.minutes, options.device)


def workers(jobs: int) -> Executor:
    """Who does the trials: with one job this process, else so many others, each on its part of the processors."""
    if jobs == 1:
        return ThreadPoolExecutor(1)
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, share_processors, (context.Value("i", 0), jobs))


def share_processors(started: Any, jobs: int) -> None:
    """This process, one of so many, keeps to its part of the processors. started: how many were before it."""
    with started.get_lock():
        place = started.value
        started.value += 1
    share = max(1, processors() // jobs)
    if hasattr(os, "sched_setaffinity"):  # Linux
        every = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {every[(place * share + step) % len(every)] for step in range(share)})
    torch.set_num_threads(share)
    threadpool_limits(share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", action="append", default=[], metavar="NAME=FOLDER", help="one folder a class")
    parser.add_argument("--only", metavar="NAMES", help="of the data sets, with commas between")
    parser.add_argument("--labels", metavar="NUMBERS", help="labeled images, with commas between")
    parser.add_argument("--algorithms", metavar="NAMES", default="fast,accurate")
    parser.add_argument("--minutes", type=float, default=1.0, help="of each labeling")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--most", type=int, default=0, help="images of a tree (all)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what labeling has found, and use it again")
    parser.add_argument("--ablation", action="store_true", help="each miner alone, and all but each")
    parser.add_argument(
        "--no-review", action="store_true", help="do not simulate reviews, which takes most of the time"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at once")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the cells here, as JSON")
    options = parser.parse_args()
    told = []
    with tempfile.TemporaryDirectory() as temporary, workers(options.jobs) as pool:
        work = partial(
            trial,
            folder=Path(temporary),
            keep=options.keep,
            ablation=options.ablation,
            reviewing=not options.no_review,
        )
        asked = [
            (cell, [pool.submit(work, cell, seed) for seed in range(options.seeds)])
            for cell in cells(options, Path(temporary))
        ]
        for cell, trials in asked:
            told.append(report(cell.title, [each.result() for each in trials]))
            if options.out:
                options.out.write_text(json.dumps(told, indent=1))
    if len(told) > 1:
        summary(told)


if __name__ == "__main__":
    main()
