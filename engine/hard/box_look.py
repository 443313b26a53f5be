"""How the networks of a detector see boxes, and whether altered images change their minds (reasons 19-29).

In: images with boxes on them, file by file, and a `BoxDetector`. Out: a vector of each box by each network; how much
each box changes when its image is altered, by operator: boxes found on the altered image are mapped back and held
against it; and what is seen on altered images where there is no box. Of a detector that is none of ours, whose inside
nobody sees, `box_changes` tells the changes alone. Knows nothing of labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.detect.decode import Raw, decoded, probable
from engine.detect.detector import BoxDetector
from engine.detect.network import CELL, Detector, Maps
from engine.detect.overlaps import box_iou, roi_align
from engine.errors import ImageError, InputError, Stopped
from engine.hard.operators import OPERATORS as ALTERATIONS
from engine.hard.operators import PLACES
from engine.hard.reasons import OPERATORS
from engine.images import Pixels, decode_at, stream
from engine.predictions import Predictor

#: A box that is found on an altered image is the same from this overlap on; one that overlaps none so much is new.
_SAME: Final = 0.3
#: Cells that the inside of a box is looked at in, a side.
_INSIDE: Final = 3


@dataclass(frozen=True, slots=True)
class Looked:
    """path: of an image. xyxy: (m, 4), boxes in its pixels. classes, scores: (m,), calibrated confidences, NaN where
    there is none. judge: the number of the network that is asked about altered images; -1: the first."""

    path: Path
    xyxy: Tensor
    classes: Tensor
    scores: Tensor
    judge: int


class Detecting(Predictor, Protocol):
    """A detector, whoever made it."""

    @property
    def side(self) -> int:
        """The longer side, in pixels, of what it sees of an image."""
        ...


@dataclass(frozen=True, slots=True)
class BoxSights:
    """Of m boxes, image after image, and of n images. of_boxes: (v, m, d) of length 1, by each of v networks. altered:
    by reason (m,) in [0, 1], how much a box changes; NaN where its place is not on the altered image. of_images: (n,
    d). unseen: (n,) in [0, 1], the confidence in a box that there is none of, seen on altered images, on the mean.
    Rows of NaN where an image cannot be read any more."""

    of_boxes: Tensor
    altered: dict[int, Tensor]
    of_images: Tensor
    unseen: Tensor


def box_sights(
    images: Sequence[Looked],
    detector: BoxDetector,
    operators: Sequence[str],
    *,
    threads: int,
    max_pixels: int,
    progress: Callable[[int], None] = lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> BoxSights:
    """operators: names of alterations to try. Raises Stopped once `stopped()` says so."""
    look = _Look(images, detector, tuple(operators))

    def work(at: int, content: bytes) -> tuple[Pixels, float]:
        pixels, picture = detector.canvas.of(content, max_pixels)
        return pixels, detector.canvas.scale(picture.width, picture.height)

    waiting: list[tuple[int, Pixels, float]] = []
    done = 0
    for batch in stream([each.path for each in images], work, threads=threads, stopped=stopped):
        for found in batch:
            if not isinstance(found, ImageError):
                waiting.append((done, *found))
            done += 1
            if len(waiting) == detector.canvas.batch:
                look.at(waiting)
                waiting.clear()
                progress(done)
    if done < len(images):
        raise Stopped(f"stopped after {done:,} of {len(images):,} images")
    look.at(waiting)
    progress(done)
    return look.sights()


class _Look:
    """The sights while they fill."""

    def __init__(self, images: Sequence[Looked], detector: BoxDetector, operators: tuple[str, ...]) -> None:
        self._images, self._detector, self._operators = images, detector, operators
        self._first = np.concatenate([[0], np.cumsum([len(each.xyxy) for each in images])]).astype(np.int64)
        m, n, d = int(self._first[-1]), len(images), 2 * detector.networks[0].spec.neck
        self._of_boxes = torch.full((len(detector.networks), m, d), torch.nan)
        self._of_images = torch.full((n, detector.networks[0].spec.neck), torch.nan)
        self._changes = {OPERATORS[name]: torch.full((m,), torch.nan) for name in operators}
        self._unseen = torch.full((n,), torch.nan)

    def sights(self) -> BoxSights:
        return BoxSights(self._of_boxes, self._changes, self._of_images, self._unseen)

    def at(self, waiting: Sequence[tuple[int, Pixels, float]]) -> None:
        """Look at these: number, canvas, and its pixels for one of the image."""
        if not waiting:
            return
        device = next(self._detector.networks[0].parameters()).device
        pixels = torch.from_numpy(np.stack([each for _, each, _ in waiting])).permute(0, 3, 1, 2).to(device)
        x = (pixels.float() / 255).contiguous(memory_format=torch.channels_last)
        boxes = [self._images[number].xyxy.float() * scale for number, _, scale in waiting]
        places = [slice(self._first[number], self._first[number + 1]) for number, _, _ in waiting]
        for at, network in enumerate(self._detector.networks):
            fine, classy, maps = self._seen(network, x)
            vectors = _inside(fine, classy, [each.to(device) for each in boxes]).cpu()
            for place, part in zip(places, torch.split(vectors, [len(each) for each in boxes]), strict=True):
                self._of_boxes[at, place] = part
            if at == 0:
                self._of_images[[number for number, _, _ in waiting]] = F.normalize(fine.mean(dim=(2, 3)), dim=1).cpu()
            mine = [each for each, (number, _, _) in enumerate(waiting) if max(0, self._images[number].judge) == at]
            if mine and self._operators:
                whose = [(waiting[each][0], boxes[each], places[each]) for each in mine]
                before = Maps(maps.centers[mine], maps.edges[mine], maps.fits[mine])
                self._alter(network, x[mine], self._alone(before, whose), whose)

    def _seen(self, network: Detector, x: Tensor) -> tuple[Tensor, Tensor, Maps]:
        """What a network sees of images, what of that tells classes, and what it says, as probabilities."""
        network.eval()
        with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=self._detector.bfloat16):
            fine, classy = network.seen(x.contiguous(memory_format=torch.channels_last))
            maps = probable(network.answers(fine, classy))
        return fine.float(), classy.float(), maps

    def _alter(
        self, network: Detector, x: Tensor, before: list[Tensor], whose: Sequence[tuple[int, Tensor, slice]]
    ) -> None:
        """Ask a network about altered images.

        before: how sure it is of the boxes on each image as it is. whose: number of each image, its boxes on the
        canvas, their places.
        """
        new = torch.zeros(len(whose))
        for name in self._operators:
            raws = decoded(self._seen(network, ALTERATIONS[name](x))[2])
            for at, ((number, boxes, place), raw) in enumerate(zip(whose, raws, strict=True)):
                raw = raw.cpu()
                own, sure = self._images[number], self._sure(raw)
                found = back_on(raw.xyxy.float(), raw.classes, sure, name, x.shape[3], x.shape[2])
                change, unseen = changes(boxes, own.classes, before[at], *found)
                change[~still_there(boxes, name, x.shape[3], x.shape[2])] = torch.nan
                self._changes[OPERATORS[name]][place] = change
                new[at] += unseen / len(self._operators)
        self._unseen[[number for number, _, _ in whose]] = new

    def _alone(self, maps: Maps, whose: Sequence[tuple[int, Tensor, slice]]) -> list[Tensor]:
        """How sure a network by itself is of the boxes on each image as it is, (m,); where it sees none, as sure as the
        box came."""
        found = []
        for (number, boxes, _), raw in zip(whose, decoded(maps), strict=True):
            raw = raw.cpu()
            own = self._images[number]
            found.append(as_sure(boxes, own.classes, own.scores, raw.xyxy, raw.classes, self._sure(raw)))
        return found

    def _sure(self, raw: Raw) -> Tensor:
        return self._detector.calibration.probabilities(raw)


def box_changes(
    images: Sequence[Looked],
    detector: Detecting,
    operators: Sequence[str],
    *,
    names: Sequence[str],
    threads: int,
    max_pixels: int,
    progress: Callable[[int], None] = lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[int, Tensor]:
    """By reason (m,) in [0, 1], how much each of the m boxes changes for any detector; NaN where its place is not on
    the altered image, the image cannot be read, or the detector fails on it.

    names: of the classes of `images`. Raises InputError where the detector fails on all of several images: it is not
    the images; Stopped once `stopped()` says so.
    """
    first = np.concatenate([[0], np.cumsum([len(each.xyxy) for each in images])]).astype(np.int64)
    found = {OPERATORS[name]: torch.full((int(first[-1]),), torch.nan) for name in operators}

    def work(at: int, content: bytes) -> tuple[Pixels, float]:
        picture = decode_at(content, lambda *size: detector.side / max(size), max_pixels=max_pixels)
        pixels = _shrunk(picture.rgb, detector.side)
        return pixels, pixels.shape[1] / picture.width

    numbers = torch.tensor([names.index(label) if label in names else -1 for label in detector.labels])
    asked, failed = 0, list[InputError]()
    done = 0
    for batch in stream([each.path for each in images], work, threads=threads, stopped=stopped):
        for each in batch:
            if not isinstance(each, ImageError):
                pixels, scale = each
                x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
                asked += 1
                try:
                    changed = _changed(images[done], detector, operators, numbers, x, scale)
                except InputError as error:  # of a model from elsewhere
                    changed = {}
                    failed.append(error)
                for reason, change in changed.items():
                    found[reason][first[done] : first[done + 1]] = change
            done += 1
            progress(done)
    if done < len(images):
        raise Stopped(f"stopped after {done:,} of {len(images):,} images")
    if len(failed) == asked > 1:
        raise failed[0]
    return found


def _shrunk(rgb: Pixels, side: int) -> Pixels:
    """(h, w, 3) with its longer side no longer than that."""
    scale = side / max(rgb.shape[:2])
    if scale >= 1:
        return rgb
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _changed(
    own: Looked, detector: Detecting, operators: Sequence[str], numbers: Tensor, x: Tensor, scale: float
) -> dict[int, Tensor]:
    """By reason (m,) of the boxes of one image x (1, 3, h, w), which is that much smaller than its file. numbers: of
    the labels of the detector, among the classes of `own`; -1 for none of them."""
    height, width = x.shape[2:]
    said = detector.predict(torch.cat([x, *(ALTERATIONS[name](x) for name in operators)])).boxes
    assert said is not None
    plain, *altered = [
        (each.xyxy.cpu().float(), numbers[each.classes.cpu()], each.scores.cpu().float()) for each in said
    ]
    boxes = own.xyxy.float() * scale
    before = as_sure(boxes, own.classes, own.scores, *plain)
    result = {}
    for name, (xyxy, classes, sure) in zip(operators, altered, strict=True):
        change, _ = changes(boxes, own.classes, before, *back_on(xyxy, classes, sure, name, width, height))
        change[~still_there(boxes, name, width, height)] = torch.nan
        result[OPERATORS[name]] = change
    return result


def _inside(fine: Tensor, classy: Tensor, boxes: list[Tensor]) -> Tensor:
    """(m, 2 c) of length 1: the inside of each box on the fine map on the mean, and what tells its class in its
    middle."""
    on_mean = roi_align(fine, boxes, _INSIDE, spatial_scale=1 / CELL, sampling_ratio=2).mean(dim=(2, 3))
    middle = roi_align(classy, boxes, _INSIDE, spatial_scale=1 / CELL, sampling_ratio=2)[:, :, 1, 1]
    vectors: Tensor = torch.cat([F.normalize(on_mean, dim=1), F.normalize(middle, dim=1)], dim=1)
    return F.normalize(vectors)


def mapped_back(xyxy: Tensor, operator: str, width: int, height: int) -> Tensor:
    """Boxes (m, 4) of an altered image of this size -> where they lie on the image; upright boxes around their middles
    where the operator slants."""
    if operator not in PLACES:
        return xyxy
    half = torch.tensor([width / 2, height / 2])
    (a, b, c), (d, e, f) = PLACES[operator]
    middle = ((xyxy[:, :2] + xyxy[:, 2:]) / 2 - half) / half
    size = (xyxy[:, 2:] - xyxy[:, :2]) * torch.tensor([abs(a), abs(e)])
    x = a * middle[:, 0] + b * middle[:, 1] + c
    y = d * middle[:, 0] + e * middle[:, 1] + f
    back = torch.stack([x, y], dim=1) * half + half
    return torch.cat([back - size / 2, back + size / 2], dim=1)


def back_on(
    xyxy: Tensor, classes: Tensor, sure: Tensor, operator: str, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What was found on an altered image, `mapped_back`; not what lies beyond the image, where it is shown mirrored."""
    back = mapped_back(xyxy, operator, width, height)
    middle = (back[:, :2] + back[:, 2:]) / 2
    there = ((middle >= 0) & (middle <= torch.tensor([width, height]))).all(dim=1)
    return back[there], classes[there], sure[there]


def still_there(xyxy: Tensor, operator: str, width: int, height: int) -> Tensor:
    """(m,) bool, boxes of an image that the altered one shows the whole of."""
    if operator not in PLACES:
        return torch.ones(len(xyxy), dtype=torch.bool)
    half = torch.tensor([width / 2, height / 2])
    (a, b, c), (d, e, f) = PLACES[operator]
    forward = torch.linalg.inv(torch.tensor([[a, b], [d, e]]))
    corners = (xyxy.reshape(-1, 2, 2) - half) / half - torch.tensor([c, f])
    seen: Tensor = corners @ forward.T
    return (seen.abs() <= 1 + 1e-3).all(dim=2).all(dim=1)


def as_sure(xyxy: Tensor, classes: Tensor, scores: Tensor, found: Tensor, of: Tensor, sure: Tensor) -> Tensor:
    """(m,) the confidence of the box of its class that was found in the place of each; where there is none its own
    score."""
    if not len(found) or not len(xyxy):
        return scores
    same = (box_iou(xyxy.float(), found.float()) >= _SAME) & (classes[:, None] == of[None])
    surest = torch.where(same, sure[None], -1.0).amax(dim=1)
    return torch.where(surest >= 0, surest, scores)


def changes(
    xyxy: Tensor, classes: Tensor, scores: Tensor, found: Tensor, of: Tensor, sure: Tensor
) -> tuple[Tensor, float]:
    """How much each box changes, (m,) in [0, 1]: 0 where one of its class is found in its place as sure, 1 where none
    is; and the confidence in the surest one found where there is no box.

    scores: NaN counts as sure. Of the boxes found in its place the one counts with the largest overlap (IoU) times its
    confidence as a share of that of the box.
    """
    if not len(found):
        return torch.ones(len(xyxy)), 0.0
    if not len(xyxy):
        return torch.zeros(0), float(sure.max())
    overlap = box_iou(xyxy, found)
    new = overlap.amax(dim=0) < _SAME
    share = (sure[None] / scores.nan_to_num(1.0).clamp(min=1e-3)[:, None]).clamp(max=1)
    agreed = torch.where((overlap >= _SAME) & (classes[:, None] == of[None]), overlap * share, 0.0)
    return 1 - agreed.amax(dim=1), float(sure[new].max()) if bool(new.any()) else 0.0
