"""Which labels that people gave are wrong? Learned from labels that are known to be: planted ones.

In: an `Evidence` whose labels in question are people's, with what models say of each sample that had not seen its
label. Out: `HardExamples`; the coefficient is the probability that a person's label is wrong.

Nobody says which labels are wrong, but it is known what wrong ones look like: each sample is given another label as
well, and a logistic regression on the miners tells right labels from planted ones. Which of the given ones are right is
not known but estimated, again and again (learning from positive and unlabeled examples by expectation maximisation:
Ward et al. 2009): given labels count as right ones, and as wrong ones, as much as the coefficient of the round before
says. How many are wrong is not learned so, for planted labels are easier to tell than people's, but counted by
`share_wrong`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.hard.combine import by_miner, calibrate, scale_of
from engine.hard.config import HardConfig
from engine.hard.examples import HardExamples, Judge, check, judge_of, judged
from engine.hard.mining import Evidence, Mined, mined
from engine.label.training import generator_of

#: As likely wrong as right: no other threshold finds more wrong labels than it accuses right ones.
THRESHOLD: Final = 0.5
#: Mistakes of each label that are supposed beside those seen, spread evenly over the other labels.
_EVENLY: Final = 1.0
#: Rounds of expectation maximisation.
_ROUNDS: Final = 6
_MOST_WRONG: Final = 0.5


def label_errors(evidence: Evidence, config: HardConfig | None = None, *, seed: int = 0) -> HardExamples:
    """Labels that people gave and that are likely wrong.

    evidence.given: people's labels; probabilities: of models that have not seen them. Samples without probabilities are
    not in question. Raises InputError when shapes or values do not fit.
    """
    config = config or HardConfig()
    check(evidence)
    known = ~evidence.probabilities.isnan().any(dim=1, keepdim=True)
    said = torch.where(evidence.predicted[:, None], evidence.given.float(), torch.nan)
    evidence = replace(evidence, given=evidence.given & known, said=said)
    miners = [name for name, weight in config.weights.items() if weight > 0]
    found = mined(evidence, miners=miners, seed=seed)
    asked = evidence.predicted
    if config.combiner_for(int(asked.sum())) == "weights" or evidence.given.shape[1] < 2 or not bool(asked.any()):
        return judged(evidence, found, judge_of(evidence, found, replace(config, combiner="weights")), seed=seed)
    others = planted(evidence, generator=generator_of(seed, "planted"))
    wrong = replace(evidence, given=others, own=others.float())
    judge, share = _learned(evidence, found, wrong, mined(wrong, miners=miners, seed=seed), config)
    answer = judged(evidence, found, judge, seed=seed)
    count = int(asked.sum())
    learned = {"learned_from": f"{count} planted labels", "estimated_share_wrong": round(share, 4)}
    choices = {name: value for name, value in answer.choices.items() if name != "errors_out_of_fold"}
    return replace(answer, choices={**choices, "judged_out_of_fold": count, **learned})


def share_wrong(probabilities: Tensor, given: Tensor, *, multi_label: bool = False) -> float:
    """The share of samples with a wrong label, by the models alone. probabilities: (n, k). given: (n, k) bool.

    A label is counted as wrong where models are as sure of another one as they usually are where that one is given
    (confident joint: Northcutt et al. 2021), and as right where they are so of the label itself; each label counts as
    often as it is given. Of several labels a sample each is a question of its own: wrong where models are as sure of no
    as they usually are where it is not given.
    """
    p, told = probabilities.double(), given.double()
    often = told.sum(dim=0)  # (k,)
    yes = _usual(p, told)
    if multi_label:
        no = _usual(1 - p, 1 - told)
        wrong_ones, right_ones = (((1 - p) >= no) * told).sum(dim=0), ((p >= yes) * told).sum(dim=0)
        wrong = wrong_ones / (wrong_ones + right_ones).clamp(min=1)
    else:
        sure = torch.where(p >= yes, p, 0.0)
        of = F.one_hot(sure.argmax(dim=1), p.shape[1]).double() * (sure.amax(dim=1, keepdim=True) > 0)
        joint = told.T @ of  # (k, k): people say, models say
        wrong = 1 - joint.diagonal() / joint.sum(dim=1).clamp(min=1)
        wrong = torch.where(joint.sum(dim=1) > 0, wrong, 0.0)
    return float((wrong * often).sum() / max(1, len(p)))


def _usual(p: Tensor, told: Tensor) -> Tensor:
    """(k,): the mean where it is told; where it never is, nothing is as sure as that."""
    often = told.sum(dim=0)
    return torch.where(often > 0, (p * told).sum(dim=0) / often.clamp(min=1), torch.inf).clamp(min=1e-9)


def planted(evidence: Evidence, *, generator: torch.Generator) -> Tensor:
    """(n, k) bool: of each sample in question one of its labels replaced by one that it does not have.

    Which one: as people seem to mistake that label for others, judged by where the models say it and people another.
    """
    given, probabilities = evidence.given, evidence.probabilities.double().nan_to_num(0.0)
    asked = evidence.predicted.nonzero()[:, 0]
    used = evidence.told.any(dim=0) if int(evidence.told.any(dim=0).sum()) > 1 else torch.ones(given.shape[1]).bool()
    believed = F.one_hot(probabilities[asked].argmax(dim=1), given.shape[1]).double()
    mistaken = believed.T @ (given[asked] & ~believed.bool()).double()  # (k, k): models say, people say
    chances = mistaken + _EVENLY * used / max(1, int(used.sum()) - 1)
    leaves = torch.multinomial(given[asked].double(), 1, generator=generator)[:, 0]
    others = chances[leaves] * (used & ~given[asked])
    others = torch.where(others.sum(dim=1, keepdim=True) > 0, others, (~given[asked]).double())
    able = others.sum(dim=1) > 0  # not where a sample has every label
    asked, leaves = asked[able], leaves[able]
    enters = torch.multinomial(others[able], 1, generator=generator)[:, 0]
    result = given.clone()
    result[asked, leaves], result[asked, enters] = False, True
    return result


def _learned(
    evidence: Evidence, found: Mined, wrong: Evidence, found_wrong: Mined, config: HardConfig
) -> tuple[Judge, float]:
    """The judge, and the share of the given labels that is wrong."""
    asked = evidence.predicted
    doubts, doubts_wrong = found.doubts(evidence)[asked], found_wrong.doubts(wrong)[asked]
    suspicion = (doubts[:, 0] > 0.5).float()  # of each given label; at first, models that say otherwise are believed
    count = len(suspicion)
    estimated = share_wrong(evidence.probabilities[asked], evidence.given[asked], multi_label=evidence.multi_label)
    share = min(max(estimated, 1 / (2 * count)), _MOST_WRONG)
    kinds = torch.arange(3 * count) >= count  # given as right ones, given as wrong ones, planted
    threshold = THRESHOLD if config.threshold is None else config.threshold
    for _ in range(_ROUNDS):
        trusted = asked.clone()
        trusted[asked] = suspicion < 0.5
        scale = scale_of(found.scores, trusted)
        given, plants = (
            {
                name: score[asked]
                for name, score in by_miner(each.scores, scale, operator_weights=config.operators).items()
            }
            for each in (found, found_wrong)
        )
        model = calibrate(
            torch.cat([doubts, doubts, doubts_wrong]),
            {name: torch.cat([score, score, plants[name]]) for name, score in given.items()},
            kinds,
            weight=torch.cat([1 - suspicion, suspicion, torch.ones(count)]),
        )
        model = model.adding_up(doubts, given, share)
        suspicion = model.probabilities(doubts, given)
    return Judge("calibrated", scale, config.operators, config.weights, model, threshold), share
