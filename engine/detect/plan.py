"""How detectors are trained on a pool: `BoxSettings` in, `BoxPlan` out, the same for the same pool."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from engine.detect.losses import detection_loss, wanted
from engine.detect.network import CELL, Detector, DetectorSpec, initialised_detector
from engine.detect.pool import BoxPool
from engine.detect.trunk import Trunk, widths_of
from engine.detect.views import LEARNING, View, viewed
from engine.embeddings import Gradients
from engine.label.calibration import folds_of
from engine.label.flips import FLIP_FROM, USUALLY_KEPT, leads_kept
from engine.label.networks import NetworkSpec, fit_stem
from engine.label.pool import Pool
from engine.label.training import Recipe, Training, generator_of, step_seconds

#: Images a step.
BATCH: Final = 16
#: Channels of the stages and of the fine map; a GPU has time for more.
_WIDTHS: Final = (64, 96, 160, 224)
_NECK: Final = 64
_WIDTHS_ON_GPU: Final = (96, 160, 256, 384)
_NECK_ON_GPU: Final = 128
LEARNING_RATE: Final = 0.24
#: How fast a trunk that was trained learns, as a share of the rates of everything else.
_TRUNK_RATE: Final = 0.1
#: What is shown in training, as a share of each side of the canvas, in multiples of _STEP.
_SHOWN: Final = 0.95
_STEP: Final = 32
_LEAST_SHOWN: Final = 0.75
#: From this side on a stem has stride 2, as detectors need it.
_LEAST_STEM: Final = 48
#: Labeled images whose patches the stem is fitted on.
_STEM_IMAGES: Final = 200
#: Insides of boxes by which it is found out which mirror images keep their label, and places without a box beside them.
_MOST_CROPS: Final = 600
_CROP_SIDE: Final = 32
#: Logarithm of an aspect ratio that is still even: 1.2.
_EVEN: Final = 0.18


@dataclass(frozen=True, slots=True)
class BoxSettings:
    """What a person may ask for; None: chosen here. members: networks. threshold: confidence from which on boxes are
    given. trunk: one that was trained, to begin with; None: from scratch. compiled: whether networks are."""

    seed: int = 0
    batch_size: int | None = None
    learning_rate: float | None = None
    members: int | None = None
    threshold: float | None = None
    trunk: Trunk | None = None
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class BoxPlan:
    """spec: the form of the networks. shown: (height, width) of what is shown in training. fold: (n,) int64, the part
    of each labeled image, the same for the same file. members: networks, member i without part i, where there is one.
    flips, transposed: those that keep labels. found: what was chosen, JSON values."""

    spec: DetectorSpec
    shown: tuple[int, int]
    batch: int
    fold: Tensor
    members: int
    recipe: Recipe
    flips: tuple[bool, bool]
    transposed: bool
    bfloat16: bool
    seed: int
    threshold: float | None
    found: dict[str, Any]
    trunk: Trunk | None = None

    def view(self, usual: View) -> View:
        """The view with those mirror images that keep labels."""
        return replace(usual, flips=self.flips, transposed=self.transposed)


def plan_for(pool: BoxPool, settings: BoxSettings, *, folds: int, members: int) -> BoxPlan:
    """folds: parts of the labels. members: networks, unless settings say how many. Networks compute in float32 (see
    `with_precision`). Looks at labeled images only."""
    members = settings.members or members
    first = torch.unique(pool.same)  # of equal files: all of them belong to one part
    parts = max(2, min(max(folds, members), len(first)))
    fold = torch.full((len(pool.labeled),), -1)
    fold[first] = folds_of(pool.presence[first], parts, generator_of(settings.seed, "folds"))
    fold = fold[pool.same]
    kept = _kept(pool, fold, settings.seed)
    flips = (kept["horizontal"] >= FLIP_FROM, kept["vertical"] >= FLIP_FROM)
    transposed = all(flips) and kept["transposed"] >= FLIP_FROM and _as_wide_as_high(pool)
    spec = spec_for(pool, settings.trunk)
    height, width = (
        max(int(_SHOWN * side) // _STEP * _STEP, int(_LEAST_SHOWN * side) // CELL * CELL) for side in pool.size
    )
    batch = settings.batch_size or BATCH
    found = {
        "canvas": f"{pool.size[1]}x{pool.size[0]}",
        "widths": list(spec.widths),
        "batch_size": batch,
        "folds": int(fold.max()) + 1,
        "networks": members,
        "flips": [name for name, allowed in zip(kept, (*flips, transposed), strict=True) if allowed],
        "flips_keep": kept,
        "device": pool.device.type,
        **({"trunk": spec.trunk} if spec.trunk else {}),
        **({"compiled": True} if settings.compiled else {}),
    }
    recipe = Recipe(
        learning_rate=settings.learning_rate or LEARNING_RATE,
        gently={"trunk.": _TRUNK_RATE},
        compiled=settings.compiled,
    )
    return BoxPlan(
        spec,
        (height, width),
        batch,
        fold,
        members,
        recipe,
        flips,
        transposed,
        False,
        settings.seed,
        settings.threshold,
        found,
        settings.trunk,
    )


def spec_for(pool: BoxPool, trunk: Trunk | None = None) -> DetectorSpec:
    sizes = torch.cat([each[:, 2:] - each[:, :2] for each in pool.boxes])
    reach = float(sizes.prod(dim=1).sqrt().median()) / 2
    on_cpu = pool.device.type == "cpu"
    widths, neck = (_WIDTHS, _NECK) if on_cpu else (_WIDTHS_ON_GPU, _NECK_ON_GPU)
    if trunk is not None:
        widths = widths_of(trunk.name)
    return DetectorSpec(widths, neck, len(pool.labels), round(max(reach, 1.0), 3), trunk.name if trunk else None)


def new_detector(pool: BoxPool, seen: Tensor, plan: BoxPlan, *names: object) -> Detector:
    """A detector that knows nothing yet of these objects, on the device of the pool. seen: numbers of the labeled
    images that its stem may be fitted on."""
    spec, seed = plan.spec, plan.seed
    if plan.trunk is not None:
        return initialised_detector(spec, plan.trunk, generator_of(seed, "detector", *names)).to(pool.device)
    drawn = seen[torch.randperm(len(seen), generator=generator_of(seed, "stem"))[:_STEM_IMAGES]]
    images = pool.pixels(pool.labeled[drawn]).cpu()
    stem = fit_stem(images, NetworkSpec(max(_LEAST_STEM, *pool.size), (1,), 1))
    return initialised_detector(spec, stem, generator_of(seed, "detector", *names)).to(pool.device)


def with_precision(plan: BoxPlan, *, bfloat16: bool) -> BoxPlan:
    """The plan with networks that compute so."""
    found = {**plan.found, "precision": "bfloat16" if bfloat16 else "float32"}
    return replace(plan, bfloat16=bfloat16, found=found)


def with_members(plan: BoxPlan, members: int) -> BoxPlan:
    """The plan with so many networks, the parts of the labels as they are."""
    return replace(plan, members=members, found={**plan.found, "networks": members})


def supervised_seconds(pool: BoxPool, plan: BoxPlan) -> float:
    """What a step on `batch` labeled images takes here, measured on a network that is not used again."""
    drawn_at_random = torch.randperm(len(pool.labeled), generator=generator_of("timing", "images"))
    which = drawn_at_random[torch.arange(plan.batch) % len(pool.labeled)]
    images, drawn = pool.pixels(pool.labeled[which]), pool.drawn(which)
    chance = generator_of("timing")

    def loss(training: Training) -> Tensor:
        x, boxes = viewed(images, drawn, plan.view(LEARNING), plan.shown, chance)
        return detection_loss(training.net(x), wanted(boxes, plan.spec.outputs, *plan.shown))

    net = new_detector(pool, torch.arange(len(pool.labeled)), plan, "timing")
    return step_seconds(net, loss, bfloat16=plan.bfloat16, compiled=plan.recipe.compiled)


def _kept(pool: BoxPool, fold: Tensor, seed: int) -> dict[str, float]:
    """How far mirror images keep their labels: asked of the insides of boxes, some of every image, or where there are
    many images some of those drawn at random, told from each other and from places where there is none."""
    crops: list[Tensor] = []
    classes: list[int] = []
    parts: list[int] = []
    chance = generator_of(seed, "crops")
    nothing = len(pool.labels)
    each = max(2, math.ceil(_MOST_CROPS / 2 / len(pool.labeled)))
    for at in torch.randperm(len(pool.labeled), generator=chance).tolist():
        if len(crops) >= _MOST_CROPS:
            break
        image = pool.pixels(pool.labeled[at : at + 1])[0].cpu()
        some = torch.randperm(len(pool.boxes[at]), generator=chance)[:each]
        for box, of in zip(pool.boxes[at][some], pool.classes[at][some].tolist(), strict=True):
            places = [(box, of)]
            elsewhere = _elsewhere(pool.boxes[at], box, pool.extents[at], chance)
            if elsewhere is not None:
                places.append((elsewhere, nothing))
            for place, what in places:
                crops.append(_inside(image, place))
                classes.append(what)
                parts.append(int(fold[at]))
    if len(set(classes)) < 2:
        return dict(USUALLY_KEPT)
    pixels, shown = torch.stack(crops), torch.tensor(classes)
    told = torch.nn.functional.one_hot(shown, len(pool.labels) + 1).float()
    told = told[:, told.any(dim=0)]
    names = tuple(map(str, range(told.shape[1])))
    insides = Pool(lambda rows: pixels[rows], told, names, False, _CROP_SIDE, torch.device("cpu"))
    changes = {
        "horizontal": lambda images: images.flip(3),
        "vertical": lambda images: images.flip(2),
        "transposed": lambda images: images.transpose(2, 3),
    }
    # Nothing is nothing in any mirror: that says nothing of objects.
    return leads_kept(insides, Gradients(), torch.tensor(parts), changes, counted=shown != nothing)


def _as_wide_as_high(pool: BoxPool) -> bool:
    """Whether the boxes of every class are, on the middle: what lies never stands where it is not so."""
    sizes = torch.cat([each[:, 2:] - each[:, :2] for each in pool.boxes])
    ratios = (sizes[:, 0] / sizes[:, 1].clamp(min=1e-6)).log()
    classes = torch.cat(list(pool.classes))
    return all(abs(float(ratios[classes == of].median())) < _EVEN for of in set(classes.tolist()))


def _inside(image: Tensor, box: Tensor) -> Tensor:
    """(3, H, W) uint8 and a box -> (3, S, S) uint8."""
    height, width = image.shape[1:]
    x1, y1, x2, y2 = box.round().long().tolist()
    x1, y1 = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    cut = image[:, y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)].float()[None]
    small = torch.nn.functional.interpolate(cut, size=(_CROP_SIDE, _CROP_SIDE), mode="bilinear", antialias=True)
    return small[0].round().clamp(0, 255).to(torch.uint8)


def _elsewhere(boxes: Tensor, box: Tensor, extent: Tensor, chance: torch.Generator) -> Tensor | None:
    """A place of the size of the box on an image of this width and height that covers the middle of no other; None
    where ten tries found none."""
    width, height = (box[2:] - box[:2]).tolist()
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    for u, v in torch.rand(10, 2, generator=chance).tolist():
        x, y = u * max(0.0, float(extent[0]) - width), v * max(0.0, float(extent[1]) - height)
        place = torch.tensor([x, y, x + width, y + height])
        if not bool(((middles > place[:2]) & (middles < place[2:])).all(dim=1).any()):
            return place
    return None
