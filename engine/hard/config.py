"""What a person may ask of the search for hard examples, in the words of the specification."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from engine.errors import UsageError
from engine.hard.reasons import OPERATOR_WEIGHTS, OPERATORS, WEIGHTS

COMBINERS: Final = ("weights", "calibrated")
#: Documented for `weights`: what one training sample in ten reaches. For `calibrated`: one wrong label in ten that are
#: looked at is worth a look.
THRESHOLDS: Final = {"weights": 0.1, "calibrated": 0.1}


@dataclass(frozen=True, slots=True)
class HardConfig:
    """algo_config: weights of miners (comprehensive_algo_config); None: the documented ones. Given ones select the
    combiner `weights`. operators: weights of alterations (aug_op_config). threshold: of the coefficient, from which on
    a sample is hard (algo_hard_threshold); None: that of the combiner. combiner: None: `calibrated` where people
    labeled something and no weights are given.

    Raises UsageError for values out of range.
    """

    algo_config: Mapping[str, float] | None = None
    operators: Mapping[str, float] = field(default_factory=lambda: OPERATOR_WEIGHTS)
    threshold: float | None = None
    combiner: str | None = None

    def __post_init__(self) -> None:
        if self.algo_config is not None:
            _check("comprehensive_algo_config", self.algo_config, WEIGHTS)
        _check("aug_op_config", self.operators, OPERATORS)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UsageError(f"algo_hard_threshold: must be in [0, 1], got {self.threshold!r}")
        if self.combiner is not None and self.combiner not in COMBINERS:
            raise UsageError(f"combiner: must be {' or '.join(COMBINERS)}, got {self.combiner!r}")

    @property
    def weights(self) -> Mapping[str, float]:
        """The weight of each miner that takes part."""
        return WEIGHTS if self.algo_config is None else self.algo_config

    @property
    def altering(self) -> tuple[str, ...]:
        """The alterations that are tried."""
        if not self.weights.get("aug_consistent_mining"):
            return ()
        return tuple(name for name, weight in self.operators.items() if weight > 0)

    def combiner_for(self, labeled: int) -> str:
        """Which combiner is used, with so many labeled samples that were judged out of fold."""
        if self.combiner is not None:
            return self.combiner
        return "calibrated" if labeled and self.algo_config is None else "weights"


def parsed_weights(what: str, text: str) -> dict[str, float]:
    """`name:weight+name:weight`, as in `predict_score_mining:0.39+anomaly_detection_mining:0.2`.

    Raises UsageError where it is not of this form. Names are checked by `HardConfig`.

    >>> parsed_weights("aug_op_config", "crop:0.1+fliplr:0.2")
    {'crop': 0.1, 'fliplr': 0.2}
    """
    found: dict[str, float] = {}
    for part in text.split("+"):
        name, _, weight = (each.strip() for each in part.partition(":"))
        try:
            value = float(weight)
        except ValueError:
            raise UsageError(f"{what}: must be name:weight+name:weight, got {part.strip()!r}") from None
        if name in found:
            raise UsageError(f"{what}: {name} must be there once, got it twice")
        found[name] = value
    return found


def _check(what: str, weights: Mapping[str, float], known: Collection[str]) -> None:
    for name, weight in weights.items():
        if name not in known:
            raise UsageError(f"{what}: must be of {', '.join(known)}, got {name!r}")
        if not 0 <= weight < math.inf:
            raise UsageError(f"{what}: the weight of {name} must be a number from 0 on, got {weight!r}")
    if not any(weights.values()):
        raise UsageError(f"{what}: one weight must be above 0, got none")
