"""Images altered at random together with their boxes: what a detector learns from.

In: images (B, 3, H, W) uint8 with their `Drawn` boxes. Out: images (B, 3, h, w) float32 in [0, 1] and the boxes where
they are now. One map an image, without turning: boxes stay boxes. What is left of a box that is cut off counts as an
object from a third of it on; less is neither an object nor none. Everything random comes from the generator given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.detect.losses import Drawn
from engine.label.augment import Policy, colored, colors

#: A box of which less is left is left out of account.
_LEAST_LEFT: Final = 1 / 3
#: What lies around an image.
_GREY: Final = 0.5


@dataclass(frozen=True, slots=True)
class View:
    """How images are altered. scale: from and to, of sizes of what is shown. stretch: of the aspect ratio, factor up to
    1 + stretch. color: light, contrast, color and hue as in `Policy`. flips: (horizontal, vertical), whether half of
    the images are mirrored. transposed: whether in half of them rows become columns."""

    scale: tuple[float, float] = (1.0, 1.0)
    stretch: float = 0.0
    color: Policy = field(default_factory=Policy)
    flips: tuple[bool, bool] = (False, False)
    transposed: bool = False


#: For learning from labels.
LEARNING: Final = View((0.7, 1.5), 0.2, Policy(light=0.3, contrast=0.3, color=0.4, hue=12))
#: For a student who has to agree with its teacher.
STRONG: Final = View((0.7, 1.5), 0.2, Policy(light=0.4, contrast=0.4, color=0.6, hue=20, grey=0.1))


@dataclass(frozen=True, slots=True)
class Placing:
    """Where what is shown of B images lies in them. size: (height, width) of what is shown, in pixels. scale, offset:
    (B, 2), x and y: pixel p of what is shown lies at (p + offset) / scale of the image; mirror: (B, 2), -1 where it is
    mirrored; turned: (B,) bool, where then rows become columns."""

    size: tuple[int, int]
    scale: Tensor
    offset: Tensor
    mirror: Tensor
    turned: Tensor

    @property
    def reach(self) -> Tensor:
        """(B, 2) width and height of what is shown, before rows become columns."""
        height, width = self.size
        lying = torch.tensor([width, height], device=self.scale.device)
        return torch.where(self.turned[:, None], lying.flip(0), lying).float()

    def shown(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, 3, *size) float32 in [0, 1]; grey beyond the image."""
        b, _, height, width = images.shape
        sides = torch.tensor([width, height], device=images.device)
        slope = self.mirror * self.reach / (self.scale * sides)
        at = (2 * self.offset + self.reach) / (self.scale * sides) - 1
        theta = torch.zeros(b, 2, 3, device=images.device)
        upright = ~self.turned
        theta[:, 0, 0], theta[:, 1, 1] = slope[:, 0] * upright, slope[:, 1] * upright
        theta[:, 0, 1], theta[:, 1, 0] = slope[:, 0] * self.turned, slope[:, 1] * self.turned
        theta[:, :, 2] = at
        with torch.autocast(images.device.type, enabled=False):  # a step of bfloat16 is a pixel wide at the border
            grid = F.affine_grid(theta, [b, 3, *self.size], align_corners=False)
        x = images.float().div_(255) - _GREY
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + _GREY

    def moved(self, drawn: Drawn) -> Drawn:
        """Boxes where they are now: what is left of them inside what is shown."""
        corners = drawn.xyxy.reshape(*drawn.classes.shape, 2, 2)  # (B, M, 2 corners, 2)
        corners = corners * self.scale[:, None, None] - self.offset[:, None, None]
        corners = torch.where(self.mirror[:, None, None] < 0, self.reach[:, None, None] - corners, corners)
        corners = torch.where(self.turned[:, None, None, None], corners.flip(-1), corners)
        boxes = torch.cat([corners.amin(dim=2), corners.amax(dim=2)], dim=-1)
        height, width = self.size
        most = torch.tensor([width, height, width, height], device=boxes.device)
        inside = torch.minimum(boxes.clamp(min=0), most)
        area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
        left = (inside[..., 2:] - inside[..., :2]).clamp(min=0).prod(dim=-1)
        classes = torch.where(left > 0, drawn.classes, -1)
        share = left / area.clamp(min=1e-6)
        return Drawn(inside, classes, torch.where(share >= _LEAST_LEFT, drawn.weights, 0.0))


#: Random numbers that placing an image takes, and coloring it.
_FOR_PLACE: Final = 7
_FOR_COLOR: Final = 6


def viewed(
    images: Tensor, drawn: Drawn, view: View, size: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, Drawn]:
    """size: (height, width) of what is shown, in pixels. generator: of the CPU."""
    placing = placed(images, view, size, generator)
    return recolored(placing.shown(images), view, generator), placing.moved(drawn)


def placed(images: Tensor, view: View, size: tuple[int, int], generator: torch.Generator) -> Placing:
    """A random place in each image; a smaller image may lie anywhere inside what is shown."""
    b, _, height, width = images.shape
    u = torch.rand(b, _FOR_PLACE, generator=generator).to(images.device)
    low, high = (math.log(each) for each in view.scale)
    scale = torch.exp(low + (high - low) * u[:, :1])
    stretch = torch.exp((2 * u[:, 1:2] - 1) * math.log1p(view.stretch) / 2)
    scales = torch.cat([scale * stretch, scale / stretch], dim=1)
    may = torch.tensor(view.flips, device=images.device)
    mirror = torch.where((u[:, 4:6] < 0.5) & may, -1.0, 1.0)
    turned = (u[:, 6] < 0.5) & view.transposed
    still = Placing(size, scales, torch.zeros_like(scales), mirror, turned)
    room = scales * torch.tensor([width, height], device=images.device) - still.reach
    return replace(still, offset=u[:, 2:4] * room)


def recolored(x: Tensor, view: View, generator: torch.Generator) -> Tensor:
    """(B, 3, h, w) float32 in [0, 1] -> the same in other light and colors, channels last."""
    u = torch.rand(len(x), _FOR_COLOR, generator=generator)
    with torch.autocast(x.device.type, enabled=False):
        x = colored(x, colors(view.color, u).to(x.device)) if view.color.colors else x
        return x.contiguous(memory_format=torch.channels_last)


#: Rectangles that cover an image, and their sides as shares of its, from and to.
_COVERS: Final = 3
_COVER: Final = (0.05, 0.25)


def covered(x: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, h, w) in [0, 1] -> the same with some rectangles of each image grey (DeVries and Taylor 2017)."""
    b, _, height, width = x.shape
    u = torch.rand(b, _COVERS, 4, generator=generator).to(x.device)
    low, high = _COVER
    half = (low + (high - low) * u[..., 2:]) / 2
    xs, ys = ((torch.arange(side, device=x.device) + 0.5) / side for side in (width, height))
    in_x = (xs - u[..., :1]).abs() < half[..., :1]  # (B, covers, w)
    in_y = (ys - u[..., 1:2]).abs() < half[..., 1:]
    under = (in_y[..., :, None] & in_x[..., None, :]).any(dim=1, keepdim=True)
    return x.masked_fill(under, _GREY).contiguous(memory_format=torch.channels_last)
