"""A survey as a Parquet table: one row a sample, every feature a column, box features as lists.

Units and ranges are those of `features.IMAGE_FEATURES` and `features.BOX_FEATURES`; they stand in the metadata of each
column. A sample without a readable image has nulls, and the kind of its failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.features import BOX_FEATURES, IMAGE_FEATURES
from engine.files import atomic_writer
from engine.samples import Sample
from engine.survey import BOX_COLUMNS, COLUMNS, Survey

#: Rows that are made at once: a row group of the file.
_ROWS: Final = 16_384


def write_features(path: Path, parts: Sequence[tuple[Mapping[str, Any], Sequence[Sample], Survey]]) -> int:
    """Write the table, whole or not at all; returns its rows.

    parts: for each data set its further columns, name -> a string, or (n,) int64 parallel to the samples; all have the
    same names. Raises OutputError.
    """
    further = [_further(name, value) for name, value in parts[0][0].items()]
    schema = pa.schema([*further, *_COLUMNS])
    rows = 0
    with atomic_writer(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for columns, samples, found in parts:
            failures = {failure.source: failure.kind for failure in found.failures}
            for start in range(0, len(samples), _ROWS):
                part = slice(start, start + _ROWS)
                arrays = [*_values(columns, part, len(samples[part])), *_arrays(samples[part], part, found, failures)]
                writer.write_table(pa.table(arrays, schema))
                rows += len(samples[part])
    return rows


def _field(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    return pa.field(name, kind, metadata={"meaning": meaning, "unit": unit})


_COLUMNS: Final = (
    _field("source", pa.string(), "as the data set names it"),
    _field("failure", pa.string(), "why there is no image, one of errors.FAILURE_KINDS"),
    _field("width", pa.int32(), "of the upright image", "pixels"),
    _field("height", pa.int32(), "of the upright image", "pixels"),
    *(_field(name, pa.float32(), each.meaning, each.unit) for name, each in IMAGE_FEATURES.items()),
    _field("box_count", pa.int32(), BOX_FEATURES["box_count"].meaning, BOX_FEATURES["box_count"].unit),
    _field("box_area_std", pa.float32(), BOX_FEATURES["box_area_std"].meaning, BOX_FEATURES["box_area_std"].unit),
    *(
        _field(
            f"box_{name}", pa.list_(pa.float32()), BOX_FEATURES[f"box_{name}"].meaning, BOX_FEATURES[f"box_{name}"].unit
        )
        for name in BOX_COLUMNS
    ),
)


def _further(name: str, value: Any) -> pa.Field:
    return pa.field(name, pa.string() if isinstance(value, str) else pa.int32())


def _values(columns: Mapping[str, Any], part: slice, rows: int) -> Iterator[pa.Array]:
    for value in columns.values():
        yield pa.array([value] * rows, pa.string()) if isinstance(value, str) else pa.array(value[part], pa.int32())


def _arrays(samples: Sequence[Sample], part: slice, found: Survey, failures: dict[str, str]) -> Iterator[pa.Array]:
    """The columns of _COLUMNS."""
    unread = ~found.readable[part]
    yield pa.array([utf8(sample.source) for sample in samples], pa.string())
    yield pa.array([failures.get(sample.source) if no else None for sample, no in zip(samples, unread, strict=True)])
    for side in (0, 1):
        yield pa.array(found.sizes[part, side], pa.int32(), mask=unread)
    for column in range(len(COLUMNS)):
        yield pa.array(found.features[part, column], pa.float32(), mask=unread)
    boxes = found.boxes[part]
    counts = np.array([len(each) for each in boxes], np.int64)
    yield pa.array(counts, pa.int32(), mask=unread)
    yield pa.array(found.box_area_std[part], pa.float32(), mask=unread | (counts == 0))
    offsets = pa.array(np.concatenate([[0], counts.cumsum()]), pa.int32())
    values = np.concatenate(boxes) if len(boxes) else np.zeros((0, len(BOX_COLUMNS)), np.float32)
    for column in range(len(BOX_COLUMNS)):
        yield pa.ListArray.from_arrays(offsets, pa.array(values[:, column], pa.float32()))


def utf8(text: str) -> str:
    """Parquet holds UTF-8 only; a file name on disk may be any bytes, and a label half a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
