"""Images altered at random, so that a network learns what does not matter: batches in, batches out, on any device.

In: images (B, 3, S, S) uint8. Out: the same shape, float32 in [0, 1]. Each image gets its own turn, shift, scale,
shear, color, and a rectangle cut out; strengths come from a `Policy`. What happens to an image is drawn on the CPU, a
row of numbers each, and done where the images are: one sampling of the grid and one 3x3 matrix of color do the work of
a chain of operators (RandAugment: Cubuk et al. 2020; color jitter and crops of SimCLR: Chen et al. 2020; Cutout:
DeVries and Taylor 2017). Knows nothing of labels.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Policy:
    """How strongly images are altered; every draw is uniform within its range.

    flip_horizontal, flip_vertical: whether half of the images are mirrored. turn: degrees to each side. scale: from and
    to, of the part that is seen, as a share of the side. stretch: of the aspect ratio, factor up to 1 + stretch. shear:
    tangent to each side. shift: of the side. light, contrast, color: factors up to 1 + x and down to 1 - x; hue:
    degrees to each side. grey: share of the images without color. cut: side of the rectangle that is cut out, as a
    share, up to.
    """

    flip_horizontal: bool = False
    flip_vertical: bool = False
    turn: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    stretch: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    light: float = 0.0
    contrast: float = 0.0
    color: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    cut: float = 0.0

    @property
    def colors(self) -> bool:
        """Whether light or colors change."""
        return bool(self.light or self.contrast or self.color or self.hue or self.grey)

    def flipped(self, flips: tuple[bool, bool]) -> Policy:
        """The same with these flips, (horizontal, vertical)."""
        return replace(self, flip_horizontal=flips[0], flip_vertical=flips[1])


#: For a teacher's predictions: almost the image itself.
WEAK: Final = Policy(shift=0.06, scale=(0.9, 1.0))
#: For learning from labels, and for a student who has to agree with its teacher.
STRONG: Final = Policy(
    turn=15, scale=(0.7, 1.1), stretch=0.2, shear=0.15, shift=0.1, light=0.4, contrast=0.4, color=0.5, hue=15, cut=0.5
)
#: For learning from labels that are seen a few times only: what is hardly known yet need not be made strange.
LIGHT: Final = Policy(scale=(0.85, 1.1), stretch=0.1, shift=0.1, light=0.1, contrast=0.1, color=0.2, hue=4, cut=0.3)
#: Times that an image is seen: up to the first LIGHT, from the second on STRONG. (cifar10, equal time, one network: 25
#: times, 4,000 labels, 77.6 % with LIGHT, 76.6 in the middle, 74.2 with STRONG; 115 times, 1,000 labels, 65.4 with
#: STRONG, 64.1 in the middle.)
_SEEN: Final = (25, 100)
#: For two views of one image that shall lie near each other.
VIEWS: Final = Policy(
    turn=10, scale=(0.45, 1.0), stretch=0.25, shift=0.1, light=0.4, contrast=0.4, color=0.6, hue=30, grey=0.2
)


def between(epochs: float, few: float, many: float) -> float:
    """Where a number lies between two others, by its logarithm: 0 at the first and below, 1 at the second and above."""
    return min(1.0, max(0.0, math.log(max(epochs, 1e-9) / few) / math.log(many / few)))


def policy_for(epochs: float) -> Policy:
    """How strongly images are altered that are seen so often."""
    share = between(epochs, *_SEEN)
    light, strong = asdict(LIGHT), asdict(STRONG)

    def mixed(name: str) -> Any:
        ends = light[name], strong[name]
        if isinstance(ends[0], tuple):
            return tuple(a + share * (b - a) for a, b in zip(*ends, strict=True))
        return ends[0] if isinstance(ends[0], bool) else ends[0] + share * (ends[1] - ends[0])

    return Policy(**{name: mixed(name) for name in light})


#: Columns of changes: a map (2, 3) from places in the result to places in the image, in shares of half a side; a matrix
#: (3, 3) of colors and how much of the mean light is added; middle and half sides of a rectangle that is cut out, in
#: shares of the side.
_MAP, _COLORS, _RECTANGLE = slice(0, 6), slice(6, 16), slice(16, 20)
_DRAWS: Final = 20


def changes(policy: Policy, n: int, generator: torch.Generator) -> Tensor:
    """(n, 20) float32 on the CPU: what happens to each of n images, drawn at random; for `changed`."""
    draws = torch.rand(n, _DRAWS, generator=generator)
    with torch.autocast("cpu", enabled=False):  # bfloat16 would move pixels by a tenth of their width
        parts = [_maps(policy, draws[:, :8]), colors(policy, draws[:, 8:14]), _cuts(policy, draws[:, 14:18])]
    return torch.cat(parts, dim=1)


def changed(images: Tensor, drawn: Tensor, policy: Policy, *, side: int | None = None) -> Tensor:
    """(B, 3, S, S) uint8 -> (B, 3, side, side) float32 in [0, 1], channels last. drawn: (B, 20), `changes` of the same
    policy, where the images are. side: S by default."""
    with torch.autocast(images.device.type, enabled=False):
        x = _moved(images.float().div_(255), drawn[:, _MAP], side or images.shape[-1])
        if policy.colors:
            x = colored(x, drawn[:, _COLORS])
        if policy.cut:
            x = _cut(x, drawn[:, _RECTANGLE])
        return x.contiguous(memory_format=torch.channels_last)


def plain(images: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 -> float32 in [0, 1], channels last, not altered."""
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


def _around(draws: Tensor, reach: float) -> Tensor:
    """[0, 1) -> [-reach, reach)."""
    return (2 * draws - 1) * reach


def _maps(policy: Policy, u: Tensor) -> Tensor:
    """(n, 6): turn, scale, stretch, shear, shift and mirror as one affine map an image."""
    angle = _around(u[:, 0], math.radians(policy.turn))
    low, high = policy.scale
    size = low + (high - low) * u[:, 1]
    stretch = torch.exp(_around(u[:, 2], math.log1p(policy.stretch)))
    shear = _around(u[:, 3], policy.shear)
    # A part of the image may lie anywhere inside it, and `shift` beyond.
    free = (1 - size).clamp(min=0)
    dx = _around(u[:, 4], 1.0) * (free + 2 * policy.shift)
    dy = _around(u[:, 5], 1.0) * (free + 2 * policy.shift)
    mirror_x = 1 - 2 * (u[:, 6] < 0.5).float() if policy.flip_horizontal else torch.ones_like(dx)
    mirror_y = 1 - 2 * (u[:, 7] < 0.5).float() if policy.flip_vertical else torch.ones_like(dx)
    cos, sin = angle.cos(), angle.sin()
    wide, tall = size * stretch.sqrt(), size / stretch.sqrt()
    first = [cos * wide * mirror_x, (shear * cos - sin) * tall * mirror_y, dx]
    second = [sin * wide * mirror_x, (shear * sin + cos) * tall * mirror_y, dy]
    return torch.stack([*first, *second], dim=1)


def _moved(x: Tensor, maps: Tensor, side: int) -> Tensor:
    """Sampled once; mirrored beyond the border."""
    grid = F.affine_grid(maps.reshape(-1, 2, 3), [len(x), 3, side, side], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


_LUMA: Final = (0.299, 0.587, 0.114)


def colors(policy: Policy, u: Tensor) -> Tensor:
    """(n, 10): light, contrast, saturation, hue and grey as one matrix (3, 3) an image, and how much of its mean light
    is added. u: (n, 6) in [0, 1)."""
    light = 1 + _around(u[:, 0], policy.light)
    contrast = 1 + _around(u[:, 1], policy.contrast)
    color = 1 + _around(u[:, 2], policy.color)
    color = torch.where(u[:, 3] < policy.grey, torch.zeros_like(color), color)
    luma = torch.tensor(_LUMA).expand(3, 3)  # every row gives the luma
    saturate = color[:, None, None] * torch.eye(3) + (1 - color)[:, None, None] * luma
    matrix = (light * contrast)[:, None, None] * (saturate @ _hue(_around(u[:, 4], math.radians(policy.hue))))
    return torch.cat([matrix.flatten(1), (light * (1 - contrast))[:, None]], dim=1)


def colored(x: Tensor, of_colors: Tensor) -> Tensor:
    """(B, 3, h, w) float32 in [0, 1] -> the same in other light and colors. of_colors: (B, 10), as `colors`."""
    light = sum(share * x[:, at].mean(dim=(1, 2)) for at, share in enumerate(_LUMA))
    offset = (of_colors[:, 9] * light)[:, None, None]
    return torch.baddbmm(offset, of_colors[:, :9].reshape(-1, 3, 3), x.flatten(2)).view_as(x).clamp_(0, 1)


def _hue(angle: Tensor) -> Tensor:
    """(B,) radians -> (B, 3, 3): a rotation of colors about the grey axis (Rodrigues)."""
    axis = 1 / math.sqrt(3)
    cross = torch.tensor([[0.0, -axis, axis], [axis, 0.0, -axis], [-axis, axis, 0.0]])
    outer = torch.full((3, 3), 1 / 3)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cos * torch.eye(3) + (1 - cos) * outer + sin * cross


def _cuts(policy: Policy, u: Tensor) -> Tensor:
    """(n, 4): middle and half sides of a rectangle, x and y."""
    return torch.cat([u[:, :2], u[:, 2:] * policy.cut / 2], dim=1)


def _cut(x: Tensor, rectangles: Tensor) -> Tensor:
    """A rectangle of each image becomes its mean color."""
    side = x.shape[-1]
    place = (torch.arange(side, device=x.device) + 0.5) / side
    inside = (place - rectangles[:, :2, None]).abs() < rectangles[:, 2:, None]  # (B, x and y, side)
    within = inside[:, 1, None, :, None] & inside[:, 0, None, None, :]
    return torch.where(within, x.mean(dim=(2, 3), keepdim=True), x)
