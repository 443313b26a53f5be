"""engine.store: what was put survives, what a crash cut short does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import OutputError
from engine.store import Store


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def filled(path: Path, count: int = 5) -> list[int]:
    with Store(path) as store:
        return [store.put(key(number), bytes([number]) * (number + 1)) for number in range(count)]


def test_what_was_put_is_found_again(tmp_path: Path) -> None:
    places = filled(tmp_path / "a.store")
    with Store(tmp_path / "a.store") as store:
        assert len(store) == 5
        assert [store.place(key(number)) for number in range(5)] == places
        assert store.read(places[3], 4) == b"\x03" * 4
        assert store.read(places[3], 2, skip=2) == b"\x03" * 2
        assert key(7) not in store
        place = store.put(key(7), b"new")
        assert store.read(place, 3) == b"new", "what is not flushed yet can be read"
        assert store.put(key(7), b"other") == place, "the first one stays"


@pytest.mark.parametrize("cut", [1, 4, 20])
def test_a_record_that_a_crash_cut_short_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.store"
    filled(path)
    path.write_bytes(path.read_bytes()[:-cut])
    with Store(path) as store:
        assert [key(number) in store for number in range(5)] == [True] * 4 + [False]
        store.put(key(4), b"again")
    with Store(path) as store:
        assert store.read(store.place(key(4)), 5) == b"again"


def test_a_damaged_record_ends_what_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    places = filled(path)
    content = bytearray(path.read_bytes())
    content[places[2]] ^= 1
    path.write_bytes(content)
    with Store(path) as store:
        assert [key(number) in store for number in range(5)] == [True, True, False, False, False]


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"a\.store: cannot be written: "):
        Store(tmp_path / "file" / "a.store")
