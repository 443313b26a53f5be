"""All miners at once: what is known about samples in, the score of each reason out.

In: an `Evidence`, parallel to n samples. Out: `Mined`, reason -> (n,) scores in [0, 1], 1 = hardest, NaN where a miner
has nothing to say, and of each label by itself what miners say of labels. A label is never held against how a model
sees its sample that has seen it: each `View` knows its training images, and a sample that it has learned from is judged
by the other views where there are any. (Where no model was asked by itself, what all of them believe of the unlabeled
samples around has seen it.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import InputError
from engine.features import FEATURES_OF_REASONS
from engine.hard.anomaly import abnormality, joined
from engine.hard.clustering import around, disagreement
from engine.hard.distribution import offset
from engine.hard.predict_score import low_confidence
from engine.hard.reasons import WEIGHTS
from engine.hard.sequential import inconsistency
from engine.hard.similarity import unlikeness
from engine.label.training import generator_of

#: Samples that are needed to tell what is usual; with fewer, others stand in, or the meaning of the scores.
LEAST_REFERENCE: Final = 10

#: Scores of one reason for all samples, or NaN.
Scores = dict[int, Tensor]

#: What is measured of a box alone: a thrombocyte is as small as no other cell.
_OF_A_BOX: Final = range(13, 19)

_PREDICT_SCORE: Final = "predict_score_mining"
_CLUSTERING: Final = "clustering_mining"
_SIMILARITY: Final = "image_similarity_mining"
_SEQUENTIAL: Final = "sequential_mining"
_DISTRIBUTION: Final = "feature_distribution_mining"
_ANOMALY: Final = "anomaly_detection_mining"
_CONSISTENCY: Final = "aug_consistent_mining"


@dataclass(frozen=True, slots=True)
class View:
    """How one model sees all samples. vectors: (n, d) float, compared by Euclidean distance; rows of NaN where there is
    nothing to see. seen: (t,) int64, positions of its training images: the samples whose labels it has learned from,
    or that people have labeled since. beliefs: (n, k), what it says by itself of all samples, rows of NaN for nothing;
    None: nobody has asked it."""

    vectors: Tensor
    seen: Tensor
    beliefs: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about n samples.

    probabilities: (n, k) float, calibrated; rows of NaN where labels came without. given: (n, k) bool, the labels in
    question: predicted ones, or people's; none where nothing is to be judged. told: (n, k) bool, what people said; no
    label elsewhere. judged: (n,) bool, labeled samples whose prediction is out of fold: on them is learned what scores
    mean. views: may be none. features: by reason, 5..18, (n,): what was measured, NaN where it was not. altered: by
    reason, 19..29, (n,): how much predictions change. sequences: positions in order. said: (n, k), what is compared
    between similar samples in a row, parts of one whole, or with several labels a sample each by itself; rows of NaN
    where nobody knows; None: the probabilities, and where labels came without, those. own: (n, k), what of a sample
    itself is held against what is said of those beside it; None: the same. chosen: (n,) bool, judged samples that a
    person may have picked for being doubtful: they tell what scores mean, not what is usual; None: there are none.
    contents: (n, d) float, what pixels show to eyes that no label has taught, as vectors of a view; None: nobody has
    looked, or the views are these eyes.
    """

    probabilities: Tensor
    given: Tensor
    told: Tensor
    judged: Tensor
    multi_label: bool = False
    views: tuple[View, ...] = ()
    features: Mapping[int, Tensor] = field(default_factory=dict)
    altered: Mapping[int, Tensor] = field(default_factory=dict)
    sequences: Sequence[Sequence[int]] = ()
    said: Tensor | None = None
    own: Tensor | None = None
    chosen: Tensor | None = None
    contents: Tensor | None = None

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def predicted(self) -> Tensor:
        """(n,) bool, where a label is in question."""
        return self.given.any(dim=1)

    @property
    def compared(self) -> Tensor:
        """(n, k): `said`, or what stands for it."""
        if self.said is not None:
            return self.said
        labels = self.weighed.float()  # where labels came without probabilities
        labels[~self.weighed.any(dim=1)] = torch.nan
        return torch.where(self.probabilities.isnan().any(dim=1, keepdim=True), labels, self.probabilities)

    @property
    def weighed(self) -> Tensor:
        """(n, k): the labels in question, and where none is, what people said: what training samples score with their
        own labels is what others are held against."""
        return torch.where(self.predicted[:, None], self.given, self.told)

    @property
    def reference(self) -> Tensor:
        """(n,) bool: samples whose scores tell what is usual: those judged out of fold that nobody has chosen; where
        these are few, all that were judged; and where these are, all labeled ones."""
        judged = self.judged & self.predicted & ~self.doubt.isnan()
        fair = judged if self.chosen is None else judged & ~self.chosen
        enough = (each for each in (fair, judged) if int(each.sum()) >= LEAST_REFERENCE)
        return next(enough, self.told.any(dim=1))

    @property
    def doubt(self) -> Tensor:
        """(n,) in [0, 1]: the probability that a label in question is wrong as the model tells it, or NaN."""
        if self.multi_label or self.given.shape[1] == 1:
            doubt = low_confidence(self.probabilities, self.given)
        else:  # the same, without losing the digits of a very small one
            doubt = torch.where(self.given, 0.0, self.probabilities).sum(dim=1).clamp(0, 1)
        return torch.where(self.predicted, doubt, torch.nan)

    def beliefs(self, said: Tensor | None = None) -> Tensor:
        """(n, k): what people said, and where nobody did, what is believed by all models, or by one that said this of
        all samples; rows of NaN where nothing is."""
        said = self.probabilities if said is None else said
        unknown = said.isnan().any(dim=1, keepdim=True)
        given = torch.where(self.predicted[:, None], self.given.float(), torch.nan)
        return torch.where(self.told.any(dim=1, keepdim=True), self.told.float(), torch.where(unknown, given, said))

    @classmethod
    def of_arrays(
        cls,
        probabilities: npt.ArrayLike,
        labels: npt.ArrayLike | None = None,
        *,
        given: npt.ArrayLike | None = None,
        embeddings: npt.ArrayLike | None = None,
        out_of_fold: bool = True,
    ) -> Evidence:
        """From plain arrays, for people who have only those.

        probabilities: (n, k). labels: what people said, (n,) class numbers, -1 where nobody did; or with several labels
        a sample (n, k) bool. given: the labels in question, in either form; the most probable ones by default, from
        0.5 on with several labels a sample. embeddings: (n, d), how a model sees the samples. out_of_fold: whether the
        probabilities of labeled samples are by a model that had not seen their label; only then they are learned from.
        Raises InputError for numbers that are no classes.
        """
        p = torch.as_tensor(np.asarray(probabilities, np.float32))
        if p.ndim != 2:
            raise InputError(f"probabilities: must be (n, k), got {tuple(p.shape)}")
        told = torch.zeros(p.shape, dtype=torch.bool) if labels is None else _as_matrix("labels", labels, *p.shape)
        several = any(each is not None and np.ndim(each) == 2 for each in (labels, given))
        if given is not None:
            asked = _as_matrix("given", given, *p.shape)
        else:
            asked = F.one_hot(p.nan_to_num(-1).argmax(dim=1), p.shape[1]).bool() & ~p.isnan().any(dim=1, keepdim=True)
            asked |= (p >= 0.5) & several
        views: tuple[View, ...] = ()
        if embeddings is not None:
            vectors = torch.as_tensor(np.asarray(embeddings, np.float32))
            views = (View(vectors, told.any(dim=1).nonzero()[:, 0]),)
        return cls(p, asked, told, told.any(dim=1) & asked.any(dim=1) & out_of_fold, several, views)


def _as_matrix(what: str, labels: npt.ArrayLike, n: int, k: int) -> Tensor:
    """Class numbers (n,), or (n, k) bool -> (n, k) bool."""
    found = np.asarray(labels)
    if found.shape not in ((n,), (n, k)):
        raise InputError(f"{what}: must be ({n},) or ({n}, {k}), got {found.shape}")
    if found.ndim == 2:
        return torch.as_tensor(found.astype(bool))
    if not np.issubdtype(found.dtype, np.integer) or (found.size and not -1 <= found.min() <= found.max() < k):
        got = f"{found.min()}..{found.max()}" if found.size and found.dtype.kind in "iuf" else str(found.dtype)
        raise InputError(f"{what}: must be class numbers 0..{k - 1}, or -1 for none, got {got}")
    numbers = torch.as_tensor(found.astype(np.int64))
    return F.one_hot(numbers.clamp(min=0), k).bool() & (numbers >= 0)[:, None]


@dataclass(frozen=True, slots=True)
class Mined:
    """scores: by reason, (n,) in [0, 1] or NaN; of several labels in question the worst one counts. of_labels: reasons
    that say something of each label, (n, k), NaN where none is in question; for others that of the sample holds.
    around: (n, k) in [0, 1], how far the samples around one do not believe its label, as models see them. alike: the
    same as pixels show them, to eyes that no label has taught. NaN where nobody knows."""

    scores: Scores
    of_labels: Scores
    around: Tensor
    alike: Tensor

    def doubts(self, evidence: Evidence) -> Tensor:
        """(n, 3) in [0, 1] or NaN: of the sample itself, of those around it, and of those alike."""
        return torch.stack([evidence.doubt, _worst(self.around), _worst(self.alike)], dim=1)

    def doubts_of(self, evidence: Evidence, rows: Tensor, columns: Tensor) -> Tensor:
        """(m, 3): the same of labels by themselves."""
        own = 1 - evidence.probabilities[rows, columns] if evidence.multi_label else evidence.doubt[rows]
        return torch.stack([own, self.around[rows, columns], self.alike[rows, columns]], dim=1)

    def of(self, rows: Tensor, columns: Tensor) -> Scores:
        """The scores (m,) of labels by themselves: of sample rows[i], the label columns[i]."""
        return {
            number: self.of_labels[number][rows, columns] if number in self.of_labels else score[rows]
            for number, score in self.scores.items()
        }


def mined(evidence: Evidence, *, miners: Collection[str] = tuple(WEIGHTS), seed: int = 0) -> Mined:
    """The scores of every reason that these miners can find."""
    found: Scores = {}
    of_labels: Scores = {}
    weighed = evidence.weighed
    if _PREDICT_SCORE in miners:
        found[1] = evidence.doubt
        of_labels[1] = torch.where(evidence.given, 1 - evidence.probabilities, torch.nan).clamp(0, 1)
    around_ = alike = torch.full(evidence.given.shape, torch.nan)
    if _CLUSTERING in miners and evidence.views:
        around_ = _over_views(
            evidence,
            lambda view, at: _around(
                evidence, view.vectors, [view], weighed, partial(generator_of, seed, "around", at)
            ),
        )
        if evidence.contents is not None:
            alike = _around(
                evidence, evidence.contents, evidence.views, weighed, partial(generator_of, seed, "contents")
            )
        by_clusters = _over_views(
            evidence,
            lambda view, at: disagreement(
                view.vectors, view.seen, evidence.told[view.seen], weighed, generator=generator_of(seed, at)
            ),
        )
        both = torch.where(around_.isnan(), by_clusters, (by_clusters + around_) / 2)
        of_labels[2] = torch.where(by_clusters.isnan(), around_, both)
    if _SIMILARITY in miners and evidence.views:
        of_labels[3] = _over_views(
            evidence, lambda view, at: unlikeness(view.vectors, view.seen, evidence.told[view.seen], weighed)
        )
    found |= {number: _worst(of_labels[number]) for number in (2, 3) if number in of_labels}
    if _SEQUENTIAL in miners and evidence.views and evidence.sequences:
        vectors, chance = evidence.views[0].vectors, generator_of(seed, "pairs")
        found[4] = inconsistency(
            vectors,
            evidence.compared,
            evidence.sequences,
            own=evidence.own,
            multi_label=evidence.multi_label,
            generator=chance,
        )
    if _DISTRIBUTION in miners:
        found |= _offsets(evidence)
    if _CONSISTENCY in miners:
        found |= evidence.altered
    if _ANOMALY in miners and evidence.views:
        found[30] = _abnormal(evidence)
    there = weighed.any(dim=1)
    scores = {number: torch.where(there, score, torch.nan) for number, score in sorted(found.items())}
    return Mined(scores, of_labels, around_, alike)


def _around(
    evidence: Evidence,
    vectors: Tensor,
    models: Sequence[View],
    weighed: Tensor,
    generator: Callable[[], torch.Generator],
) -> Tensor:
    """(n, k): how far those around a sample, as these vectors have it, do not believe its label. What all models
    believe of them has seen the labels that people gave: of a labeled sample the mean of the models counts that have
    not seen its label, where there are any among these."""
    by_all = around(vectors, evidence.beliefs(), weighed, generator=generator())
    total, count = torch.zeros_like(by_all), torch.zeros_like(by_all)
    for model in models:
        if model.beliefs is not None:
            unseen = evidence.told.any(dim=1, keepdim=True)
            unseen[model.seen] = False
            by_one = around(vectors, evidence.beliefs(model.beliefs), weighed & unseen, generator=generator())
            total += by_one.nan_to_num()
            count += ~by_one.isnan()
    return torch.where(count > 0, total / count.clamp(min=1), by_all)


def _abnormal(evidence: Evidence) -> Tensor:
    """Reason 30: far from what models have seen, or from what people labeled as its pixels show it: networks need not
    see what tells no label from another, and find a picture of something else quite usual."""
    by_views = _over_views(evidence, lambda view, at: abnormality(view.vectors, view.seen))
    if evidence.contents is None:
        return by_views
    told = evidence.told.any(dim=1) & ~evidence.contents.isnan().any(dim=1)
    return joined(by_views, abnormality(evidence.contents, told.nonzero()[:, 0]), evidence.reference)


def _worst(of_labels: Tensor) -> Tensor:
    """(n, k) -> (n,): the largest, NaN where there is none."""
    largest = of_labels.nan_to_num(-1.0).amax(dim=1)
    return torch.where(largest >= 0, largest, torch.nan)


def _over_views(evidence: Evidence, work: Callable[[View, int], Tensor]) -> Tensor:
    """(n, ...): the mean over the views that have not seen a sample's label; over all where every one has."""
    scores = torch.stack([work(view, at) for at, view in enumerate(evidence.views)])  # (v, n, ...)
    fair = torch.ones(scores.shape[:2], dtype=torch.bool)
    for at, view in enumerate(evidence.views):
        fair[at, view.seen] = False
    fair |= ~fair.any(dim=0)
    fair &= ~torch.stack([view.vectors.isnan().any(dim=1) for view in evidence.views])
    fair = fair.reshape(*fair.shape, *[1] * (scores.ndim - 2)) & ~scores.isnan()
    mean = scores.nan_to_num(0.0).mul(fair).sum(dim=0) / fair.sum(dim=0).clamp(min=1)
    return torch.where(fair.any(dim=0), mean, torch.nan)


def _offsets(evidence: Evidence) -> Scores:
    """Reasons 5-18: how far what was measured lies from the training set, of a box from boxes of its label there, where
    it has LEAST_REFERENCE of these; without a training set from all samples."""
    told = evidence.told.any(dim=1)
    everyone = told if bool(told.any()) else torch.ones_like(told)
    found = {}
    for reason, measured in evidence.features.items():
        log = FEATURES_OF_REASONS[reason].log
        values = measured.numpy().astype(np.float64)
        score = offset(values, values[everyone.numpy()], log=log)
        for column in range(evidence.told.shape[1]) if reason in _OF_A_BOX else ():
            theirs = values[evidence.told[:, column].numpy()]
            if np.isfinite(theirs).sum() >= LEAST_REFERENCE:
                mine = evidence.weighed[:, column].numpy()
                score[mine] = offset(values[mine], theirs, log=log)
        found[reason] = torch.from_numpy(score)
    return found
