"""What an image shows, as a vector: square thumbnails in, rows whose Euclidean distances follow content out.

Three steps, each of use by itself. An `Encoder` turns thumbnails (B, 3, S, S) uint8 RGB into raw vectors (B, D);
`fit_embedding` whitens these on the user's own images, and its result, an `Embedding`, is an encoder again;
`neighbour_embedding` re-places the vectors of a whole set by who is near whom, for clustering. `content_vectors` is
the first two at once for a set that need not fit in memory. An encoder that learns from the images (self-supervised)
is one more function from `Images` to an `Encoder`. Nothing is ever downloaded, and nothing here knows of files
except `load_encoder`, which reads weights.

Chosen by benchmarks/grouping.py, mean NMI of k-means with the true number of groups over 3 seeds:

    vectors                                        digits   signs  cifar10
    pixels                                          0.747   0.174    0.078
    histograms of gradients (scikit-image, best)    0.858   0.513    0.133
    "gradients", whitened, neighbour_embedding      0.931   0.626    0.235

A convolutional patch dictionary (ZCA-whitened 6x6 patches, 256..512 atoms, soft threshold; Coates and Ng 2011) was
tried in a throw-away version: 0.87-0.91, 0.34-0.50, 0.16-0.17 at a thirtieth of the speed, so it was left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import scipy.linalg
import scipy.sparse
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import InputError, UsageError

#: Begins a new pass over batches (B, 3, S, S) of uint8 RGB images: the same images in the same order each time.
Images: TypeAlias = Callable[[], Iterable[Tensor]]


@dataclass(frozen=True, slots=True)
class Part:
    """Columns of a raw vector that speak of one thing, whitened by themselves.

    columns: how many there are. keep: how many remain after whitening. weight: the length of the part in the
    embedding, where it tells how much the part says in distances.
    """

    columns: int
    keep: int
    weight: float = 1.0


class Encoder(Protocol):
    """Thumbnails in, vectors out; the same image gives the same vector (to rounding) in every batch.

    size: side of the thumbnails, in pixels. dim: length of the vectors. parts: their columns, from left to right.
    """

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def parts(self) -> tuple[Part, ...]: ...

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, size, size) uint8 RGB on any device -> (B, dim) float32 there. Raises InputError for other images."""
        ...


# ---- Gradients and colors: the encoder that needs no weights. ----

_ORIENTATIONS: Final = 9  # unsigned, over 180 degrees (Dalal and Triggs 2005, figure 4)
#: Cells of 8 pixels see the layout, cells of 4 the detail; the weight makes the fine part, which has five times as many
#: columns, the shorter of the two.
_CELLS: Final = ((8, 1.0), (4, 0.3))
_CONTRAST_FLOOR: Final = 0.01  # of the range of a pixel: gradients weaker than this are noise and are not amplified
_CLIP: Final = 0.2  # no orientation may say more than this about its block (Lowe 2004, section 6.1)
_COLOR_CELLS: Final = 4


@dataclass(frozen=True, slots=True)
class Gradients:
    """Histograms of oriented gradients at two scales, and a coarse layout of light and color.

    Shape: for each pixel the gradient of the channel where it is steepest, shared between the two nearest of 9
    orientations and the four nearest cells, by cells of 8 and of 4 pixels; each block of 2x2 cells is divided by its
    length, clipped and square-rooted (Dalal and Triggs 2005; Arandjelovic and Zisserman 2012 for the root). Color:
    mean and standard deviation of luma, red - green and yellow - blue in 4x4 cells.
    The image's 32 pixels are enough: 48 and 64 gave no better groups.
    """

    name: str = "gradients"
    size: int = 32

    @property
    def parts(self) -> tuple[Part, ...]:
        blocks = sum((self.size // cell - 1) ** 2 for cell, _ in _CELLS)
        return Part(4 * _ORIENTATIONS * blocks, 64), Part(6 * _COLOR_CELLS**2, 24, 0.35)

    @property
    def dim(self) -> int:
        return sum(part.columns for part in self.parts)

    def encode(self, images: Tensor) -> Tensor:
        _check_images(images, self.size)
        pixels = images.float().div_(255)
        energy = _oriented_energy(pixels)
        shapes = [weight * _signed_root(_blocks(_cells(energy, cell))) for cell, weight in _CELLS]
        return torch.cat([*shapes, _color_layout(pixels)], dim=1)


def _oriented_energy(pixels: Tensor) -> Tensor:
    """(B, 3, S, S) -> (B, 9, S, S): the length of the steepest channel's gradient, at its orientation."""
    padded = F.pad(pixels, (1, 1, 1, 1), mode="replicate")
    dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    steepest = (dx.square() + dy.square()).argmax(dim=1, keepdim=True)
    dx, dy = dx.gather(1, steepest), dy.gather(1, steepest)
    angle = torch.atan2(dy, dx).remainder(math.pi).mul_(_ORIENTATIONS / math.pi)  # [0, 9]
    bins = torch.arange(_ORIENTATIONS, device=pixels.device, dtype=pixels.dtype).view(1, -1, 1, 1)
    away = (angle - bins).abs()
    away = torch.minimum(away, _ORIENTATIONS - away)  # 0 and 180 degrees are one
    return (1 - away).clamp_(min=0).mul_(torch.hypot(dx, dy))


def _cells(energy: Tensor, cell: int) -> Tensor:
    """(B, O, S, S) -> (B, O, S / cell, S / cell): sums under a tent two cells wide, so small shifts matter little."""
    tent = 1 - (torch.arange(2 * cell, device=energy.device) + 0.5 - cell).abs() / cell
    kernel = torch.outer(tent, tent).expand(energy.shape[1], 1, -1, -1).contiguous()
    return F.conv2d(F.pad(energy, (cell // 2,) * 4), kernel, stride=cell, groups=energy.shape[1])


def _blocks(cells: Tensor) -> Tensor:
    """(B, O, n, n) -> (B, 4 O (n - 1)^2): each cell four times, relative to each block of 2x2 cells that it is in."""
    last = cells.shape[-1] - 1
    energy = F.avg_pool2d(cells.square().sum(dim=1, keepdim=True), 2, stride=1).mul_(4)
    scale = (energy + _CONTRAST_FLOOR**2).rsqrt()
    corners = [cells[:, :, y : y + last, x : x + last] * scale for y in (0, 1) for x in (0, 1)]
    return torch.cat(corners, dim=1).clamp_(max=_CLIP).flatten(1)


def _signed_root(x: Tensor) -> Tensor:
    return x.sign() * x.abs().sqrt()


def _color_layout(pixels: Tensor) -> Tensor:
    """(B, 3, S, S) -> (B, 6 * 16): means, then standard deviations."""
    red, green, blue = pixels.unbind(dim=1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    opponent = torch.stack([luma, red - green, (red + green) / 2 - blue], dim=1)
    cell = pixels.shape[-1] // _COLOR_CELLS
    mean = F.avg_pool2d(opponent, cell)
    std = (F.avg_pool2d(opponent.square(), cell) - mean.square()).clamp_(min=0).sqrt()
    return torch.cat([mean.flatten(1), std.flatten(1)], dim=1)


def _check_images(images: Tensor, size: int) -> None:
    if images.ndim != 4 or images.shape[1:] != (3, size, size) or images.dtype != torch.uint8:
        wanted = f"(B, 3, {size}, {size}) torch.uint8"
        raise InputError(f"images: must be {wanted}, got {tuple(images.shape)} {images.dtype}")


# ---- Networks of torchvision, with weights from a file. ----

_BACKBONE_SIZE: Final = 224
_BACKBONE_BATCH: Final = 32  # at 224 pixels, activations of more than this no longer fit any cache
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)  # what torchvision's weights were trained with
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Backbone:
    """A classification network of torchvision without its last layer, in evaluation mode."""

    name: str
    net: nn.Module
    dim: int
    size: int = _BACKBONE_SIZE

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.dim, min(128, self.dim)),)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        _check_images(images, self.size)
        mean, std = (
            torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        rows = [images.new_empty(0, self.dim, dtype=torch.float32)]
        for few in torch.split(images, _BACKBONE_BATCH):
            if len(few):
                inputs = few.float().div_(255).sub_(mean).div_(std)
                rows.append(self.net(inputs.contiguous(memory_format=torch.channels_last)).flatten(1))
        return torch.cat(rows)


#: Encoders that need no weights. Every classification network of torchvision is known to `load_encoder` besides.
ENCODERS: Final[dict[str, Callable[[], Encoder]]] = {"gradients": Gradients}
DEFAULT_ENCODER: Final = "gradients"


def load_encoder(
    name: str = DEFAULT_ENCODER, *, weights: Path | None = None, device: torch.device | None = None
) -> Encoder:
    """An encoder by name: one of ENCODERS, or a torchvision network with its weights in a local file.

    weights: a state dict as torchvision publishes them: .safetensors, else what torch.save wrote (nothing in it is
    executed). The last layer may be missing or of any size; everything else must match.

    Raises UsageError for an unknown name, and for weights that are missing or that the encoder has no use for;
    InputError for a file that cannot be read or does not fit.
    """
    if name in ENCODERS:
        if weights is not None:
            raise UsageError(f"weights: encoder {name!r} has none, got {weights}")
        return ENCODERS[name]()
    _known_backbone(name)
    if weights is None:
        raise UsageError(f"encoder: {name} needs weights from a local file, got none (nothing is downloaded)")
    return backbone(name, read_state(weights), place=weights, device=device)


def backbone(name: str, state: Mapping[str, Tensor], *, place: Path, device: torch.device | None = None) -> Backbone:
    """The network of torchvision of that name with the tensors of a state dict, which it keeps.

    The last layer may be missing or of any size; everything else must match. place: names the tensors in errors.
    Raises UsageError for an unknown name, InputError for tensors that do not fit.
    """
    _known_backbone(name)
    from torchvision import models  # heavy, and of no use to the default

    # Without memory of its own, until the weights are put in: no time or random numbers go into initial values.
    with torch.device("meta"):
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        net = models.get_model(name, weights=None, **extra)
    head, dim = _take_head(name, net)
    state = {key: value for key, value in state.items() if key not in (f"{head}.weight", f"{head}.bias")}
    check_state(place, name, net, state)
    net.load_state_dict(state, assign=True)
    net.requires_grad_(False)
    net = net.to(device or torch.device("cpu"), torch.float32).to(memory_format=torch.channels_last)
    return Backbone(name, net.eval(), dim)


def _known_backbone(name: str) -> None:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(f"encoder: must be {', '.join(ENCODERS)} or one of {', '.join(known)}, got {name!r}")


def _take_head(name: str, net: nn.Module) -> tuple[str, int]:
    """Put an identity in the place of the last linear layer; its name and the length of what it was given."""
    linear = [(key, module) for key, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UsageError(f"encoder: {name} does not end in a linear layer and cannot be used")
    key, head = linear[-1]
    parent, _, last = key.rpartition(".")
    setattr(net.get_submodule(parent), last, nn.Identity())
    return key, head.in_features


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict: .safetensors, else what torch.save wrote (nothing in it is executed). Raises
    InputError."""
    if not path.is_file():
        raise InputError(f"{path}: must be a file with weights, got {'a folder' if path.is_dir() else 'nothing there'}")
    try:
        state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except Exception as error:  # what is no such file makes torch.load raise anything
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: must be a state dict of tensors, cannot be read: {why}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        got = (
            f"a dict with {', '.join(map(repr, list(state)[:4]))}" if isinstance(state, dict) else type(state).__name__
        )
        raise InputError(f"{path}: must be a state dict of tensors, got {got}")
    return state


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def check_state(path: Path, name: str, net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raise InputError unless the tensors are those of the network: with counts, and the first of each sort."""
    wanted = net.state_dict()
    # The count of batches of a normalisation is of no use here, and old files do not have it.
    missing = [key for key in wanted if key not in state and not key.endswith(".num_batches_tracked")]
    unknown = [key for key in state if key not in wanted]
    reshaped = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    problems = [
        f"{len(keys)} {what} ({keys[0]}{', ...' if len(keys) > 1 else ''})"
        for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", reshaped))
        if keys
    ]
    if problems:
        raise InputError(f"{path}: must hold the {len(wanted)} tensors of {name}, got {', '.join(problems)}")


# ---- Whitening on the user's own images. ----

#: Half way is best for k-means here: PCA lets light outshout shape, full whitening makes noise as loud as content
#: (signs: 0.50, 0.55, 0.50 for power 0, 1/2, 1).
_POWER: Final = 0.5
#: Below this share of the largest variance a direction is rounding, not content.
_RANK_FLOOR: Final = 1e-7


@dataclass(frozen=True, slots=True)
class Whitening:
    """A linear map from d columns to their `dim` main directions. mean: (d,). matrix: (d, dim), float32."""

    mean: Tensor
    matrix: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, dim) float32."""
        return (x.float() - self.mean.to(x.device)) @ self.matrix.to(x.device)


def fit_whitening(rows: Iterable[Tensor], dim: int, *, power: float = _POWER) -> Whitening:
    """Principal directions of rows that are seen once, a block (m, d) at a time; d * d numbers are held, no rows.

    Direction i is divided by its standard deviation to the `power`: 0 is PCA, 1 whitens fully. The largest
    entry of each direction is positive; directions in which nothing varies become zeros.

    dim: 1..d. Raises InputError when there are no rows, a value is not finite, or the blocks differ in width.
    """
    moments = _Moments()
    for block in rows:
        moments.add(block)
    return moments.whitening(dim, power)


class _Moments:
    """Mean and covariance of a stream of rows, float64; the first block's mean is taken out to keep digits."""

    shift: Tensor
    sum: Tensor
    products: Tensor

    def __init__(self) -> None:
        self.n = 0

    def add(self, block: Tensor) -> None:
        if block.ndim != 2 or (self.n and block.shape[1] != len(self.sum)):
            wanted = len(self.sum) if self.n else "d"
            raise InputError(f"rows: must be (m, {wanted}), got shape {tuple(block.shape)}")
        if not len(block):
            return
        block = block.detach().float()
        if not self.n:
            self.shift = block.mean(dim=0)
            self.sum = torch.zeros(block.shape[1], dtype=torch.float64)
            self.products = torch.zeros(block.shape[1], block.shape[1], dtype=torch.float64)
        block = block - self.shift
        self.n += len(block)
        self.sum += block.sum(dim=0).cpu()
        self.products += (block.T @ block).cpu()

    def whitening(self, dim: int, power: float) -> Whitening:
        if not self.n:
            raise InputError("rows: must be at least 1, got 0")
        d = len(self.sum)
        if not 1 <= dim <= d:
            raise InputError(f"dim: must be 1..{d} (the columns), got {dim}")
        offset = self.sum / self.n
        covariance = self.products / self.n - torch.outer(offset, offset)
        if not bool(covariance.isfinite().all()):
            raise InputError("rows: must be finite, got NaN or infinity")
        values, vectors = scipy.linalg.eigh(covariance.numpy(), subset_by_index=[d - dim, d - 1])
        variances, directions = values[::-1].copy(), vectors[:, ::-1].copy()
        largest = directions[np.abs(directions).argmax(axis=0), np.arange(dim)]
        real = variances > max(_RANK_FLOOR * variances[0], 1e-12)
        scale = np.where(real, np.maximum(variances, 1e-12) ** (-power / 2), 0) * np.where(largest < 0, -1, 1)
        mean = (self.shift.double().cpu() + offset).float()
        return Whitening(mean, torch.from_numpy(directions * scale).float())


@dataclass(frozen=True, slots=True)
class Embedding:
    """An encoder with the whitening of each of its parts, and the number of images it was fitted on.

    Every part of a row has the length of its weight, or none where nothing varies among the images.
    """

    encoder: Encoder
    whitenings: tuple[Whitening, ...]
    images: int

    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def size(self) -> int:
        return self.encoder.size

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(Part(part.keep, part.keep, part.weight) for part in self.encoder.parts)

    @property
    def dim(self) -> int:
        return sum(part.keep for part in self.encoder.parts)

    def encode(self, images: Tensor) -> Tensor:
        return self.apply(self.encoder.encode(images))

    def apply(self, raw: Tensor) -> Tensor:
        """Raw vectors of the encoder (n, encoder.dim) -> (n, dim)."""
        columns = torch.split(raw, [part.columns for part in self.encoder.parts], dim=1)
        return torch.cat(
            [
                part.weight * F.normalize(whitening.apply(some), dim=1)
                for part, whitening, some in zip(self.encoder.parts, self.whitenings, columns, strict=True)
            ],
            dim=1,
        )


def fit_embedding(
    encoder: Encoder,
    images: Iterable[Tensor],
    *,
    device: torch.device | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Embedding:
    """Whiten what an encoder says on the images given, seen once, batch by batch.

    progress: called with the number of images done. Raises InputError when there is no image.
    """
    return embedding_of(encoder, _encoded(encoder, images, device, progress))


def content_vectors(
    images: Images,
    *,
    encoder: Encoder | None = None,
    device: torch.device | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """The vectors of a whole set of n images: fit an `Embedding` on them and apply it; (n, dim) float32, on the CPU.

    encoder: `Gradients` by default, dim = 88. In memory are the result and a batch; the images are passed over twice.
    Rows that are smaller than their images and dear to make, as a network's are, are kept instead (2 KB an image for
    resnet18). progress: called with the number of images done, up to n. Raises InputError when there is no image.
    """
    encoder = encoder or ENCODERS[DEFAULT_ENCODER]()
    if 4 * encoder.dim <= 3 * encoder.size**2:
        raw = [rows.cpu() for rows in _encoded(encoder, images(), device, progress)]
        fitted = embedding_of(encoder, raw)
        return torch.cat([fitted.apply(rows) for rows in raw])
    fitted = fit_embedding(encoder, images(), device=device, progress=lambda done: progress(done // 2))
    again = _encoded(encoder, images(), device, lambda done: progress((fitted.images + done) // 2))
    return torch.cat([fitted.apply(rows).cpu() for rows in again])


def embedding_of(encoder: Encoder, raw: Iterable[Tensor]) -> Embedding:
    """Whiten raw vectors of an encoder, blocks (b, encoder.dim) that are seen once. Raises InputError when there is
    none."""
    widths = [part.columns for part in encoder.parts]
    moments = [_Moments() for _ in widths]
    for rows in raw:
        for moment, columns in zip(moments, torch.split(rows, widths, dim=1), strict=True):
            moment.add(columns)
    if not moments[0].n:
        raise InputError("images: must be at least 1, got 0")
    fitted = zip(moments, encoder.parts, strict=True)
    whitenings = tuple(moment.whitening(part.keep, _POWER) for moment, part in fitted)
    return Embedding(encoder, whitenings, moments[0].n)


def _encoded(
    encoder: Encoder, images: Iterable[Tensor], device: torch.device | None, progress: Callable[[int], None]
) -> Iterator[Tensor]:
    done = 0
    for batch in images:
        with torch.no_grad():
            raw = encoder.encode(batch.to(device) if device else batch)
        yield raw
        done += len(batch)
        progress(done)


# ---- Who is near whom. ----

_LANDMARKS: Final = 20_000  # exact neighbours of so many take 6 s on 2 cores
_BLOCK: Final = 2**24  # distances at once: 64 MB
_SPARE: Final = 10  # directions more than asked for make the subspace iteration converge (Halko et al. 2011)
_ITERATIONS: Final = 40


def neighbour_embedding(
    x: Tensor,
    *,
    dim: int = 32,
    neighbours: int = 15,
    steps: int = 8,
    landmarks: int = _LANDMARKS,
    generator: torch.Generator,
) -> Tensor:
    """Points (n, d) -> (n, dim) float32 on the CPU, rows of length 1: near each other when a walk leads from one to the
    other.

    Groups that bend through the space, as those of images do, become compact: k-means then finds what it would cut.
    Each point is tied to its nearest neighbours; the coordinates are the main eigenvectors of the random walk on that
    graph, each times its eigenvalue to the power of `steps` (a walk of so many steps), and of length 1 a row. For k
    clusters take dim >= k, up to twice that.

    Up to `landmarks` distinct points are placed exactly; more are placed at the mean of their nearest among that many
    drawn landmarks. Equal points get equal rows, and count once, so that no heap of copies becomes a group by itself.
    Small sets use fewer neighbours: at most the root of n. Memory: 64 MB of distances, never n * n; the time is n
    times landmarks.

    Raises InputError when x is not (n, d) finite with n and d at least 1, or an option is out of its range.
    Source: Coifman and Lafon 2006 (diffusion maps); Ng, Jordan and Weiss 2001 (unit rows).
    """
    if x.ndim != 2 or not x.shape[0] or not x.shape[1] or not x.is_floating_point():
        raise InputError(f"x: must be (n, d) of a floating type, n and d at least 1, got {tuple(x.shape)} {x.dtype}")
    if not bool(x.isfinite().all()):
        raise InputError("x: must be finite, got NaN or infinity")
    for what, value in (("dim", dim), ("neighbours", neighbours), ("steps", steps), ("landmarks", landmarks)):
        if value < 1:
            raise InputError(f"{what}: must be at least 1, got {value}")
    x = x.detach().float()
    distinct, copy_of = _distinct(x - x.mean(dim=0))
    return _placed(distinct, dim, neighbours, steps, landmarks, generator)[copy_of]


def _distinct(x: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that differ, to five digits, and for each row of x which one of these it is."""
    step = 1e-5 * max(float(x.abs().max()), 1e-30)
    digits = (x / step).round().cpu().numpy().astype(np.int32)
    _, first, copy_of = np.unique(digits, axis=0, return_index=True, return_inverse=True)
    return x[torch.from_numpy(first).to(x.device)], torch.from_numpy(copy_of.ravel())


def _placed(x: Tensor, dim: int, neighbours: int, steps: int, landmarks: int, generator: torch.Generator) -> Tensor:
    """The coordinates (n, dim) of distinct points: landmarks by the walk among them, the others by their nearest."""
    n = len(x)
    drawn = torch.randperm(n, generator=generator, device=generator.device)[:landmarks].sort().values.to(x.device)
    base = x[drawn]
    count = min(neighbours, math.isqrt(len(base) - 1) if len(base) > 1 else 0)
    placed = _walked(nearest(base, None, count), dim, steps, generator)
    result = torch.zeros(n, dim)
    result[drawn.cpu()] = placed
    if n > len(base):
        other = torch.ones(n, dtype=torch.bool, device=x.device)
        other[drawn] = False
        result[other.cpu()] = placed[nearest(x[other], base, max(count, 1))].mean(dim=1)
    return F.normalize(result, dim=1)


def nearest(x: Tensor, among: Tensor | None, count: int) -> Tensor:
    """(n, count) int64 on the CPU, nearest first: rows of `among`, or of x itself without the row that asks.

    Memory: 64 MB of distances at once; the time is that of all n * m distances.
    """
    base = x if among is None else among
    halves = base.square().sum(dim=1) / 2
    found = [torch.empty(0, count, dtype=torch.int64)]
    rows = max(1, _BLOCK // len(base))
    for start in range(0, len(x), rows):
        some = x[start : start + rows]
        distances = torch.addmm(halves, some, base.T, alpha=-1)  # less the row's own |x|^2 / 2, halved
        if among is None:
            distances.diagonal(start).fill_(math.inf)
        found.append(distances.topk(count, largest=False).indices.cpu())
    return torch.cat(found)


def _walked(nearest: Tensor, dim: int, steps: int, generator: torch.Generator) -> Tensor:
    """(n, neighbours) -> (n, dim): the main eigenvectors of the walk, by subspace iteration of the lazy walk.

    A block of vectors also finds eigenvalues that many pieces of the graph share, and its time is known beforehand.
    """
    n, count = nearest.shape
    if not count:
        return torch.ones(n, 1).expand(n, dim)
    ties = scipy.sparse.csr_matrix(
        (np.ones(n * count), nearest.numpy().ravel(), np.arange(0, n * count + 1, count)), shape=(n, n)
    )
    ties = (ties + ties.T) / 2
    root = scipy.sparse.diags(np.asarray(ties.sum(axis=1)).ravel() ** -0.5)
    walk = (root @ ties @ root).tocsr().astype(np.float32)  # symmetric, with the eigenvalues of the random walk
    start = torch.randn(n, min(n, dim + _SPARE), generator=generator, device=generator.device)
    basis = np.linalg.qr(start.cpu().numpy())[0]
    for i in range(_ITERATIONS):
        basis = (basis + walk @ basis) / 2  # lazy: eigenvalues in [0, 1], or the most negative would win as well
        if i % 4 == 3:
            basis = np.linalg.qr(basis)[0]
    values, mixing = np.linalg.eigh(basis.T @ (walk @ basis))
    values, vectors = values[::-1][:dim], (basis @ mixing[:, ::-1])[:, :dim]
    vectors *= np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(values))] < 0, -1, 1)
    placed = torch.zeros(n, dim)
    placed[:, : len(values)] = torch.from_numpy(vectors * values.clip(0) ** steps)
    return F.normalize(placed, dim=1)
