"""Reading and writing a manifest, beside bare orjson and the json module on the same lines.

    python benchmarks/manifest.py [--lines 200000] [--repeats 5]

Lines are like those of an image classification set after auto labeling: one annotation, every key of the sample and of
the annotation that such a line carries. First table: the lines stream through in blocks; each block is read into plain
typed records, every field of every record is changed (not timed), and the block is written; the three candidates take
turns at every block. Second table: a whole file is read into one list, and that list is written to another file,
atomically and flushed to disk; here making and collecting so many objects costs all three more than their own work.
Medians of the repeats, and the ratio of speeds to bare orjson.

Recorded on 2 cores, Python 3.11, orjson 3.13:

    200,000 lines, 555 bytes each, 5 repeats
    in blocks of 1,000            read lines/s  of orjson  write lines/s  of orjson
      orjson                           307,724      1.000      1,429,381      1.000
      labelengine                      213,329      0.693        543,681      0.380
      json                             173,688      0.564        172,740      0.121
    whole files, all held         read lines/s  of orjson  write lines/s  of orjson
      orjson                           111,507      1.000        642,464      1.000
      labelengine                       88,181      0.791        401,051      0.624
      json                              62,781      0.563        152,083      0.237

With one line again and again in a warm cache, where the ratios are at their worst: read 0.32, write 0.26.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from engine.files import atomic_writer
from engine.manifest import format_sample, parse_sample, read_manifest, write_manifest
from engine.samples import Label, Sample

BLOCK = 1_000  # lines held at once: as a stream, so that memory and its collector do not hide the work


def make_record(index: int, draw: random.Random) -> dict[str, Any]:
    name = draw.choice(("cat", "dog", "黄猫", "white shark"))
    return {
        "source": f"s3://bucket/datasets/animals/{name}/IMG_{index:07}.jpg",
        "usage": draw.choice(("TRAIN", "EVAL")),
        "id": f"{draw.getrandbits(128):032x}",
        "hard": draw.choice(("true", "false")),
        "hard-coefficient": draw.random(),
        "property": {"@modelarts:hard_reasons": [8, 6, 5, 3], "@modelarts:import_origin": 0},
        "annotation": [
            {
                "type": "modelarts/image_classification",
                "name": name,
                "id": f"{draw.getrandbits(32):08x}",
                "property": {"color": "white", "kind": "Persian cat"},
                "hard": draw.choice(("true", "false")),
                "hard-coefficient": draw.random(),
                "confidence": draw.random(),
                "annotated-by": "modelarts/active-learning",
                "creation-time": f"2024-{draw.randint(1, 12):02}-{draw.randint(1, 28):02} 11:30:30",
            }
        ],
    }


def changed(sample: Sample) -> Sample:
    """The same sample with every field touched, and changed."""
    return replace(
        sample,
        source=sample.source.replace("s3://bucket", "obs://other"),
        labels=tuple(changed_label(label) for label in sample.labels),
        usage="TEST",
        id=f"{sample.id}-1",
        hard=not sample.hard,
        hard_coefficient=1.0 - (sample.hard_coefficient or 0.0),
        property={**sample.property, "@modelarts:hard_reasons": [3, 5]},
    )


def changed_label(label: Label) -> Label:
    return replace(
        label,
        name=f"not {label.name}",
        id=f"{label.id}-1",
        property={**label.property, "color": "black"},
        hard=not label.hard,
        hard_coefficient=1.0 - (label.hard_coefficient or 0.0),
        confidence=1.0 - (label.confidence or 0.0),
        annotated_by="human/somebody",
        creation_time="2025-01-01 00:00:00",
    )


CODECS: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], Any], Callable[[Any], bytes]]] = {  # load, change, dump
    "orjson": (orjson.loads, lambda record: record, orjson.dumps),
    "labelengine": (lambda line: parse_sample(line, "lines"), changed, format_sample),
    "json": (json.loads, lambda record: record, lambda record: json.dumps(record).encode()),
}


def in_blocks(lines: list[bytes]) -> dict[str, tuple[float, float]]:
    """Name -> seconds to read all lines, and to write them all changed; the codecs take turns, a block each."""
    times = {name: [0.0, 0.0] for name in CODECS}
    for first in range(0, len(lines), BLOCK):
        block = lines[first : first + BLOCK]
        for name, (load, change, dump) in CODECS.items():
            start = time.perf_counter()
            records = [load(line) for line in block]
            times[name][0] += time.perf_counter() - start
            records = [change(record) for record in records]
            start = time.perf_counter()
            written = [dump(record) for record in records]
            times[name][1] += time.perf_counter() - start
            assert load(written[-1]) == records[-1], name
            assert name != "labelengine" or records[-1] != load(block[-1])
    return {name: (read, write) for name, (read, write) in times.items()}


def through_files(lines: list[bytes], folder: Path) -> dict[str, tuple[float, float]]:
    """Name -> seconds to read a file into a list, and to write the list to another, flushed to disk."""
    path = folder / "in.manifest"
    path.write_bytes(b"\n".join(lines))

    def read_bare(load: Callable[[bytes], Any]) -> list[Any]:
        with path.open("rb") as file:
            return [load(line) for line in file]

    def write_bare(dump: Callable[[Any], bytes], records: list[Any]) -> None:
        with atomic_writer(folder / "out.manifest") as file:
            for record in records:
                file.write(dump(record) + b"\n")

    times = {}
    for name, (load, _, dump) in CODECS.items():
        ours = name == "labelengine"
        start = time.perf_counter()
        records = list(read_manifest(path)) if ours else read_bare(load)
        middle = time.perf_counter()
        write_manifest(folder / "out.manifest", records) if ours else write_bare(dump, records)
        times[name] = middle - start, time.perf_counter() - middle
        del records
    return times


def print_table(title: str, n: int, repeats: list[dict[str, tuple[float, float]]]) -> None:
    print(f"{title:28}{'read lines/s':>14}{'of orjson':>11}{'write lines/s':>15}{'of orjson':>11}")
    times = {name: tuple(median(repeat[name][way] for repeat in repeats) for way in (0, 1)) for name in CODECS}
    for name, (read, write) in times.items():
        read_share, write_share = times["orjson"][0] / read, times["orjson"][1] / write
        print(f"  {name:26}{n / read:>14,.0f}{read_share:>11.3f}{n / write:>15,.0f}{write_share:>11.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    draw = random.Random(0)
    lines = [orjson.dumps(make_record(index, draw)) for index in range(options.lines)]
    print(f"{len(lines):,} lines, {sum(map(len, lines)) / len(lines):.0f} bytes each, {options.repeats} repeats")
    print_table(f"in blocks of {BLOCK:,}", len(lines), [in_blocks(lines) for _ in range(options.repeats)])
    with tempfile.TemporaryDirectory() as folder:
        held = [through_files(lines, Path(folder)) for _ in range(options.repeats)]
    print_table("whole files, all held", len(lines), held)


if __name__ == "__main__":
    main()
