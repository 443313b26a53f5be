"""Trials of `simulate`, and what they say together: means, spreads, and paired differences to the best peer.

In: a `Trial` for each algorithm, number of labels and seed. Out: a `Row` for each algorithm and number, a table for a
person, and the lines of a CSV. Knows nothing of how a trial came about.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
from scipy import stats

from engine.label.labeling import ALGORITHM_TYPES

Scores: TypeAlias = Mapping[str, float | None]

#: What is said of a trial: of one label an image, of several. The first one ranks.
SINGLE: Final = ("accuracy", "macro_accuracy", "ece", "brier_skill")
SEVERAL: Final = ("mean_average_precision", "micro_f1", "ece", "brier_skill")


@dataclass(frozen=True, slots=True)
class Trial:
    """An algorithm on one draw of labels. labels: how many images were labeled. minutes: as asked. scored: hidden
    labels that it was compared with. scores: SINGLE or SEVERAL, None where nothing can be said; empty when it failed.
    seconds: of everything, reading the images too. error: one line, why it failed. key: of what was asked on which
    data."""

    algorithm: str
    labels: int
    seed: int
    minutes: float | None
    scored: int
    multi_label: bool
    scores: Scores
    seconds: float
    error: str = ""
    choices: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""


def in_words(trial: Trial) -> str:
    """A trial in one line."""
    what = f"{trial.algorithm}, {trial.labels:,} labels, seed {trial.seed}"
    if trial.error:
        return f"{what}: failed: {trial.error}"
    name = (SEVERAL if trial.multi_label else SINGLE)[0]
    return f"{what}: {_TITLES[name]} {_shown_score(name, trial.scores[name])} % in {trial.seconds:,.1f} s"


def as_csv(trials: Sequence[Trial]) -> bytes:
    """A line a trial."""
    names = ("algorithm", "labels", "seed", "minutes", "scored", "seconds", "error")
    scores = tuple(dict.fromkeys((*SINGLE, *SEVERAL)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*names, *scores))
    for trial in trials:
        writer.writerow([*(getattr(trial, name) for name in names), *(trial.scores.get(name) for name in scores)])
    return text.getvalue().encode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Row:
    """An algorithm with a number of labels, over the seeds. runs: trials that did not fail. means, spreads: of each
    score, the spread is the standard deviation over the seeds (None below 2). failed: the first error. difference:
    points (of 1) of the first score above `peer`, the best one that is not ours, on the same labels; reach: its 90 %
    interval is difference - reach .. difference + reach (Student's t over the seeds); None below 2 common seeds."""

    labels: int
    algorithm: str
    runs: int
    means: Scores
    spreads: Scores
    seconds: float | None
    failed: str = ""
    peer: str = ""
    difference: float | None = None
    reach: float | None = None


def summary(trials: Sequence[Trial]) -> tuple[Row, ...]:
    """A row for each number of labels and algorithm, in the order in which they first occur."""
    groups: dict[int, dict[str, list[Trial]]] = {}
    for trial in trials:
        groups.setdefault(trial.labels, {}).setdefault(trial.algorithm, []).append(trial)
    return tuple(_row(n, name, some, _best_peer(of_n)) for n, of_n in groups.items() for name, some in of_n.items())


def table(trials: Sequence[Trial], *, targets: Mapping[tuple[str, int], str] = MappingProxyType({})) -> str:
    """The trials of one data set as lines: mean and spread over the seeds for each number of labels and algorithm, and
    the paired difference to the best peer. targets: what to write beside (algorithm, labels)."""
    rows = summary(trials)
    names = SEVERAL if any(trial.multi_label for trial in trials) else SINGLE
    heads = ["labels", "algorithm", "runs", *(_TITLES[name] for name in names), "seconds"]
    compared = any(row.difference is not None for row in rows)
    heads += ["target"] * bool(targets) + ["above the best peer (90 %)"] * compared
    lines = [heads]
    for row in rows:
        cells = [f"{row.labels:,}", row.algorithm, str(row.runs)]
        cells += [_with_spread(name, row) for name in names]
        cells.append("-" if row.seconds is None else f"{row.seconds:,.1f}")
        cells += [targets.get((row.algorithm, row.labels), "")] * bool(targets) + [_above(row)] * compared
        lines.append(cells)
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    last = len(heads) - compared  # words stand left, numbers right
    told = [
        "  ".join(
            cell.ljust(width) if at == 1 or at >= last else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    failures = [f"{row.algorithm}, {row.labels:,} labels: failed: {row.failed}" for row in rows if row.failed]
    return "\n".join([*told, *failures])


#: Scores in percent, and how all are called.
_PERCENT: Final = frozenset({"accuracy", "macro_accuracy", "mean_average_precision", "micro_f1"})
_TITLES: Final = {
    "accuracy": "accuracy",
    "macro_accuracy": "macro",
    "mean_average_precision": "mean AP",
    "micro_f1": "F1",
    "ece": "ECE",
    "brier_skill": "Brier skill",
}
_CONFIDENCE: Final = 0.9


def _row(n: int, name: str, trials: Sequence[Trial], peer: Sequence[Trial]) -> Row:
    good = [trial for trial in trials if not trial.error]
    failed = next((trial.error for trial in trials if trial.error), "")
    scores = good[0].scores if good else {}
    values = {each: [x for trial in good if (x := trial.scores[each]) is not None] for each in scores}
    means = {each: float(np.mean(some)) if some else None for each, some in values.items()}
    spreads = {each: float(np.std(some, ddof=1)) if len(some) > 1 else None for each, some in values.items()}
    seconds = float(np.mean([trial.seconds for trial in good])) if good else None
    row = Row(n, name, len(good), means, spreads, seconds, failed)
    if not peer or peer[0].algorithm == name:
        return row
    by_seed = {trial.seed: _first(trial) for trial in peer}
    above = np.array([_first(trial) - by_seed[trial.seed] for trial in good if trial.seed in by_seed])
    above = above[~np.isnan(above)]
    if len(above) < 2:
        return row
    quantile = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(above) - 1))
    reach = quantile * float(above.std(ddof=1)) / len(above) ** 0.5
    return replace(row, peer=peer[0].algorithm, difference=float(above.mean()), reach=reach)


def _best_peer(of_n: Mapping[str, Sequence[Trial]]) -> list[Trial]:
    """The finished trials of the algorithm that is not ours with the best mean, of those with the most trials."""
    peers = [[trial for trial in some if not trial.error] for name, some in of_n.items() if name not in ALGORITHM_TYPES]
    most = max(map(len, peers), default=0)
    best = [some for some in peers if len(some) == most and most]
    return max(best, key=lambda some: float(np.mean([_first(trial) for trial in some])), default=[])


def _first(trial: Trial) -> float:
    """The score that ranks; NaN where nothing can be said."""
    value = trial.scores[(SEVERAL if trial.multi_label else SINGLE)[0]]
    return float("nan") if value is None else value


def _with_spread(name: str, row: Row) -> str:
    mean, spread = row.means.get(name), row.spreads.get(name)
    return _shown_score(name, mean) + ("" if spread is None else f" ± {_shown_score(name, spread)}")


def _shown_score(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if name in _PERCENT else f"{value:.3f}"


def _above(row: Row) -> str:
    if row.difference is None or row.reach is None:
        return ""
    low, high = 100 * (row.difference - row.reach), 100 * (row.difference + row.reach)
    return f"{100 * row.difference:+.2f} ({low:+.2f} .. {high:+.2f}) {row.peer}"
