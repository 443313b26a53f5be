"""Auto labeling of boxes against detectors from torchvision: the same labeled images, the same time, from scratch.

    python benchmarks/detection.py DATA [--labeled 30,60,120] [--seeds 3] [--minutes 8] [--minutes-accurate 15]
        [--contenders fast,accurate,fast-long,self-training,ceiling,fasterrcnn,ssdlite,retinanet,fcos] [--speed]
        [--hard] [--planted 0.1] [--device cpu] [--keep FOLDER]

DATA: any data set of boxes that are all labeled; those of all but --labeled images, drawn at random, are hidden, and
what is found on these is compared with them: mean average precision as COCO counts it (pycocotools), at IoU 0.5 and
over 0.5..0.95. `fast-long`: `fast` in the minutes of `accurate`. `self-training`: `fast`, then `fast` again in the rest
of those minutes with its own boxes as labels. `ceiling`: `fast` with 304 labeled images, tested on the other 60.

Peers: torchvision's fasterrcnn_mobilenet_v3_large_320_fpn, ssdlite320_mobilenet_v3_large, and RetinaNet and FCOS on a
resnet18 FPN, without weights, BatchNorm trained, anchors of the sizes of the boxes, flips, scale and colour jitter,
AdamW with a one-cycle schedule over the steps that the time allows, bfloat16 in training.

Recorded on 2 cores without AMX; classes in the order Platelets, RBC, WBC; --hard where its rows follow. One network
that had seen all 60 images made 0.891 and 0.594 with 1,300 steps.

    labeled  seed  contender        mAP50  mAP50:95  seconds  a class at 0.5
         30     0  fast            0.8886    0.5676      472  0.866 0.817 0.983  steps 527+465+116, other work beside
         30     0  fast-long       0.8875    0.5889      879  0.859 0.818 0.986  steps 1636+1689+1539
         30     0  self-training   0.8755    0.5751      910  0.864 0.777 0.986  steps 947+944+885
         30     0  accurate        0.8861    0.5908     1059  0.852 0.820 0.987  steps 809+294+847+309+856+310 (tests
            ran beside, which took time beyond the 15 minutes)
                   this box: ours              auroc 0.8412
                   this box: 1 - confidence    auroc 0.8093
                   image: ours                 first_fifth 0.7747
                   image: mean                 first_fifth 0.6722
                   image: minimum              first_fifth 0.6620
                   image: entropy              first_fifth 0.8063
                   image: ObjectLab            first_fifth 0.6253
         60     0  fast            0.8882    0.5876      464  0.867 0.815 0.983  steps 600+640, two networks
         60     0  fast            0.8889    0.5835      488  0.868 0.813 0.985  steps 468+427+414, three, before
         60     0  fast            0.8887    0.5760      182  0.880 0.803 0.983  steps 244+223 before (--minutes 3)
         60     1  fast            0.8927    0.5962      446  0.873 0.816 0.990  steps 672+720+827
         60     0  fast-long       0.8871    0.5957      827  0.851 0.827 0.983  steps 1318+1427+1647
         60     0  self-training   0.8714    0.5771      885  0.859 0.772 0.983  steps 764+763+782
         60     0  accurate        0.8897    0.5898      880  0.875 0.810 0.984  steps 714+260+752+278+816+316
                   this box: ours              auroc 0.8206
                   this box: 1 - confidence    auroc 0.7840
                   image: ours                 auroc 0.9139  first_fifth 0.7978
                   image: mean                 auroc 0.8046  first_fifth 0.7107
                   image: minimum              auroc 0.4553  first_fifth 0.6278
                   image: entropy              auroc 0.7450  first_fifth 0.7008
                   image: ObjectLab            auroc 0.7020  first_fifth 0.6348
         60     0  accurate        0.8964    0.5913      900  0.886 0.818 0.985  steps 629+222+599+225, two, before
         60     1  accurate        0.8921    0.5961      885  0.868 0.816 0.993  steps 730+249+741+262+744+278
        120     0  fast            0.8937    0.5986      472  0.868 0.829 0.984  steps 785+799+815
                   this box: ours              auroc 0.8341
                   this box: 1 - confidence    auroc 0.7976
                   image: ours                 auroc 0.9587  first_fifth 0.7554
                   image: mean                 auroc 0.8988  first_fifth 0.6781
                   image: minimum              auroc 0.6219  first_fifth 0.6511
                   image: entropy              auroc 0.8843  first_fifth 0.6888
                   image: ObjectLab            auroc 0.7955  first_fifth 0.5396
        120     0  accurate        0.9000    0.5979      891  0.885 0.831 0.984  steps 772+275+781+277+790+292
                   this box: ours              auroc 0.8276
                   this box: 1 - confidence    auroc 0.7887
                   image: ours                 auroc 0.9711  first_fifth 0.7692
                   image: mean                 auroc 0.8740  first_fifth 0.6435
                   image: minimum              auroc 0.7355  first_fifth 0.5910
                   image: entropy              auroc 0.8678  first_fifth 0.6811
                   image: ObjectLab            auroc 0.7355  first_fifth 0.6079
        304     0  ceiling         0.9074    0.6315      872  0.877 0.845 1.000  steps 1397+1453+1535

So `accurate` finds as much as `fast` in the same time, and no more: the boxes of people differ by more than what is
left to learn. (Three of 304 images have no error, so the area under the curve of images means little.)

On a GPU:
         60     0  accurate        0.8931    0.5942      419  0.871 0.825 0.983  --device cuda --minutes-accurate 7 on a
            fifth of an H100 (four other tasks on it), steps 2444+156+505+135+640+50
         60     0  fast            0.8906    0.5914       57  0.869 0.820 0.983  steps 764+558 on an H100,
            --device cuda --minutes 1

With AMX:
         60     0  fast            0.8925    0.5888      459  0.880 0.814 0.983  steps 891+468
                   this box: ours              auroc 0.7987
                   this box: 1 - confidence    auroc 0.7797
                   image: ours                 first_fifth 0.7466
                   image: mean                 first_fifth 0.6212
                   image: minimum              first_fifth 0.6708
                   image: entropy              first_fifth 0.7452
                   image: ObjectLab            first_fifth 0.5978

    --contenders ssdlite,fasterrcnn, and retinanet,fcos
         60     0  ssdlite         0.8552    0.4882      427  0.814 0.773 0.978  723 steps of 8
         60     0  fasterrcnn      0.5484    0.2942      464  0.000 0.668 0.977  234 steps of 8
         60     0  fcos            0.8184    0.4771      506  0.644 0.833 0.978  524 steps of 8
         60     0  retinanet       0.0360    0.0081      466  0.001 0.082 0.026  465 steps of 8 (0 without a norm)

    --contenders "" --speed
                                  images/s   training images/s
    ours, as labeling asks it         69.2
    ours, one network                148.2                82.5
    fasterrcnn                        15.9                 6.0
    ssdlite                           32.1                18.6
    retinanet                         12.5                 8.9
    fcos                              11.8                 9.0

    --contenders "" --seeds 1 --planted 0.1
    10% of the boxes of 364 images spoiled; average precision of ours, of ObjectLab
        any        278 images   0.9465   0.8006
        dropped     44 images   0.3886   0.4069
        added       34 images   0.6857   0.3772
        shifted     40 images   0.7365   0.3457
        renamed     43 images   0.8113   0.4223

--speed: images a second at 640x480 and steps a second. --hard: how well the coefficients find what is wrong, beside
cleanlab's ObjectLab. --planted: errors in so many of the boxes that people drew, and who finds them.
"""

from __future__ import annotations

import argparse
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torchvision
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torchvision.models.detection import FCOS, RetinaNet, fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large as ssdlite320
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from engine.dataset import Dataset, read_samples
from engine.detect.average_precision import BoxScores, Found, box_scores
from engine.detect.canvases import Canvas, read_canvases
from engine.detect.detecting import OnImage, auto_detect, found_boxes
from engine.detect.judging import matched
from engine.detect.plan import BATCH
from engine.detect.pool import padded
from engine.detect.results import Detection, annotated
from engine.detect.sketches import Sketches, sketches_of
from engine.detect.views import LEARNING, viewed
from engine.hard.box_errors import box_label_errors
from engine.hard.detected import hard_detections
from engine.label.training import Deck, generator_of
from engine.predictions import Boxes

CANVAS = Canvas(240, 320)
_PEER_BATCH = 8


@dataclass(frozen=True)
class Problem:
    """A data set with hidden boxes. hidden: as it is given to learn from. truth: of all. labeled, rest: rows."""

    hidden: Dataset
    truth: Sketches
    labeled: list[int]
    rest: list[int]
    seed: int
    device: torch.device

    def wanted(self) -> list[Found]:
        return [_found(self.truth.boxes[row], self.truth.classes[row]) for row in self.rest]

    def score(self, found: list[Found]) -> BoxScores:
        return box_scores(found, self.wanted(), len(self.truth.labels))


def _found(boxes: np.ndarray, classes: np.ndarray, scores: np.ndarray | None = None) -> Found:
    return Found(boxes, classes, np.ones(len(classes)) if scores is None else scores)


def problem_of(dataset: Dataset, labeled: int, seed: int, device: torch.device) -> Problem:
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
    kept = set(order[:labeled])
    hidden = dataset.with_samples(
        sample if row in kept else replace(sample, labels=()) for row, sample in enumerate(dataset)
    )
    rest = sorted(order[labeled:])
    return Problem(hidden, sketches_of(dataset.samples), sorted(kept), rest, seed, device)


# ---- Ours. ----


def ours(problem: Problem, algorithm_type: str, minutes: float) -> Detection:
    return auto_detect(problem.hidden, algorithm_type, minutes=minutes, seed=problem.seed, device=problem.device)


def found_of(detection: Detection, rows: list[int]) -> list[Found]:
    found = []
    for row in rows:
        boxes = detection.candidates[row]
        assert boxes is not None
        found.append(Found(boxes.xyxy.numpy(), boxes.classes.numpy(), boxes.scores.numpy()))
    return found


def self_training(problem: Problem, minutes: float, first: float) -> Detection:
    """`fast`, then `fast` again on everything, with its own boxes as a person's."""
    before = ours(problem, "fast", first)
    samples = annotated(problem.hidden.samples, before, time=datetime.now())
    believed = [
        replace(sample, labels=tuple(replace(label, annotated_by=None) for label in sample.labels))
        for sample in samples
    ]
    again = auto_detect(
        problem.hidden.with_samples(believed),
        "fast",
        minutes=minutes - first,
        least_unlabeled=0,
        seed=problem.seed,
        device=problem.device,
    )
    # Every image is labeled now; what the networks together say of the rest is asked for.
    candidates = list(before.candidates)
    asked = found_boxes(
        problem.hidden, problem.hidden.sources, problem.rest, again.detector, threads=2, device=problem.device
    )
    for row, each in asked:
        assert isinstance(each, OnImage)
        candidates[row] = each.boxes
    return replace(before, candidates=tuple(candidates))


# ---- Peers. ----


def _sizes(problem: Problem, scale: float) -> list[float]:
    """Five sides of anchors: quantiles of those of the boxes that are labeled, in pixels of the input."""
    boxes = np.concatenate([problem.truth.boxes[row] for row in problem.labeled])
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)) * scale
    return [float(each) for each in np.quantile(sides, (0.02, 0.1, 0.5, 0.9, 0.98))]


def faster_rcnn(problem: Problem, outputs: int) -> torch.nn.Module:
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=outputs,
        trainable_backbone_layers=6,
        min_size=320,
        max_size=427,
        rpn_pre_nms_top_n_train=500,
        rpn_post_nms_top_n_train=300,
        box_batch_size_per_image=128,
    )
    sizes = (tuple(_sizes(problem, 2 / 3)),) * 3
    model.rpn.anchor_generator = AnchorGenerator(sizes, ((0.7, 1.0, 1.4),) * 3)
    return model


def ssdlite(problem: Problem, outputs: int) -> torch.nn.Module:
    model = ssdlite320(weights=None, weights_backbone=None, num_classes=outputs, trainable_backbone_layers=6)
    model.anchor_generator = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.06, max_ratio=0.6)
    return model


def _resnet18(levels: LastLevelP6P7) -> torch.nn.Module:
    return resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=torch.nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=levels,
    )


def retina_net(problem: Problem, outputs: int) -> torch.nn.Module:
    small, *_, large = _sizes(problem, 1 / 2)
    sides = np.geomspace(small, large, 5)
    sizes = tuple((float(side), float(side * 2 ** (1 / 3)), float(side * 2 ** (2 / 3))) for side in sides)
    anchors = AnchorGenerator(sizes, ((0.7, 1.0, 1.4),) * 5)
    backbone = _resnet18(LastLevelP6P7(256, 256))
    # As in torchvision's second version: without a norm in its head it finds nothing at all in so few steps.
    count = anchors.num_anchors_per_location()[0]
    head = RetinaNetHead(backbone.out_channels, count, outputs, norm_layer=partial(torch.nn.GroupNorm, 32))
    head.regression_head._loss_type = "giou"
    return RetinaNet(backbone, outputs, anchor_generator=anchors, head=head, min_size=240, max_size=320)


def fcos_net(problem: Problem, outputs: int) -> torch.nn.Module:
    return FCOS(_resnet18(LastLevelP6P7(256, 256)), outputs, min_size=240, max_size=320)


PEERS: dict[str, Callable[[Problem, int], torch.nn.Module]] = {
    "fasterrcnn": faster_rcnn,
    "ssdlite": ssdlite,
    "retinanet": retina_net,
    "fcos": fcos_net,
}


class Peer:
    """A torchvision detector in training: steps on batches of the labeled images, at twice the size of our canvas for
    it to scale as it likes."""

    def __init__(self, name: str, problem: Problem, folder: Path) -> None:
        self.problem, k = problem, len(problem.truth.labels)
        torch.manual_seed(problem.seed)
        self.model = PEERS[name](problem, k + 1).to(problem.device)
        rows = problem.labeled
        self.canvases = read_canvases(
            problem.hidden,
            problem.hidden.sources,
            [*rows, *problem.rest],
            Canvas(480, 640),
            folder=folder,
            threads=2,
            max_pixels=10**9,
        )
        self.deck = Deck(len(rows), _PEER_BATCH, problem.seed, "peer")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.05)
        self.scale = self.canvases.scales

    def step(self, number: int) -> Tensor:
        at = self.deck.deal(number)
        rows = [self.problem.labeled[each] for each in at.tolist()]
        boxes = [
            torch.from_numpy(self.problem.truth.boxes[row]) * float(self.scale[i])
            for i, row in zip(at, rows, strict=True)
        ]
        drawn = padded(boxes, [torch.from_numpy(self.problem.truth.classes[row]) for row in rows])
        view = replace(LEARNING, flips=(True, True))
        images, drawn = viewed(
            self.canvases.rows(at), drawn, view, (448, 608), generator_of(self.problem.seed, "peer", number)
        )
        targets = []
        for each in range(len(rows)):
            kept = (drawn.classes[each] >= 0) & (drawn.weights[each] > 0)
            kept &= ((drawn.xyxy[each, :, 2:] - drawn.xyxy[each, :, :2]) > 2).all(dim=1)
            targets.append(
                {
                    "boxes": drawn.xyxy[each, kept].to(self.problem.device),
                    "labels": drawn.classes[each, kept].to(self.problem.device) + 1,
                }
            )
        self.model.train()
        with torch.autocast(self.problem.device.type, torch.bfloat16):  # faster here for all of them
            losses = self.model([image.contiguous().to(self.problem.device) for image in images], targets)
            loss = sum(losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        return loss.detach()

    def train(self, seconds: float) -> int:
        """One cycle over the steps that the time allows."""
        began = time.perf_counter()
        for number in range(2):
            self.step(number)
        each = (time.perf_counter() - began) / 2
        steps = max(10, int((seconds - 2 * each) / each))
        schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 2e-3, total_steps=steps + 1, pct_start=0.1)
        done = 0
        while done < steps and time.perf_counter() - began < seconds:
            self.step(done + 2)
            schedule.step()
            done += 1
        return done

    def found(self) -> list[Found]:
        self.model.eval()
        first, answer = len(self.problem.labeled), []
        with torch.no_grad():
            for at in range(first, len(self.canvases)):
                image = self.canvases.rows(torch.tensor([at]))[0].float().div(255).contiguous()
                (said,) = self.model([image.to(self.problem.device)])
                boxes = said["boxes"].cpu().numpy() / self.scale[at]
                answer.append(Found(boxes, said["labels"].cpu().numpy() - 1, said["scores"].cpu().numpy()))
        return answer


# ---- Hard examples. ----


def hard_rows(problem: Problem, detection: Detection) -> dict[str, dict[str, float]]:
    """By what they are ranked with: AUROC of "this box is wrong" and of "an error is on this image", and the share of
    the wrong and missed boxes that an oracle would meet in the first 20 % of the images."""
    from cleanlab.object_detection.rank import get_label_quality_scores

    samples = annotated(problem.hidden.samples, detection, time=datetime.now())
    with TemporaryDirectory() as folder:
        found, _ = hard_detections(
            samples, detection, sources=problem.hidden.sources, folder=Path(folder), threads=2, seed=problem.seed
        )
    wrong, unsure, coefficient = [], [], dict(zip(range(len(found.labels)), found.labels.coefficients, strict=True))
    images: dict[str, list[float]] = {name: [] for name in ("ours", "mean", "minimum", "entropy")}
    errors, boxes_ours, labels, predictions, at = [], [], [], [], 0
    k = len(problem.truth.labels)
    for row in problem.rest:
        boxes = detection.candidates[row]
        assert boxes is not None
        given = detection.given(row)
        sure = boxes.scores[given].double()
        truth = torch.from_numpy(problem.truth.boxes[row]), torch.from_numpy(problem.truth.classes[row])
        match = matched(boxes.xyxy[given].float(), boxes.classes[given], *truth)
        wrong += (~match.right).tolist()
        unsure += (1 - sure).tolist()
        boxes_ours += [coefficient[at + each] for each in range(int(given.sum()))]
        at += int(given.sum())
        errors.append(int((~match.right).sum() + match.missed.sum()))
        images["ours"].append(float(found.coefficients[row]))
        images["mean"].append(float(1 - sure.mean()) if len(sure) else 1.0)
        images["minimum"].append(float(1 - sure.min()) if len(sure) else 1.0)
        entropy = -(sure * sure.log() + (1 - sure) * (1 - sure).clamp(min=1e-9).log())
        images["entropy"].append(float(entropy.sum()))
        labels.append({"bboxes": boxes.xyxy[given].numpy(), "labels": boxes.classes[given].numpy()})
        predictions.append(_by_class(boxes, k))
    images["ObjectLab"] = (1 - get_label_quality_scores(labels, predictions, verbose=False)).tolist()
    rows = {"this box: ours": {"auroc": roc_auc_score(wrong, boxes_ours)}}
    rows["this box: 1 - confidence"] = {"auroc": roc_auc_score(wrong, unsure)}
    count = np.array(errors)
    for name, hard in images.items():
        order = np.argsort(-np.array(hard), kind="stable")
        first = max(1, len(order) // 5)
        best = np.sort(count)[::-1][:first].sum()
        auroc = roc_auc_score(count > 0, hard) if 0 < (count > 0).sum() < len(count) else np.nan
        rows[f"image: {name}"] = {"auroc": float(auroc), "first_fifth": float(count[order[:first]].sum() / best)}
    return rows


# ---- Errors of people. ----

_ERRORS = ("dropped", "added", "shifted", "renamed")


def with_errors(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, list[set[str]]]:
    """The data set with errors in so many of its boxes, of each kind alike, and which kinds each image has."""
    rng = np.random.default_rng(seed)
    names = sorted({shape.name for sample in dataset for shape in sample.boxes})
    samples, kinds = [], []
    for sample in dataset:
        shapes, mine = [], set()
        for shape in sample.boxes:
            kind = _ERRORS[int(rng.integers(len(_ERRORS)))] if rng.random() < share else ""
            (x1, y1, x2, y2), (u, v) = shape.xyxy, rng.uniform(0.25, 0.6, 2) * rng.choice((-1, 1), 2)
            if kind:
                mine.add(kind)
            if kind == "shifted":
                dx, dy = u * (x2 - x1), v * (y2 - y1)
                shape = replace(shape, points=((x1 + dx, y1 + dy), (x2 + dx, y2 + dy)))
            elif kind == "renamed":
                shape = replace(shape, name=str(rng.choice([name for name in names if name != shape.name])))
            elif kind == "added":
                x, y = rng.uniform(0, 640 - (x2 - x1)), rng.uniform(0, 480 - (y2 - y1))
                shapes.append(replace(shape, points=((x, y), (x + x2 - x1, y + y2 - y1))))
            if kind != "dropped":
                shapes.append(shape)
        label = sample.labels[0]
        assert label.drawing is not None
        changed = replace(label, drawing=replace(label.drawing, shapes=tuple(shapes)), annotation_loc=None)
        samples.append(replace(sample, labels=(changed,)))
        kinds.append(mine)
    return dataset.with_samples(samples), kinds


def planted_rows(dataset: Dataset, share: float, minutes: float, seed: int, device: torch.device) -> None:
    """Images with planted errors among all that people labeled, by `box_label_errors` and by ObjectLab, of the same
    out-of-fold predictions: average precision, of all kinds, and of the images that have only one kind."""
    from cleanlab.object_detection.rank import get_label_quality_scores

    spoiled, kinds = with_errors(dataset, share, seed)
    detection = auto_detect(
        spoiled, "fast", minutes=minutes, networks=5, least_unlabeled=0, seed=seed, device=device, min_per_class=2
    )
    rows = [row for row in range(len(dataset)) if detection.judges[row] >= 0]
    found = box_label_errors(detection, seed=seed)
    labels, predictions = [], []
    for row in rows:
        boxes = detection.candidates[row]
        assert boxes is not None
        labels.append({"bboxes": detection.sketches.boxes[row], "labels": detection.sketches.classes[row]})
        predictions.append(_by_class(boxes, len(detection.labels)))
    theirs = 1 - get_label_quality_scores(labels, predictions, verbose=False)
    ours_ = found.coefficients[rows]
    print(f"{share:.0%} of the boxes of {len(rows)} images spoiled; average precision of ours, of ObjectLab")
    wrong = np.array([bool(kinds[row]) for row in rows])
    told = [("any", wrong, np.ones(len(rows), bool))]
    for kind in _ERRORS:
        only = np.array([kinds[row] == {kind} for row in rows])
        told.append((kind, only, only | ~wrong))
    for kind, positive, among in told:
        mine, other = (average_precision_score(positive[among], each[among]) for each in (ours_, theirs))
        print(f"    {kind:<9}{int(positive.sum()):>5} images{mine:>9.4f}{other:>9.4f}", flush=True)


def _by_class(boxes: Boxes, k: int) -> np.ndarray:
    """As cleanlab has it: for each class (m, 5)."""
    table = np.concatenate([boxes.xyxy.numpy(), boxes.scores.numpy()[:, None]], axis=1)
    found = np.empty(k, dtype=object)
    for column in range(k):
        found[column] = table[boxes.classes.numpy() == column]
    return found


# ---- Speed. ----


def speed(problem: Problem, detection: Detection | None, folder: Path) -> None:
    """Images a second at 640x480, decoded already; steps a second."""
    image = torch.rand(3, 480, 640, generator=generator_of("speed"))
    print(f"{'':<28}{'images/s':>10}{'training images/s':>20}")
    if detection is not None:
        detector = detection.detector
        one = replace(detector, networks=detector.networks[:1], flips=(False, False))
        learned = _training_speed(problem, str(detection.choices["precision"]))
        for name, each, told in (("ours, as labeling asks it", detector, ""), ("ours, one network", one, learned)):
            batch = image[None].repeat(BATCH, 1, 1, 1)
            asked = BATCH / _seconds(lambda each=each, batch=batch: each.predict(batch))
            print(f"{name:<28}{asked:>10.1f}{told:>20}")
    for name in PEERS:
        peer = Peer(name, problem, folder)
        peer.step(0)
        began = time.perf_counter()
        peer.step(1)
        step = time.perf_counter() - began
        peer.model.eval()
        with torch.no_grad():
            seconds = _seconds(lambda peer=peer: peer.model([image]))
        print(f"{name:<28}{1 / seconds:>10.1f}{_PEER_BATCH / step:>20.1f}", flush=True)


def _training_speed(problem: Problem, precision: str) -> str:
    """Labeled images a second that a network learns from: 40 more steps, by what they take longer."""
    taken = []
    for steps in (8, 48):
        began = time.perf_counter()
        auto_detect(
            problem.hidden,
            "fast",
            steps=(steps,),
            networks=1,
            rest=False,
            precision=precision,
            seed=problem.seed,
            device=problem.device,
        )
        taken.append(time.perf_counter() - began)
    return f"{40 * BATCH / (taken[1] - taken[0]):.1f}"


def _seconds(work: Callable[[], Any]) -> float:
    work()
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


# ---- The table. ----


def contend(name: str, problem: Problem, minutes: float, longer: float, folder: Path) -> tuple[list[Found], Any, str]:
    """What a contender finds, its detection if it is ours, and a word."""
    if name in PEERS:
        peer = Peer(name, problem, folder)
        steps = peer.train(60 * minutes)
        return peer.found(), None, f"{steps} steps of {_PEER_BATCH}"
    if name == "self-training":
        detection = self_training(problem, longer, minutes)
    elif name == "ceiling":
        detection = ours(problem, "fast", longer)
    else:
        algorithm_type, long = ("accurate", True) if name == "accurate" else ("fast", name == "fast-long")
        detection = ours(problem, algorithm_type, longer if long else minutes)
    return found_of(detection, problem.rest), detection, f"steps {detection.choices['steps']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--labeled", default="30,60,120")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--minutes-accurate", type=float, default=15)
    parser.add_argument("--contenders", default=f"fast,accurate,fast-long,self-training,ceiling,{','.join(PEERS)}")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--hard", action="store_true")
    parser.add_argument("--planted", type=float)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    dataset, device = read_samples(options.data), torch.device(options.device)
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {torch.get_num_threads()} threads")
    names = [name for name in options.contenders.split(",") if name]
    print(f"{'labeled':>7}  {'seed':>4}  {'contender':<14}{'mAP50':>8}{'mAP50:95':>10}{'seconds':>9}  a class at 0.5")
    with TemporaryDirectory() as folder:
        for labeled in map(int, options.labeled.split(",")):
            for seed in range(options.seeds):
                for name in names:
                    amount = len(dataset) - 60 if name == "ceiling" else labeled
                    problem = problem_of(dataset, amount, seed, device)
                    began = time.perf_counter()
                    found, detection, word = contend(
                        name, problem, options.minutes, options.minutes_accurate, Path(folder)
                    )
                    seconds = time.perf_counter() - began
                    scores = problem.score(found)
                    classes = " ".join(f"{each:.3f}" for each in scores.class_ap50)
                    figures = f"{scores.map50:>8.4f}{scores.map50_95:>10.4f}{seconds:>9.0f}"
                    print(f"{amount:>7}  {seed:>4}  {name:<14}{figures}  {classes}  {word}", flush=True)
                    if options.keep and detection is not None:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        kept = options.keep / f"{name}-{amount}-{seed}.pkl"
                        kept.write_bytes(pickle.dumps(detection))
                    if options.hard and detection is not None and name in ("fast", "accurate"):
                        for what, numbers in hard_rows(problem, detection).items():
                            told = "  ".join(f"{key} {value:.4f}" for key, value in numbers.items())
                            print(f"{'':>15}{what:<28}{told}", flush=True)
        for seed in range(options.seeds if options.planted else 0):
            planted_rows(dataset, options.planted, options.minutes, seed, device)
        if options.speed:
            problem = problem_of(dataset, 60, 0, device)
            speed(problem, ours(problem, "fast", 0.5), Path(folder))


if __name__ == "__main__":
    main()
