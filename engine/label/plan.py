"""What was asked for, and how training goes about it: `Settings` in, `Plan` out, the same for the same pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from engine.embeddings import Encoder, Gradients
from engine.label.calibration import folds_of
from engine.label.flips import allowed_flips
from engine.label.networks import Network, NetworkSpec, fit_stem, initialised
from engine.label.pool import Pool
from engine.label.training import Recipe, faster_in_bfloat16, generator_of

#: What the training of a network is called: its number, and of how many.
NETWORK_STAGE: Final = "training network {} of {}"

#: Begins a stage: its name and total, gives what to call with what is done.
Stage: TypeAlias = Callable[[str, int], Callable[[int], None]]

#: Labeled images a step.
_BATCH: Final = 64
_LARGE_BATCH: Final = 128
_LARGE_FROM: Final = 400  # labeled images
#: Channels of the stages; a GPU has time for more.
_WIDTHS: Final = (64, 128, 256)
_WIDTHS_ON_GPU: Final = (128, 256, 512)
#: Images whose patches the stem is fitted on.
_STEM_IMAGES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person may ask for; None: chosen here.

    encoder: for the closed-form head. image_size: side that the networks see, in pixels. members: networks. bfloat16:
    whether networks compute in it. compiled: whether they are (torch.compile). looks: at every image by one network,
    that the caller takes afterwards.
    """

    encoder: Encoder = field(default_factory=Gradients)
    seed: int = 0
    image_size: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    members: int | None = None
    bfloat16: bool = False
    compiled: bool = False
    looks: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How networks are trained. spec: their form. batch: labeled images a step. fold: (n,) int64, the part of
    each labeled image, in the order of `pool.labeled`. members: networks, member i without part i. flips: those that
    keep the label, (horizontal, vertical). looks: as in Settings. found: what was found out and chosen, JSON values."""

    spec: NetworkSpec
    batch: int
    fold: Tensor
    members: int
    learning_rate: float | None
    flips: tuple[bool, bool]
    bfloat16: bool
    compiled: bool
    seed: int
    looks: int
    found: dict[str, Any]

    def recipe(self, usual: float) -> Recipe:
        """The recipe with this peak of the learning rate, unless a person asked for another."""
        return Recipe(learning_rate=self.learning_rate or usual, compiled=self.compiled)

    def of_members(self, members: int) -> Plan:
        """The same with so many networks, or as many as there are parts."""
        members = min(members, int(self.fold.max()) + 1)
        return replace(self, members=members, found={**self.found, "networks": members})

    @property
    def image_size(self) -> int:
        """Side that networks see, in pixels."""
        return self.spec.image_size


def plan_for(pool: Pool, settings: Settings, *, folds: int, members: int) -> Plan:
    """The plan for a pool. folds: parts of the labels. members: networks, unless settings say how many.

    Looks at labeled images only.
    """
    rows = pool.labeled
    members = settings.members or members
    fold = folds_of(pool.told[rows] > 0, max(2, folds, members), generator_of(settings.seed, "folds"))
    members = min(members, int(fold.max()) + 1)  # each misses a part of the labels
    flips, kept = allowed_flips(pool, settings.encoder, fold)
    spec, batch = spec_for(pool, settings), batch_for(len(rows), settings)
    found = {
        "image_size": spec.image_size,
        "widths": list(spec.widths),
        "batch_size": batch,
        "folds": int(fold.max()) + 1,
        "networks": members,
        "flips": [name for name, allowed in zip(kept, flips, strict=True) if allowed],
        "flips_keep": kept,
        "precision": "bfloat16" if settings.bfloat16 else "float32",
        "device": pool.device.type,
        **({"compiled": True} if settings.compiled else {}),
    }
    return Plan(
        spec,
        batch,
        fold,
        members,
        settings.learning_rate,
        flips,
        settings.bfloat16,
        settings.compiled,
        settings.seed,
        settings.looks,
        found,
    )


def spec_for(pool: Pool, settings: Settings) -> NetworkSpec:
    """The form of the networks."""
    widths = _WIDTHS if pool.device.type == "cpu" else _WIDTHS_ON_GPU
    return NetworkSpec(settings.image_size or pool.side, widths, len(pool.labels))


def bfloat16_for(pool: Pool, settings: Settings) -> bool:
    """Whether networks learn faster in bfloat16 than in float32 here. Timed: a busy machine may answer otherwise."""
    probe = new_network(pool, pool.labeled, spec_for(pool, settings), settings.seed, "probe")
    return faster_in_bfloat16(probe, batch_for(len(pool.labeled), settings), device=pool.device)


def batch_for(labeled: int, settings: Settings) -> int:
    """Labeled images a step, for so many labeled ones."""
    return settings.batch_size or (_LARGE_BATCH if labeled >= _LARGE_FROM else _BATCH)


def new_network(pool: Pool, seen: Tensor, spec: NetworkSpec, seed: int, *names: object) -> Network:
    """A network that knows nothing yet, on the device of the pool. seen: positions that its stem may be fitted on."""
    drawn = seen[torch.randperm(len(seen), generator=generator_of(seed, "stem"))[:_STEM_IMAGES]]
    stem = fit_stem(pool.sized(spec.image_size)(drawn).cpu(), spec)
    return initialised(spec, stem, generator_of(seed, "network", *names)).to(pool.device)
