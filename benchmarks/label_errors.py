"""Wrong labels of people against cleanlab: who finds those that were planted?

    python benchmarks/label_errors.py [--tree signs=FOLDER] [--only digits] [--labels 500] [--seeds 5] [--steps 60]

Of each data set (the digits of datasets/digits.py, and every tree given) so many images are drawn, all of them labeled,
and 5, 10 and 20 % of the labels replaced: by any other one (uniform), or by the class that a logistic regression on our
content vectors confuses it with most (confusable). `find_hard_examples(labeled=True)` trains its networks on these
labels, out of fold, in so many steps each; from the same out-of-fold probabilities cleanlab ranks
(get_label_quality_scores) and chooses (find_label_issues).

Printed, the mean over the seeds: average precision of the order, F1 of what each calls wrong at its own threshold,
expected calibration error of our coefficient, and the share of wrong labels that we estimate.

Recorded, --only digits --seeds 1 --steps 40:

    digits, 500 labels, 1 seeds, 40 steps a network
                            ours AP  cleanlab AP      ours F1  cleanlab F1     ours ECE    estimated         true
    uniform        5 %        1.000        1.000        1.000        0.919        0.001        0.041        0.040
    uniform       10 %        1.000        0.995        0.978        0.884        0.010        0.089        0.094
    uniform       20 %        0.997        0.998        0.974        0.946        0.023        0.196        0.192
    confusable     5 %        1.000        1.000        1.000        0.947        0.003        0.039        0.040
    confusable    10 %        0.998        0.997        0.920        0.933        0.025        0.086        0.094
    confusable    20 %        0.941        0.925        0.884        0.902        0.046        0.197        0.192
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from hard_examples import data_sets, under_random_names
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import cross_val_predict

from engine.dataset import Dataset
from engine.embeddings import Gradients, content_vectors
from engine.evaluation import expected_calibration_error
from engine.hard.labeled import evidence_of
from engine.hard.planted import label_errors
from engine.hard.reasons import OPERATOR_WEIGHTS
from engine.label.fast import FOLDS
from engine.label.labeling import auto_label
from engine.samples import IMAGE_CLASSIFICATION, Label
from engine.survey import survey

RATES = (0.05, 0.1, 0.2)
KINDS = ("uniform", "confusable")
ROWS = ("ours AP", "cleanlab AP", "ours F1", "cleanlab F1", "ours ECE", "estimated", "true")


def confusions(dataset: Dataset, truth: np.ndarray, folder: Path) -> np.ndarray:
    """(k,): for each class the other one that it is taken for most often."""
    found = survey(dataset, dataset.sources, folder=folder, thumbnail_side=Gradients().size)
    assert found.thumbnails is not None
    vectors = content_vectors(found.thumbnails.batches).numpy()
    guessed = cross_val_predict(LogisticRegression(max_iter=500), vectors, truth, method="predict_proba", cv=5)
    mean = np.stack([guessed[truth == k].mean(axis=0) for k in range(guessed.shape[1])])
    np.fill_diagonal(mean, 0)
    return mean.argmax(axis=1)


def planted(truth: np.ndarray, rate: float, kind: str, confused: np.ndarray, seed: int) -> np.ndarray:
    chance = np.random.default_rng(seed)
    k, wrong = len(confused), chance.random(len(truth)) < rate
    other = (truth + chance.integers(1, k, len(truth))) % k if kind == "uniform" else confused[truth]
    return np.where(wrong, other, truth)


def trial(
    dataset: Dataset, truth: np.ndarray, given: np.ndarray, labels: np.ndarray, steps: int, seed: int, folder: Path
) -> list[float]:
    import cleanlab.filter
    import cleanlab.rank

    told = dataset.with_samples(
        replace(sample, labels=(Label(type=IMAGE_CLASSIFICATION, name=str(labels[k])),))
        for sample, k in zip(dataset, given, strict=True)
    )
    labeling = auto_label(
        told,
        "fast",
        steps=[steps],
        min_per_class=2,
        least_unlabeled=0,
        networks=FOLDS,
        seed=seed,
        folder=folder,
    )
    assert labeling.survey.thumbnails is not None
    evidence = evidence_of(told.samples, labeling, labeling.survey.thumbnails, operators=tuple(OPERATOR_WEIGHTS))
    found = label_errors(replace(evidence, given=evidence.told), seed=seed)
    wrong = given != truth
    p = labeling.probabilities.astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    return [
        average_precision_score(wrong, found.coefficients),
        average_precision_score(wrong, -cleanlab.rank.get_label_quality_scores(given, p)),
        f1_score(wrong, found.hard),
        f1_score(wrong, cleanlab.filter.find_label_issues(given, p)),
        expected_calibration_error(found.coefficients.astype(np.float64), wrong),
        float(found.choices["estimated_share_wrong"]),
        float(wrong.mean()),
    ]


def compare(name: str, dataset: Dataset, names: np.ndarray, options: argparse.Namespace, folder: Path) -> None:
    labels = np.unique(names)
    rows = np.sort(np.random.default_rng(0).permutation(len(dataset))[: options.labels])
    some, truth = dataset.with_samples(dataset[row] for row in rows), np.searchsorted(labels, names[rows])
    confused = confusions(some, truth, folder)
    print(f"\n{name}, {len(some)} labels, {options.seeds} seeds, {options.steps} steps a network")
    print(f"{'':18}" + "".join(f"{row:>13}" for row in ROWS))
    for kind in KINDS:
        for rate in RATES:
            trials = [
                trial(some, truth, planted(truth, rate, kind, confused, seed), labels, options.steps, seed, folder)
                for seed in range(options.seeds)
            ]
            figures = "".join(f"{value:13.3f}" for value in np.mean(trials, axis=0))
            print(f"{kind:11}{100 * rate:5.0f} %{figures}", flush=True)


def sets(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Dataset, np.ndarray]]:
    for name, given in data_sets(options, folder):
        yield (name, *under_random_names(given, folder / f"{name}-flat"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", action="append", default=[], metavar="NAME=FOLDER", help="one folder a class")
    parser.add_argument("--only", metavar="NAMES", help="of the data sets, with commas between")
    parser.add_argument("--labels", type=int, default=500)
    parser.add_argument("--steps", type=int, default=60, help="of each network")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--most", type=int, default=0, help="images of a tree (all)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        for name, dataset, names in sets(options, Path(temporary)):
            compare(name, dataset, names, options, Path(temporary) / f"{name}-survey")


if __name__ == "__main__":
    main()
