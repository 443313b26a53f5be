"""How fast networks learn: images a second in each kind of training, beside torchvision's resnet18 and the machine.

    python benchmarks/training_speed.py [--device cpu] [--side 32] [--seconds 10] [--precision bfloat16]

Random images, 4,096 of them in 10 classes, 1,024 labeled; networks, batches and losses as auto labeling takes them for
so many. Each training runs through its whole schedule: a few steps to warm up, some to know how long one takes, then as
many as fit into --seconds. Nothing is left out of the time: dealing, altering, both networks where one teaches the
other, the step down, the average. "bare" is the same network on one ready batch, forward and backward only; "resnet18"
that of torchvision so, with SGD. An image that two networks look at counts once; a pair of views is two.

TFLOP/s: of convolutions and products of matrices, counted by torch. "of product": that, over what a plain product of
two matrices reaches here in the same precision, which is the machine's end.

Recorded on 2 cores without AMX (before changes to images were drawn apart from the rest), and on one H100, where
networks are twice as wide: the trainings with --seconds 150, the other rows with --seconds 3 on another machine of that
kind. A GPU records a step and repeats it in one call; when each step was a thousand calls (many tensors in one where
torch takes them), "labels" made 12,769 images/s there, pairs of views 54,110, "consistency" 27,459 in batches of 512;
one tensor a call, 9,050, 31,777 and 20,794.

    2 threads, torch 2.14.1+cu130, bfloat16; 32 pixels, channels 64-128-256
    training           batch   images/s  ms a step  TFLOP/s  of product
    labels               128      1,274     100.48     0.33        0.76
    pairs of views       512      1,467     349.04     0.27        0.63
    consistency          512        782     655.12     0.35        0.81
    bare                 512        678     755.41     0.32        0.74
    resnet18             512      1,156     443.01     0.25        0.58
    product                                            0.43        1.00
    (--precision float32: 0.95 to 1.03 of the product, at 0.20 TFLOP/s)

    NVIDIA H100 80GB HBM3, torch 2.11.0+cu130, bfloat16; 32 pixels, channels 128-256-512
    training           batch   images/s  ms a step  TFLOP/s  of product
    labels               128     35,718       3.58    38.07        0.05
    pairs of views       512    118,399       4.32    83.60        0.11
    consistency        1,024     93,278      10.98   158.46        0.21
    bare               1,024    134,681       7.60   234.11        0.31
    resnet18           1,024    113,657       9.01    24.70        0.03
    product                                          762.20        1.00

    the same, 128 pixels (one tensor a call)
    labels               128      8,521      15.02    31.05        0.04
    pairs of views       512     32,657      15.68    86.99        0.11
    consistency          512     18,944      27.03   123.65        0.16
    bare                 512     36,432      14.05   253.51        0.32
    resnet18             512     31,446      16.28   109.31        0.14
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

from engine.label.accurate import LEARNING_RATE, PAIRS, PRETRAINING_RATE, batches
from engine.label.augment import STRONG, plain
from engine.label.fast import LEARNING_RATE as FROM_SCRATCH_RATE
from engine.label.fast import from_labels
from engine.label.losses import Believed, Projected, Told, consistent, contrastive
from engine.label.plan import Plan, Settings, new_network, plan_for
from engine.label.pool import Pool
from engine.label.training import Lesson, Recipe, Training, Watch, generator_of, train

IMAGES, LABELED, CLASSES = 4_096, 1_024, 10
WARM_UP = 10


def random_pool(side: int, device: torch.device) -> Pool:
    pixels = torch.randint(0, 256, (IMAGES, 3, side, side), dtype=torch.uint8, generator=generator_of("images"))
    pixels = pixels.to(device).contiguous(memory_format=torch.channels_last)
    told = F.one_hot(torch.arange(IMAGES) % CLASSES, CLASSES).float()
    told[LABELED:] = 0
    names = tuple(map(str, range(CLASSES)))
    return Pool(lambda rows: pixels[rows.to(device)], told, names, False, side, device)


def trainings(pool: Pool, plan: Plan) -> dict[str, tuple[nn.Module, Lesson, float, int]]:
    """Of each kind: the network, the lesson, the learning rate, the images of a step."""

    def begun() -> nn.Module:
        return new_network(pool, pool.labeled, plan.spec, plan.seed, "speed")

    rows, unlabeled = torch.arange(len(pool)), pool.unlabeled
    beliefs = torch.full((len(pool), CLASSES), 1 / CLASSES)
    believed = Believed(unlabeled, beliefs[unlabeled], beliefs[0])
    labeled, more = batches(pool, plan)
    agreeing = consistent(
        pool.pixels,
        Told(pool.labeled, pool.told[pool.labeled]),
        believed,
        STRONG,
        (labeled, more),
        "speed",
        multi_label=False,
    )
    projected = Projected(begun(), generator_of("projector")).to(pool.device)
    pairs = contrastive(pool.pixels, rows, plan.flips, PAIRS, "speed")
    return {
        "labels": (begun(), from_labels(pool, pool.labeled, plan, "speed"), FROM_SCRATCH_RATE, plan.batch),
        "pairs of views": (projected, pairs, PRETRAINING_RATE, 2 * PAIRS),
        "consistency": (begun(), agreeing, LEARNING_RATE, labeled + more),
    }


def waited(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def whole_schedule(
    net: nn.Module, lesson: Lesson, rate: float, *, seconds: float, bfloat16: bool, device: torch.device
) -> tuple[float, float]:
    """Seconds and operations of a step, on the mean."""

    def run(steps: int) -> float:
        began = waited(device)
        train("speed", net, steps, Recipe(learning_rate=rate), lesson, bfloat16=bfloat16, watch=Watch())
        return (waited(device) - began) / steps

    operations = counted(net, lesson, bfloat16=bfloat16, device=device)
    few = max(WARM_UP, int(seconds / run(WARM_UP)))
    # What begins a training, on a GPU its recording, is a small part of so many steps.
    steps = max(few, int(seconds / run(few)))
    return run(steps), operations


def counted(net: nn.Module, lesson: Lesson, *, bfloat16: bool, device: torch.device) -> float:
    """Operations of a step, on the mean of its schedule, taken one by one: what a GPU has recorded is not counted."""
    memory = {name: value.clone().to(device) for name, value in lesson.memory.items()}
    training = Training(net.train(), WARM_UP, Recipe(), bfloat16, memory)
    with FlopCounterMode(display=False) as counter:
        for step in range(WARM_UP):
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                loss = lesson.loss(training, lesson.given(step, WARM_UP))
            training.take(float(training.slope(loss)), training.descend)
    return counter.get_total_flops() / WARM_UP


def one_batch(
    net: nn.Module, images: Tensor, *, seconds: float, bfloat16: bool, descend: Callable[[], None] | None = None
) -> tuple[float, float]:
    """Seconds (a median) and operations of forward and backward on one batch."""
    device = images.device
    classes = torch.arange(len(images), device=device) % CLASSES
    net.train()

    def step() -> None:
        net.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            value = F.cross_entropy(net(images).float(), classes)
        value.backward()  # type: ignore[no-untyped-call]
        if descend:
            descend()

    step()
    with FlopCounterMode(display=False) as counter:
        step()
    taken: list[float] = []
    while sum(taken) < seconds:
        began = waited(device)
        step()
        taken.append(waited(device) - began)
    return median(taken), counter.get_total_flops()


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a product of two matrices, the best of ten."""
    n = 8_192 if device.type == "cuda" else 2_048
    a, b = (torch.randn(n, n, generator=generator_of("product", at)).to(device, dtype) for at in range(2))
    taken = []
    for _ in range(12):
        began = waited(device)
        a @ b
        taken.append(waited(device) - began)
    return float(2 * n**3 / min(taken[2:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    options = parser.parse_args()
    device, bfloat16 = torch.device(options.device), options.precision == "bfloat16"
    pool = random_pool(options.side, device)
    plan = plan_for(pool, Settings(bfloat16=bfloat16), folds=5, members=1)
    limit = product_rate(device, torch.bfloat16 if bfloat16 else torch.float32)

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    widths = "-".join(map(str, plan.spec.widths))
    print(f"{name}, torch {torch.__version__}, {options.precision}; {options.side} pixels, channels {widths}")
    print(f"{'training':<18}{'batch':>6}{'images/s':>11}{'ms a step':>11}{'TFLOP/s':>9}{'of product':>12}")

    def tell(name: str, batch: int, seconds: float, operations: float) -> None:
        rate = operations / seconds
        figures = f"{batch / seconds:>11,.0f}{1e3 * seconds:>11.2f}{rate / 1e12:>9.2f}{rate / limit:>12.2f}"
        print(f"{name:<18}{batch:>6}{figures}", flush=True)

    for kind, (net, lesson, rate, batch) in trainings(pool, plan).items():
        taken = whole_schedule(net, lesson, rate, seconds=options.seconds, bfloat16=bfloat16, device=device)
        tell(kind, batch, *taken)
    labeled, more = batches(pool, plan)
    images = plain(pool.pixels(torch.arange(labeled + more)))
    own = new_network(pool, pool.labeled, plan.spec, plan.seed, "bare")
    tell("bare", len(images), *one_batch(own, images, seconds=options.seconds, bfloat16=bfloat16))
    peer = resnet18(num_classes=CLASSES).to(device, memory_format=torch.channels_last)
    descent = torch.optim.SGD(peer.parameters(), lr=1e-3, momentum=0.9)
    taken = one_batch(peer, images, seconds=options.seconds, bfloat16=bfloat16, descend=descent.step)
    tell("resnet18", len(images), *taken)
    print(f"{'product':<18}{'':>28}{limit / 1e12:>9.2f}{1:>12.2f}")


if __name__ == "__main__":
    main()
