"""Automatic labels held against the truth: how many are right, and how far their confidences can be trusted.

In: OUT of auto labeling, or of a task that wrote automatic labels only, and a data set whose labels by people are the
truth. Out: an `Evaluation`, and OUT/evaluation.json. What is scored is what the model said: the probabilities, where
OUT has them, also when people have corrected labels since; else the automatic labels of result.manifest. Samples that
people had labeled before the run are left out, for the model has seen them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.dataset import Dataset
from engine.decisions import Names, image_labels, real_path
from engine.errors import InputError
from engine.evaluation import (
    NOTHING,
    Bin,
    ClassScore,
    MultiLabelScores,
    Scores,
    expected_calibration_error,
    largest_confusions,
    reliability,
    score_choices,
    score_multi_label,
    score_probabilities,
)
from engine.files import as_json, write_bytes
from engine.label.targets import human_labels
from engine.manifest import read_manifest
from engine.outfolder import JOURNAL, own
from engine.samples import Sample
from engine.sources import Sources, parse_prefixes
from engine.tasks.confirming import labeled_manifest
from engine.tasks.probabilities import PROBABILITIES_NAME, read_probabilities

EVALUATION_NAME: Final = "evaluation.json"

#: How a sample is found in the truth, the surest first.
WAYS: Final = ("path", "source", "name")

_NAN: Final = float("nan")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How automatic labels compare with the truth.

    path: evaluation.json. truth: name of the data set. total: samples in OUT. matched: how many of them were found in
    the truth, by each of WAYS. labeled_before: of those, how many people had labeled before the run; without_truth: how
    many have no label in the truth. Neither is scored. from_probabilities: False where only the labels were known.
    standing: the part of the scored samples whose labels in result.manifest, as they stand now, are exactly the true
    ones. notes: what a person should know, a line each.
    """

    path: Path
    truth: str
    total: int
    matched: Mapping[str, int]
    labeled_before: int
    without_truth: int
    from_probabilities: bool
    scores: Scores | MultiLabelScores
    standing: float
    notes: tuple[str, ...]

    def answer(self) -> dict[str, Any]:
        """What evaluation.json holds: JSON values, None for what cannot be said."""
        scores = self.scores
        whole: dict[str, Any]
        names: tuple[str, ...]
        if isinstance(scores, Scores):
            names = ("accuracy", "macro_accuracy", "ece", "brier", "brier_skill", "log_loss")
            confusions = largest_confusions(scores.confusion, scores.labels)
            whole = {
                "confusion": scores.confusion.tolist(),
                "largest_confusions": [{"truth": a, "predicted": b, "count": count} for a, b, count in confusions],
            }
        else:
            names = ("mean_average_precision", "exact", "micro_f1", "macro_f1", "ece", "brier", "brier_skill")
            whole = {}
        return {
            "truth": self.truth,
            "total_sample_count": self.total,
            "matched_sample_count": sum(self.matched.values()),
            "matched_by": dict(self.matched),
            "labeled_before_count": self.labeled_before,
            "without_truth_count": self.without_truth,
            "evaluated_sample_count": scores.samples,
            "missing_count": scores.missing,
            "multi_label": isinstance(scores, MultiLabelScores),
            "from_probabilities": self.from_probabilities,
            **{name: _number(getattr(scores, name)) for name in names},
            "standing_accuracy": _number(self.standing),
            "labels": list(scores.labels),
            "classes": [_record(each) for each in scores.classes],
            **whole,
            "reliability": [_record(each) for each in scores.bins],
            "notices": list(self.notes),
        }


def evaluate(out: Path, truth: Dataset, *, map: Sequence[str] = ()) -> Evaluation:
    """Compare what a model said about the samples of `out` with the truth, and write OUT/evaluation.json.

    truth: what people say there counts. A sample is found by the real path of its image, else by its source, else by a
    file name that is unique in both. map: as for `read_samples`, for the sources of `out`. A label that the model does
    not know counts as one that it gave no probability.

    Raises InputError when `out` has no automatic labels, no sample of it is in the truth, or none is left to score.
    """
    if not out.is_dir():
        raise InputError(f"{out}: must be the folder of a finished task, got {'a file' if out.exists() else 'nothing'}")
    path = labeled_manifest(out)
    now = list(read_manifest(path))
    where = Sources(path.parent, parse_prefixes(map))
    said = _from_file(out / PROBABILITIES_NAME) or _of_labels(now)
    found = _truth_of(said.sources, where, truth)

    matched = {way: sum(each.way == way for each in found) for way in WAYS}
    if not any(matched.values()):
        raise InputError(
            f"{truth.name}: must hold images of {out}, got none of its {len(found):,}, as {said.sources[0]!r}"
            if found
            else f"{path}: must hold a sample a line, got no line"
        )
    rows = np.array([row for row, each in enumerate(found) if each.labels and not said.before[row]], dtype=np.int64)
    before = sum(each.way is not None and bool(said.before[row]) for row, each in enumerate(found))
    without = sum(matched.values()) - before - len(rows)
    if not len(rows):
        raise InputError(
            f"{out}: must have an automatic label to compare, got {sum(matched.values()):,} samples in the truth, of "
            f"which people had labeled {before:,} before, and {without:,} have no label there"
        )
    true = [found[row].labels for row in rows]
    scores, notes = _score(said, rows, true)
    twice = sum(each.contradicts for each in found)
    if twice:
        notes = (*notes, f"{twice:,} images have different labels in {truth.name}: they are not scored")
    evaluation = Evaluation(
        path=out / EVALUATION_NAME,
        truth=truth.name,
        total=len(found),
        matched=matched,
        labeled_before=before,
        without_truth=without,
        from_probabilities=said.probabilities is not None,
        scores=scores,
        standing=_standing(now, said, rows, true),
        notes=notes,
    )
    if (out / JOURNAL).is_file() and not evaluation.path.exists():
        own(out, EVALUATION_NAME)
    write_bytes(evaluation.path, as_json(evaluation.answer()))
    return evaluation


# ---- What was said. ----


@dataclass(frozen=True, slots=True)
class _Said:
    """What a model says about n samples. labels: the k names. given: of each sample, the labels it gives, None where it
    says nothing, each with its confidence or None. probabilities: (n, k), None where only the labels are known.
    before: (n,) True where a person had labeled it."""

    sources: list[str]
    labels: tuple[str, ...]
    given: Sequence[Mapping[str, float | None] | None]
    probabilities: npt.NDArray[np.float64] | None
    before: npt.NDArray[np.bool_]


def _from_file(path: Path) -> _Said | None:
    """What probabilities.npz says; None when there is none."""
    if not path.is_file():
        return None
    said = read_probabilities(path)
    return _Said(list(said.sources), said.labels, (), said.values.astype(np.float64), said.labeled)


def _of_labels(samples: Sequence[Sample]) -> _Said:
    """What the automatic labels say alone."""
    before = [bool(human_labels(sample)) for sample in samples]
    given: list[Mapping[str, float | None] | None] = []
    for sample in samples:
        automatic = {str(label.name): label.confidence for label in image_labels(sample) if not label.by_human}
        given.append(automatic or None)
    names = sorted({name for each, human in zip(given, before, strict=True) if not human for name in each or ()})
    return _Said([sample.source for sample in samples], tuple(names), given, None, np.array(before, bool))


# ---- The truth. ----


@dataclass(frozen=True, slots=True)
class _True:
    """The true labels of a sample; way: how it was found, one of WAYS or None. contradicts: several labelings."""

    labels: frozenset[str] = frozenset()
    way: str | None = None
    contradicts: bool = False


def _truth_of(sources: Sequence[str], where: Sources, truth: Dataset) -> list[_True]:
    there = Names([sample.source for sample in truth], truth.sources)
    here = Names(sources, where)
    return [_look_up(source, where, truth, there, here) for source in sources]


def _look_up(source: str, where: Sources, truth: Dataset, there: Names, here: Names) -> _True:
    ways: tuple[tuple[str, Callable[[], list[int]]], ...] = (
        ("path", lambda: there.by_path(real_path(source, where))),
        ("source", lambda: there.by_source(source)),
        ("name", lambda: there.by_name(source) if here.by_name(source) else []),
    )
    for way, find in ways:
        if positions := find():
            labelings = {frozenset(human_labels(truth[position])) for position in positions} - {frozenset()}
            if len(labelings) > 1:
                return _True(way=way, contradicts=True)
            return _True(next(iter(labelings), frozenset()), way)
    return _True()


# ---- The scores. ----


def _score(
    said: _Said, rows: npt.NDArray[np.int64], true: Sequence[frozenset[str]]
) -> tuple[Scores | MultiLabelScores, tuple[str, ...]]:
    """The scores of these rows, whose true labels are `true`; and notes."""
    unknown = sorted({name for each in true for name in each} - set(said.labels))
    labels = (*said.labels, *unknown)
    several = any(len(each) > 1 for each in true) or any(len(each or ()) > 1 for each in said.given)
    if said.probabilities is None:
        given = [said.given[row] for row in rows]
        note = "no probabilities there: calibration is that of the confidences in result.manifest"
        return (_score_given_several if several else _score_given)(given, true, sorted(labels)), (note,)
    notes = []
    if unknown:
        count = sum(not each.isdisjoint(unknown) for each in true)
        named = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        notes.append(f"{count:,} samples have labels that the model does not know, which is wrong: {named}")
    probabilities = said.probabilities[rows]
    several = several or _sums_differ_from_one(said.probabilities)
    # What the model does not know has no probability; where it says nothing at all, it says nothing about that too.
    padding = np.where(np.isnan(probabilities[:, :1]), np.nan, np.zeros((len(rows), len(unknown))))
    probabilities = np.hstack([probabilities, padding])
    if not several:
        return score_probabilities(probabilities, _numbers(true, labels), labels=labels), tuple(notes)
    return score_multi_label(probabilities, _given(probabilities), _matrix(true, labels), labels=labels), tuple(notes)


def _sums_differ_from_one(probabilities: npt.NDArray[np.float64]) -> bool:
    """Whether these are the probabilities of a multi-label set: one label a sample makes rows that sum to 1."""
    sums = probabilities[~np.isnan(probabilities).any(axis=1)].sum(axis=1)
    return bool(len(sums)) and bool((np.abs(sums - 1) > 1e-3).any())


def _given(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """(n, k) the labels that auto labeling gives for probabilities of a multi-label set (see `Labeling.predicted`)."""
    from engine.label.results import GIVEN_FROM  # loads torch, which nothing else here needs

    filled = np.nan_to_num(probabilities, nan=-1.0)
    given = filled >= GIVEN_FROM
    given[np.arange(len(filled)), filled.argmax(axis=1)] = True
    return np.asarray(given & ~np.isnan(probabilities), bool)


def _score_given(
    given: Sequence[Mapping[str, float | None] | None], true: Sequence[frozenset[str]], labels: Sequence[str]
) -> Scores:
    column = {name: at for at, name in enumerate(labels)}
    firsts = [next(iter(each.items())) if each else None for each in given]
    predicted = np.array([NOTHING if first is None else column[first[0]] for first in firsts], np.int64)
    said = [_NAN if first is None or first[1] is None else first[1] for first in firsts]
    return score_choices(predicted, said, _numbers(true, labels), labels=labels)


def _score_given_several(
    given: Sequence[Mapping[str, float | None] | None], true: Sequence[frozenset[str]], labels: Sequence[str]
) -> MultiLabelScores:
    """Of labels alone: nothing is known of those that were not given, so that no ranking and no Brier score is."""
    chosen, truth = _matrix([frozenset(each or ()) for each in given], labels), _matrix(true, labels)
    rows = np.where(np.array([each is None for each in given])[:, None], np.nan, chosen.astype(np.float64))
    scores = score_multi_label(rows, chosen, truth, labels=labels)
    pairs = [
        (confidence, name in names)
        for each, names in zip(given, true, strict=True)
        for name, confidence in (each or {}).items()
        if confidence is not None
    ]
    confidences, right = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], bool)
    return replace(
        scores,
        mean_average_precision=_NAN,
        classes=tuple(replace(each, average_precision=_NAN) for each in scores.classes),
        ece=expected_calibration_error(confidences, right),
        bins=reliability(confidences, right),
        brier=_NAN,
        brier_skill=_NAN,
    )


def _numbers(true: Sequence[frozenset[str]], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    column = {name: at for at, name in enumerate(labels)}
    return np.array([column[next(iter(names))] for names in true], np.int64)


def _matrix(given: Sequence[frozenset[str]], labels: Sequence[str]) -> npt.NDArray[np.bool_]:
    column = {name: at for at, name in enumerate(labels)}
    matrix = np.zeros((len(given), len(labels)), bool)
    for row, names in enumerate(given):
        matrix[row, [column[name] for name in names]] = True
    return matrix


def _standing(now: Sequence[Sample], said: _Said, rows: npt.NDArray[np.int64], true: Sequence[frozenset[str]]) -> float:
    """The part of the rows whose labels in the manifest are the true ones, a person's before a machine's."""
    same_order = len(now) == len(said.sources) and all(
        sample.source == source for sample, source in zip(now, said.sources, strict=True)
    )
    by_source = {sample.source: sample for sample in reversed(now)}
    right = 0
    for row, names in zip(rows, true, strict=True):
        sample = now[row] if same_order else by_source.get(said.sources[row])
        right += sample is not None and _standing_labels(sample) == names
    return right / len(rows)


def _standing_labels(sample: Sample) -> frozenset[str]:
    return frozenset(human_labels(sample)) or frozenset(str(label.name) for label in image_labels(sample))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.6g}")


def _record(each: ClassScore | Bin) -> dict[str, Any]:
    return {name: _number(value) if isinstance(value, float) else value for name, value in asdict(each).items()}
