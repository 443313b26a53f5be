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
(at 0, 5, 10 and 20 % reviewed); how many labels are hard by weights at the
documented threshold, and how many of the wrong ones; what part of the images a person must review until the engine,
which learns from the review, says that 98 and 99.5 % are right, how many are, and how many a person has touched, with
those labeled first; seconds of all miners over those of
one look at every image by all networks. With --ablation the area of each miner alone and of all but each, by both
combiners. --keep: what labeling has found is kept in FOLDER, and used again by a later run, which then takes seconds.
--jobs: so many seeds at once, each on its part of the processors (and all on one --device), where figures of speed mean
nothing.

Recorded, 2 cores without AMX, --algorithms fast --seeds 3 --minutes 1, labelings of an earlier run by --keep (other
work ran beside digits with 50 labels and signs with 100, which took steps from networks; one of signs is wrong in a
fifth for it):

    digits, 50 labels, fast 1 min; 3 seeds, 5.59 % wrong
                                             AUROC      AP    10 %    20 %
    ours                                     0.974   0.667   0.883   0.974
    ours, weights                            0.961   0.545   0.844   0.970
    least confidence                         0.960   0.510   0.804   0.963
    margin                                   0.959   0.492   0.808   0.963
    entropy                                  0.959   0.502   0.783   0.960
    cleanlab self_confidence                 0.960   0.510   0.804   0.963
    cleanlab normalized_margin               0.959   0.492   0.808   0.963
    cleanlab confidence_weighted_entropy     0.955   0.458   0.774   0.960
    cleanlab OutOfDistribution               0.600   0.086   0.152   0.359
    ours above least confidence: +0.014 (+0.011 to +0.017);
      ECE 0.030, Brier skill 0.395, interval holds the truth in 92 % of 12
    by weights 20 % are hard, and 97 % of the wrong ones
    until 98 % are right: 8.2 % reviewed, then 99.60 % are; the goal was reached in 100 % of the runs
    until 99.5 % are right: 15.4 % reviewed, then 99.98 % are; the goal was reached in 100 % of the runs
    labeling 82 s; all miners 2.7 x one look at every image by all networks

    digits, 100 labels, fast 1 min; 3 seeds, 1.98 % wrong
                                             AUROC      AP    10 %    20 %
    ours                                     0.984   0.603   0.990   0.990
    ours, weights                            0.974   0.452   0.942   0.982
    least confidence                         0.975   0.437   0.963   0.982
    margin                                   0.976   0.443   0.963   0.982
    entropy                                  0.973   0.416   0.972   0.982
    cleanlab self_confidence                 0.975   0.437   0.963   0.982
    cleanlab normalized_margin               0.976   0.443   0.963   0.982
    cleanlab confidence_weighted_entropy     0.974   0.429   0.963   0.982
    cleanlab OutOfDistribution               0.923   0.156   0.647   0.942
    ours above margin: +0.009 (+0.006 to +0.011);
      ECE 0.007, Brier skill 0.379, interval holds the truth in 100 % of 12
    by weights 17 % are hard, and 98 % of the wrong ones
    until 98 % are right: 4.3 % reviewed, then 99.84 % are; the goal was reached in 100 % of the runs
    until 99.5 % are right: 12.6 % reviewed, then 99.98 % are; the goal was reached in 100 % of the runs
    labeling 60 s; all miners 2.0 x one look at every image by all networks

    signs, 100 labels, fast 1 min; 3 seeds, 10.79 % wrong
                                             AUROC      AP    10 %    20 %
    ours                                     0.941   0.740   0.702   0.843
    ours, weights                            0.923   0.541   0.599   0.816
    least confidence                         0.901   0.494   0.563   0.766
    margin                                   0.900   0.469   0.550   0.763
    entropy                                  0.894   0.470   0.534   0.739
    cleanlab self_confidence                 0.901   0.494   0.563   0.766
    cleanlab normalized_margin               0.900   0.469   0.550   0.763
    cleanlab confidence_weighted_entropy     0.898   0.485   0.547   0.755
    cleanlab OutOfDistribution               0.848   0.349   0.407   0.681
    ours above least confidence: +0.040 (+0.034 to +0.044);
      ECE 0.032, Brier skill 0.436, interval holds the truth in 100 % of 12
    by weights 21 % are hard, and 82 % of the wrong ones
    until 98 % are right: 22.6 % reviewed, then 99.73 % are; the goal was reached in 100 % of the runs
    until 99.5 % are right: 34.1 % reviewed, then 99.88 % are; the goal was reached in 100 % of the runs
    labeling 65 s; all miners 2.2 x one look at every image by all networks

    signs, 200 labels, fast 1 min; 3 seeds, 1.47 % wrong
                                             AUROC      AP    10 %    20 %
    ours                                     0.948   0.731   0.917   0.934
    ours, weights                            0.957   0.494   0.917   0.917
    least confidence                         0.937   0.464   0.917   0.934
    margin                                   0.937   0.432   0.917   0.934
    entropy                                  0.935   0.398   0.917   0.934
    cleanlab self_confidence                 0.937   0.464   0.917   0.934
    cleanlab normalized_margin               0.937   0.432   0.917   0.934
    cleanlab confidence_weighted_entropy     0.936   0.440   0.917   0.934
    cleanlab OutOfDistribution               0.910   0.168   0.792   0.912
    ours above margin: +0.011 (+0.007 to +0.016);
      ECE 0.008, Brier skill 0.462, interval holds the truth in 100 % of 12
    by weights 17 % are hard, and 91 % of the wrong ones
    until 98 % are right: 3.2 % reviewed, then 99.84 % are; the goal was reached in 100 % of the runs
    until 99.5 % are right: 8.0 % reviewed, then 99.89 % are; the goal was reached in 100 % of the runs
    labeling 53 s; all miners 2.3 x one look at every image by all networks

    digits, 50 labels, accurate 2 min; 3 seeds, 1.55 % wrong (--algorithms accurate --minutes 2 --no-review), by a later
    version, whose heads are taught by the graph (before: 2.58 % wrong, area 0.987 and 0.976, precision 0.625 and 0.474)
                                             AUROC      AP    10 %    20 %
    ours                                     0.993   0.713   1.000   1.000
    ours, weights                            0.990   0.530   0.991   1.000
    least confidence                         0.990   0.588   0.991   1.000
    margin                                   0.990   0.580   0.991   1.000
    entropy                                  0.990   0.492   0.991   1.000
    cleanlab confidence_weighted_entropy     0.990   0.570   0.991   1.000
    cleanlab OutOfDistribution               0.614   0.029   0.142   0.369
    ours above margin: +0.003 (+0.001 to +0.004);
      ECE 0.019, Brier skill 0.056
    by weights 24 % are hard, and 100 % of the wrong ones
    labeling 120 s; all miners 3.3 x one look at every image by all networks
    The same again, other labelings, 1.60 % wrong: area 0.991 and 0.988, precision 0.614 and 0.498, ECE 0.020, Brier
      skill -0.008; the interval holds the truth in 100 % of 12 (33 % before: nothing is left after a tenth, which an
      exponential share of errors anywhere never believed), though more errors are expected than there are
    And again, by a network that learns of the images of its own part as of unlabeled ones, 1.18 % wrong: area 0.992 and
      0.991, precision 0.688 and 0.558, ECE 0.026, Brier skill -0.752, the interval 100 % of 12

    --only signs --labels 100,200,400 --seeds 5 --minutes 0.5 --no-review --jobs 8, on eight cores with AMX, one each;
    `accurate` took five times its half minute there, for it began to learn without labels whatever the time, and its
    last cell was not finished. Area, best peer's; average precision, best peer's; ECE; interval holds the truth
    fast,     100 labels, 18.37 % wrong   0.917, 0.869 (+0.048: +0.044 to +0.051)   0.696, 0.549   0.046   100 % of 20
    fast,     200 labels, 11.49 % wrong   0.942, 0.908 (+0.034: +0.030 to +0.038)   0.738, 0.534   0.030   100 %
    fast,     400 labels,  7.29 % wrong   0.969, 0.914 (+0.056: +0.051 to +0.062)   0.802, 0.434   0.027   100 %
    accurate, 100 labels, 26.04 % wrong   0.843, 0.836 (+0.008: +0.003 to +0.012)   0.611, 0.585   0.065   100 %
    accurate, 200 labels, 19.09 % wrong   0.892, 0.870 (+0.022: +0.018 to +0.025)   0.627, 0.553   0.047    90 %

    --algorithms logistic --seeds 10 --labels 100,250 --most 4000 --no-review
    digits, 100 labels, 4.26 % wrong
      ours above least confidence: +0.031 (+0.028 to +0.034);
      ECE 0.020, Brier skill 0.621, interval holds the truth in 100 % of 40 (92 before)
    digits, 250 labels, 1.91 % wrong
      ours above margin: +0.020 (+0.016 to +0.023);
      ECE 0.008, Brier skill 0.596, interval holds the truth in 100 % of 40 (98)
    signs, 100 labels, 27.35 % wrong
      ours above cleanlab confidence_weighted_entropy: +0.052 (+0.049 to +0.055);
      ECE 0.077, Brier skill 0.304, interval holds the truth in 95 % of 40
    signs, 250 labels, 18.25 % wrong
      ours above cleanlab confidence_weighted_entropy: +0.046 (+0.042 to +0.048);
      ECE 0.040, Brier skill 0.390, interval holds the truth in 100 % of 40

    digits, 50 labels, --ablation (before intervals and levels were mended, which changes no order)
      without clustering_mining            calibrated 0.961, weights 0.953
      without aug_consistent_mining        calibrated 0.973, weights 0.959
      without predict_score_mining         calibrated 0.973, weights 0.938
      without anomaly_detection_mining     calibrated 0.973, weights 0.955
      (each of the others: no change)
      clustering_mining alone              calibrated 0.973, weights 0.944
      image_similarity_mining alone        calibrated 0.960, weights 0.902
      predict_score_mining alone           calibrated 0.957, weights 0.958
      anomaly_detection_mining alone       calibrated 0.960, weights 0.821
      aug_consistent_mining alone          calibrated 0.960, weights 0.723
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
