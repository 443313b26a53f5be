"""The 31 reasons why a sample is hard, the seven miners that find them, and what each miner weighs by default.

Numbers and words are those of the specification (CreateTask, table 13; default weights: the service's hard-example
filter). A reason's score lies in [0, 1], 1 = hardest; what it means is said where it is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason, in words. miner: who finds it. of_boxes: whether it says something of boxes only."""

    words: str
    miner: str
    of_boxes: bool = False


#: Miners and their default weights (comprehensive_algo_config).
WEIGHTS: Final = MappingProxyType(
    {
        "clustering_mining": 0.2020,
        "aug_consistent_mining": 0.4265,
        "feature_distribution_mining": 0.0451,
        "sequential_mining": 0.425,
        "image_similarity_mining": 0.0949,
        "predict_score_mining": 0.3900,
        "anomaly_detection_mining": 0.2020,
    }
)

#: Operators of aug_consistent_mining, as a request spells them, and the reason for which each stands.
OPERATORS: Final = MappingProxyType(
    {
        "gaussianblur": 19,
        "fliplr": 20,
        "crop": 21,
        "flipud": 22,
        "scale": 23,
        "translate": 24,
        "shear": 25,
        "superpixels": 26,
        "sharpen": 27,
        "add": 28,
        "invert": 29,
    }
)
#: Those that are tried by default, and their weights (aug_op_config).
OPERATOR_WEIGHTS: Final = MappingProxyType({"crop": 0.1, "fliplr": 0.1, "gaussianblur": 0.1})


def _of_features(words: str, *, of_boxes: bool = False) -> Reason:
    return Reason(f"{words} far from the training set", "feature_distribution_mining", of_boxes)


REASONS: Final = MappingProxyType(
    {
        0: Reason("no target object was identified", "predict_score_mining", True),
        1: Reason("the confidence is low", "predict_score_mining"),
        2: Reason("clusters of the training set say otherwise", "clustering_mining"),
        3: Reason("unlike the training images of its label", "image_similarity_mining"),
        4: Reason("similar neighbours in the sequence were predicted otherwise", "sequential_mining"),
        5: _of_features("resolution"),
        6: _of_features("aspect ratio"),
        7: _of_features("brightness"),
        8: _of_features("saturation"),
        9: _of_features("color richness"),
        10: _of_features("definition"),
        11: _of_features("number of boxes", of_boxes=True),
        12: _of_features("spread of the box areas", of_boxes=True),
        13: _of_features("aspect ratio of the box", of_boxes=True),
        14: _of_features("size of the box", of_boxes=True),
        15: _of_features("distance of the box from the centre", of_boxes=True),
        16: _of_features("brightness inside the box", of_boxes=True),
        17: _of_features("definition inside the box", of_boxes=True),
        18: _of_features("overlap of the box with others", of_boxes=True),
        **{
            number: Reason(f"the prediction changes under {operator}", "aug_consistent_mining")
            for operator, number in OPERATORS.items()
        },
        30: Reason("predicted to be abnormal", "anomaly_detection_mining"),
    }
)
