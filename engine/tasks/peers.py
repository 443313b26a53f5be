"""Classifiers of scikit-learn that auto labeling is held against: vectors in, probabilities out.

Each is a function `(seen, told, unseen, multi_label) -> (m, k)`. seen: (n, d) float32 vectors of labeled images. told:
(n, k) bool, their labels. unseen: (m, d) the vectors to be labeled. A label that no image of `told` has gets the
probability 0. Knows nothing of images or files.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from engine.errors import UsageError
from engine.samples import UNLABELED

Vectors: TypeAlias = npt.NDArray[np.float32]
Told: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
Peer: TypeAlias = Callable[[Vectors, Told, Vectors, bool], Floats]

#: Inverse strengths of the penalty that are tried, and the one that is taken when there are too few labels to try.
_STRENGTHS: Final = (0.1, 1.0, 10.0, 100.0, 1000.0)
_USUAL_STRENGTH: Final = 10.0
#: Labeled images that the strength is chosen on at most, and parts that they are cut into.
_CHOICE_ROWS: Final = 1_000
_FOLDS: Final = 5
_ITERATIONS: Final = 1_000
#: Neighbours of the graph that labels spread over; a full one would need n * n numbers.
_NEIGHBOURS: Final = 10
#: Products of fewer numbers than this are done by one thread: several wait for one another most of the time, on a busy
#: machine ten times as long as the work takes.
_SMALL: Final = 2_000_000
#: Probabilities are kept this far from 0 and 1 in a logarithm.
_LEAST: Final = 1e-6


def logistic(seen: Vectors, told: Told, unseen: Vectors, multi_label: bool) -> Floats:
    """LogisticRegression, one against the rest where an image may have several labels. The penalty is chosen by the
    log loss of cross-validation, so that the peer is as good as it can be."""
    with _quietly(seen):
        model = _regression(_strength(seen, told, multi_label), multi_label).fit(seen, _goal(told, multi_label))
        found: Floats = np.asarray(model.predict_proba(unseen), np.float64)
    return found if multi_label else _spread(found, model.classes_, told.shape[1])


def label_spreading(seen: Vectors, told: Told, unseen: Vectors, multi_label: bool) -> Floats:
    """LabelSpreading over the nearest neighbours; an image that no label reaches is given the frequencies of the
    labels. Raises UsageError where an image may have several labels."""
    _refuse(multi_label, "LabelSpreading")
    rows, goal = _together(seen, told, unseen)
    model = LabelSpreading(kernel="knn", n_neighbors=min(_NEIGHBOURS, len(rows) - 1), max_iter=100)
    with _quietly(rows), np.errstate(all="ignore"):
        model.fit(rows, goal)
    found = _spread(np.nan_to_num(model.label_distributions_[len(seen) :]), model.classes_, told.shape[1])
    sums = found.sum(axis=1, keepdims=True)
    return np.where(sums > 0, found / np.where(sums > 0, sums, 1), told.mean(axis=0))


def self_training(seen: Vectors, told: Told, unseen: Vectors, multi_label: bool) -> Floats:
    """SelfTrainingClassifier over the regression of `logistic`: what it is sure of (from 0.75 on) becomes a label.
    Raises UsageError where an image may have several labels."""
    _refuse(multi_label, "SelfTrainingClassifier")
    rows, goal = _together(seen, told, unseen)
    with _quietly(rows):
        model = SelfTrainingClassifier(_regression(_strength(seen, told, False), False)).fit(rows, goal)
        return _spread(np.asarray(model.predict_proba(unseen), np.float64), model.classes_, told.shape[1])


PEERS: Final[dict[str, Peer]] = {
    "logistic": logistic,
    "label-spreading": label_spreading,
    "self-training": self_training,
}


@contextmanager
def _quietly(rows: Vectors) -> Iterator[None]:
    """Without warnings (not converged, a label that a part lacks: the scores show it), and with one thread for few
    numbers."""
    with warnings.catch_warnings(), threadpool_limits(1 if rows.size < _SMALL else None):
        warnings.simplefilter("ignore")
        yield


def _refuse(multi_label: bool, name: str) -> None:
    if multi_label:
        raise UsageError(f"{name}: takes one label an image, got images with several")


def _regression(strength: float, multi_label: bool) -> Any:
    model = LogisticRegression(C=strength, max_iter=_ITERATIONS)
    return OneVsRestClassifier(model) if multi_label else model


def _goal(told: Told, multi_label: bool) -> npt.NDArray[np.int64]:
    """What scikit-learn calls y: (n, k) of 0 and 1, or (n,) class numbers."""
    return told.astype(np.int64) if multi_label else told.argmax(axis=1).astype(np.int64)


def _together(seen: Vectors, told: Told, unseen: Vectors) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Labeled rows, then the others; their classes, UNLABELED of the others."""
    return np.vstack([seen, unseen]), np.concatenate([_goal(told, False), np.full(len(unseen), UNLABELED, np.int64)])


def _spread(found: npt.ArrayLike, classes: npt.NDArray[np.int64], k: int) -> Floats:
    """Columns of the classes that occur -> all k columns."""
    columns = np.asarray(found, np.float64)
    result = np.zeros((len(columns), k))
    result[:, classes] = columns
    return result


def _strength(seen: Vectors, told: Told, multi_label: bool) -> float:
    seen, told = seen[:_CHOICE_ROWS], told[:_CHOICE_ROWS]
    goal = _goal(told, multi_label)
    counts = told.sum(axis=0)
    least = len(told) if multi_label else int(counts[counts > 0].min(initial=len(told)))
    if least < 2:
        return _USUAL_STRENGTH
    cut = (KFold if multi_label else StratifiedKFold)(min(_FOLDS, least), shuffle=True, random_state=0)
    truth = told if multi_label else told[:, counts > 0]

    def loss(strength: float) -> float:
        said = cross_val_predict(_regression(strength, multi_label), seen, goal, cv=cut, method="predict_proba")
        chance = np.clip(said, _LEAST, 1 - _LEAST)
        return float(-np.log(np.where(truth, chance, 1 - chance if multi_label else 1)).sum())

    return min(_STRENGTHS, key=loss)
