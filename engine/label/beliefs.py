"""What is thought of the unlabeled images before networks learn from them: for each part of the labels, without it.

In: vectors of all images, and the labels; then what networks say that were taught labels. Out: `Beliefs`. A graph of
neighbours is asked, and a closed-form head and the networks beside it where that is clearly better on the parts that
each has not seen. These also tell the temperature that makes beliefs as sure as they are right: as they come from the
graph they are nearly even.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from engine.label.calibration import CLEARLY, above, log_losses, temperature_of
from engine.label.classifier import probabilities_of
from engine.label.heads import fit_ridge, left_out_scores
from engine.label.plan import Plan
from engine.label.pool import Pool
from engine.label.propagation import Graph, balanced, graph_of, propagated
from engine.label.training import generator_of

#: Ways in which beliefs are made, by name: of the graph, or of it and a closed-form head together.
GRAPHS: Final = "graphs"
HEAD_AND_GRAPHS: Final = "head and graphs"
HEAD_ONLY: Final = "head"
NETWORKS: Final = "networks"


@dataclass(frozen=True, slots=True)
class Beliefs:
    """way: how they were made. without: for each part of the labels (m, k), made without it; where networks were asked,
    of the parts that they have not seen. whole: (m, k), made with all labels, of graphs. losses: the log loss of each
    way on the parts that it had not seen. shares: (k,) of the classes, as among the labels. by_networks: whether they
    speak for networks."""

    way: str
    without: tuple[Tensor, ...]
    whole: Tensor | None
    losses: dict[str, float]
    shares: Tensor
    by_networks: bool = False


def beliefs_of(pool: Pool, plan: Plan, vectors: Tensor) -> Beliefs:
    """Beliefs of all m images. vectors: (m, d), near each other where images are alike."""
    rows, parts = pool.labeled, int(plan.fold.max()) + 1
    truth = pool.told[rows] > 0
    shares = shares_of(truth)
    if pool.multi_label:  # a graph of shares that sum to 1 has nothing to say about several labels
        heads = tuple(_head(pool, vectors, plan.fold, part) for part in range(parts))
        return Beliefs(HEAD_ONLY, heads, None, {}, shares)
    graph = graph_of(vectors, always=pool.told.any(dim=1), generator=generator_of(plan.seed, "graph"))
    held = {name: torch.zeros(len(rows), len(pool.labels)) for name in (GRAPHS, HEAD_AND_GRAPHS)}
    made: dict[str, list[Tensor]] = {name: [] for name in held}
    for part in range(parts + 1):  # the last of them is no part: nothing is left out
        mine, head = plan.fold == part, _head(pool, vectors, plan.fold, part)
        told = pool.told.clone()
        told[rows[mine]] = 0
        by_graphs = _spread(graph, head, told, shares)
        for name, beliefs in ((GRAPHS, by_graphs), (HEAD_AND_GRAPHS, balanced(head * by_graphs, shares))):
            held[name][mine] = beliefs[rows[mine]]
            made[name].append(beliefs)
    judged = {name: _judged(_logits(each), truth, False) for name, each in held.items()}
    best = _best(judged)
    kept = made.pop(best)
    made.clear()  # of many images and labels each is large
    for part, beliefs in enumerate(kept):
        kept[part] = probabilities_of(_logits(beliefs), judged[best].temperature, False)
    return Beliefs(best, tuple(kept[:-1]), kept[-1], _mean_losses(judged), shares)


def _spread(graph: Graph, head: Tensor, told: Tensor, shares: Tensor) -> Tensor:
    """(m, k): labels that flow along the graph, and labels that flow with what the head believes of all images, as if
    both were independent witnesses. head, told: (m, k). shares: (k,).

    (cifar10, 40, 250, 1,000 and 4,000 labels, means of four draws: 47.2, 59.6, 63.3 and 66.2 % by labels, 47.3, 61.7,
    65.1 and 66.7 with the head's beliefs, 48.4, 61.7, 65.5 and 67.3 by both; the head beside both comes to 43.3, 59.7,
    66.8 and 70.7, and in all 16 draws the log loss out of fold is less for the one of these two that is right more
    often.)
    """
    by_labels = propagated(graph, told, shares)
    by_beliefs = propagated(graph, balanced(head, shares) + told, shares)
    return balanced(by_labels * by_beliefs, shares)


def with_networks(pool: Pool, plan: Plan, beliefs: Beliefs, said: Sequence[Tensor]) -> Beliefs:
    """The beliefs; or what networks say, or both as independent witnesses, where that is clearly better on the parts
    that the networks have not seen. said: logits of all m images by each member, (m, k), in the order of parts.

    (50 labeled digits: in one of three draws 20 labels spoke for networks by chance, which made 98.0 % of 99.3 that are
    right.)
    """
    multi_label, way, both = pool.multi_label, beliefs.way, f"{NETWORKS} and {beliefs.way}"
    known = (pool.told[pool.labeled] > 0)[plan.fold < len(said)]
    by_networks = _held(pool, plan, said)
    graph = _logits(_held(pool, plan, beliefs.without[: len(said)]), multi_label=multi_label)
    temperature = temperature_of(by_networks, known, multi_label=multi_label)
    held = {way: graph, NETWORKS: by_networks, both: by_networks / temperature + graph}
    judged = {name: _judged(each, known, multi_label) for name, each in held.items()}
    best = _best(judged)

    def logits(part: int) -> Tensor:
        if best == NETWORKS:
            return said[part]
        graph = _logits(beliefs.without[part], multi_label=multi_label)
        return graph if best == way else said[part] / temperature + graph

    without = tuple(probabilities_of(logits(part), judged[best].temperature, multi_label) for part in range(len(said)))
    losses = {**beliefs.losses, **_mean_losses(judged)}
    return Beliefs(best, without, None, losses, beliefs.shares, by_networks=best != way)


@dataclass(frozen=True, slots=True)
class _Judged:
    """Of beliefs of labels that were not seen the temperature, and with it their log losses (h,)."""

    temperature: float
    losses: Tensor


def _judged(held: Tensor, truth: Tensor, multi_label: bool) -> _Judged:
    """held: (h, k) logits, of labels that were not seen."""
    temperature = temperature_of(held, truth, multi_label=multi_label)
    losses = log_losses(probabilities_of(held, temperature, multi_label), truth, multi_label=multi_label)
    return _Judged(temperature, losses)


def _best(ways: Mapping[str, _Judged]) -> str:
    """The first way, or of those that are clearly better the best: a handful of labels tells many things by chance."""
    first, *others = ways
    ahead = {name: above(ways[first].losses, ways[name].losses) for name in others}
    better = [name for name, (mean, error) in ahead.items() if mean > CLEARLY * error]
    means = _mean_losses(ways)
    return min(better, key=lambda name: means[name], default=first)


def _mean_losses(ways: Mapping[str, _Judged]) -> dict[str, float]:
    return {name: round(float(each.losses.mean()), 4) for name, each in ways.items()}


def _held(pool: Pool, plan: Plan, values: Sequence[Tensor]) -> Tensor:
    """values: of all m images, for each part, (m, k) each -> (h, k), of the labeled images of these parts what belongs
    to their part, in the order of `pool.labeled`."""
    held = torch.zeros(len(plan.fold), len(pool.labels))
    for part, each in enumerate(values):
        held[plan.fold == part] = each[pool.labeled[plan.fold == part]]
    return held[plan.fold < len(values)]


def _logits(beliefs: Tensor, *, multi_label: bool = False) -> Tensor:
    kept = beliefs.clamp(1e-6, 1 - 1e-6)
    return kept.logit() if multi_label else kept.log()


def shares_of(truth: Tensor) -> Tensor:
    """(n, k) bool -> (k,) float32, sum 1: the classes' shares among the labels, one more of each so that none is 0."""
    counts = truth.float().sum(dim=0) + 1
    return counts / counts.sum()


def _head(pool: Pool, vectors: Tensor, fold: Tensor, part: int) -> Tensor:
    """(m, k): what a head fitted on the labeled images without this part says of all images."""
    kept, balanced = fold != part, not pool.multi_label
    seen = pool.labeled[kept]
    truth = pool.told[seen]
    ridge = fit_ridge(vectors[seen], truth, balanced=balanced)
    unseen = left_out_scores(vectors[seen], truth, fold[kept], penalty=ridge.penalty, balanced=balanced)
    temperature = temperature_of(unseen - 0.5, truth > 0, multi_label=pool.multi_label)
    return probabilities_of(ridge.scores(vectors) - 0.5, temperature, pool.multi_label)
