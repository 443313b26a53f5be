"""What is thought of the unlabeled images before networks learn from them: for each part of the labels, without it.

In: vectors of all images, and the labels; then what networks say that were taught labels. Out: `Beliefs`. A
closed-form head, a graph of neighbours and the networks are asked, by themselves and together; which of these ways is
taken is decided on the parts that each has not seen, and so is the temperature that makes its beliefs as sure as they
are right: as they come from the graph they are nearly even.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import torch
from torch import Tensor

from engine.label.calibration import mean_log_loss, temperature_of
from engine.label.classifier import probabilities_of
from engine.label.heads import fit_ridge, left_out_scores
from engine.label.plan import Plan
from engine.label.pool import Pool
from engine.label.propagation import Graph, balanced, graph_of, propagated
from engine.label.training import generator_of

_Way: TypeAlias = Callable[[Graph, Tensor, Tensor, Tensor], Tensor]


def _graph(graph: Graph, head: Tensor, told: Tensor, shares: Tensor) -> Tensor:
    return propagated(graph, told, shares)


def _graph_of_head(graph: Graph, head: Tensor, told: Tensor, shares: Tensor) -> Tensor:
    """The head's beliefs of all images flow, not only the labels: best with a handful of labels."""
    return propagated(graph, balanced(head, shares) + told, shares)


def _together(graph: Graph, head: Tensor, told: Tensor, shares: Tensor) -> Tensor:
    """As if both were independent witnesses: best with many labels."""
    return balanced(head * propagated(graph, told, shares), shares)


#: How beliefs are made, by name: of the graph, what the head says (m, k), what was told (m, k), and the shares (k,).
WAYS: Final[dict[str, _Way]] = {"graph": _graph, "graph of head": _graph_of_head, "head and graph": _together}
HEAD_ONLY: Final = "head"
NETWORKS: Final = "networks"


@dataclass(frozen=True, slots=True)
class Beliefs:
    """way: how they were made. without: for each member (m, k), made without its part of the labels. losses: the log
    loss of each way on the parts that it had not seen. shares: (k,) of the classes, as among the labels."""

    way: str
    without: tuple[Tensor, ...]
    losses: dict[str, float]
    shares: Tensor


def beliefs_of(pool: Pool, plan: Plan, vectors: Tensor) -> Beliefs:
    """Beliefs of all m images. vectors: (m, d), near each other where images are alike."""
    rows, parts = pool.labeled, int(plan.fold.max()) + 1
    truth = pool.told[rows] > 0
    shares = shares_of(truth)
    heads = [_head(pool, vectors, plan.fold, part) for part in range(parts)]
    if pool.multi_label:  # a graph of shares that sum to 1 has nothing to say about several labels
        return Beliefs(HEAD_ONLY, tuple(heads[: plan.members]), {}, shares)
    graph = graph_of(vectors, always=pool.told.any(dim=1), generator=generator_of(plan.seed, "graph"))
    losses: dict[str, float] = {}
    made: dict[str, list[Tensor]] = {}
    for name, way in WAYS.items():
        made[name], held = [], torch.zeros(len(rows), len(pool.labels))
        for part in range(parts):
            told = pool.told.clone()
            told[rows[plan.fold == part]] = 0
            beliefs = way(graph, heads[part], told, shares)
            held[plan.fold == part] = beliefs[rows[plan.fold == part]]
            made[name] += [beliefs] if part < plan.members else []
        temperature = temperature_of(_logits(held), truth, multi_label=False)
        by_way = probabilities_of(_logits(held), temperature, False)
        losses[name] = round(mean_log_loss(by_way, truth, multi_label=False), 4)
        made[name] = [probabilities_of(_logits(beliefs), temperature, False) for beliefs in made[name]]
    best = min(losses, key=lambda name: losses[name])
    return Beliefs(best, tuple(made[best]), losses, shares)


def with_networks(pool: Pool, plan: Plan, beliefs: Beliefs, said: Sequence[Tensor]) -> Beliefs:
    """The beliefs, or what networks say, or both as independent witnesses: what has the least log loss on the parts
    that the networks have not seen. said: logits of all m images by each member, (m, k), in the order of parts."""
    rows, multi_label = pool.labeled, pool.multi_label
    truth = pool.told[rows] > 0
    ways = {
        beliefs.way: list(map(partial(_logits, multi_label=multi_label), beliefs.without)),
        NETWORKS: list(said),
    }
    temperature = temperature_of(_held(pool, plan, said), truth[plan.fold < len(said)], multi_label=multi_label)
    ways[f"{NETWORKS} and {beliefs.way}"] = [
        by_network / temperature + graph for by_network, graph in zip(said, ways[beliefs.way], strict=True)
    ]
    losses, made = dict(beliefs.losses), {}
    for name, logits in ways.items():
        held, known = _held(pool, plan, logits), truth[plan.fold < len(said)]
        temperature = temperature_of(held, known, multi_label=multi_label)
        by_way = probabilities_of(held, temperature, multi_label)
        losses[name] = round(mean_log_loss(by_way, known, multi_label=multi_label), 4)
        made[name] = tuple(probabilities_of(each, temperature, multi_label) for each in logits)
    best = min(made, key=lambda name: losses[name])
    return Beliefs(best, made[best], losses, beliefs.shares)


def _held(pool: Pool, plan: Plan, logits: Sequence[Tensor]) -> Tensor:
    """(h, k): what each member says of the labeled images that it has not seen, in the order of `pool.labeled`."""
    held = torch.zeros(len(plan.fold), len(pool.labels))
    for part, each in enumerate(logits):
        held[plan.fold == part] = each[pool.labeled[plan.fold == part]]
    return held[plan.fold < len(logits)]


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
