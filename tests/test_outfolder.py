"""Writing into one folder: safe names, claims, what may be replaced, and that nothing leaves the folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ImageError, OutputError
from engine.outfolder import JOURNAL, OutFolder, safe_name


def files_of(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != JOURNAL
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", "cat"),
        ("big dog v1.5", "big dog v1.5"),
        ("straße 日本", "straße 日本"),
        ("100%", "100%"),
        ("a/b", "a%2Fb"),
        ("a\\b", "a%5Cb"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("../../etc", "%2E.%2F..%2Fetc"),
        (".hidden", "%2Ehidden"),
        ("a\0b\nc", "a%00b%0Ac"),
        ("CON", "%43ON"),
        ("nul.txt", "%6Eul.txt"),
        ("console", "console"),
        ("dot.", "dot%2E"),
        (" ", "%20"),
        ("what?", "what%3F"),
        ("\udce9", "%ED%B3%A9"),
    ],
)
def test_a_name_is_made_safe_where_it_must_be(name: str, expected: str) -> None:
    assert safe_name(name) == expected


def test_a_long_name_is_cut_between_characters_and_stays_its_own() -> None:
    first, second = safe_name("ä" * 149 + ".jpg"), safe_name("ä" * 150 + ".jpg")
    assert first != second
    for name in (first, second):
        assert len(name.encode()) <= 200
        assert name.startswith("ä" * 80)
        assert name.endswith(".jpg")
    assert len(safe_name("." * 300).encode()) <= 200
    assert len(safe_name("/" * 255).encode()) <= 200


@given(st.text(min_size=1, max_size=400))
def test_any_text_becomes_one_name_that_can_be_made(name: str) -> None:
    safe = safe_name(name)
    assert 0 < len(safe.encode()) <= 200
    assert "/" not in safe
    assert "\0" not in safe
    assert not safe.startswith(".")
    assert safe[-1] not in ". "
    assert safe_name(safe) == safe


# --- claims


def test_claims_are_distinct_and_in_order(tmp_path: Path) -> None:
    with OutFolder(tmp_path / "out") as out:
        assert [out.claim("1.jpg") for _ in range(3)] == ["1.jpg", "1-2.jpg", "1-3.jpg"]
        assert out.claim("1.png") == "1.png"
        assert out.claim("a/1.jpg") == "a/1.jpg"
        assert out.claim("1-2.jpg") == "1-2-2.jpg"


def test_a_claim_with_a_sidecar_takes_both_names(tmp_path: Path) -> None:
    with OutFolder(tmp_path / "out") as out:
        assert out.claim("1.jpg", sidecar=".txt") == "1.jpg"
        assert out.claim("1.png", sidecar=".txt") == "1-2.png"
        assert out.claim("1-2.jpg", sidecar=".txt") == "1-2-2.jpg"  # 1-2.txt belongs to 1-2.png
        assert out.claim("1.txt") == "1-3.txt"
        (tmp_path / "out/mine.txt").write_text("mine")
        assert out.claim("mine.jpg", sidecar=".txt") == "mine-2.jpg"


def test_folders_and_files_share_their_names(tmp_path: Path) -> None:
    with OutFolder(tmp_path / "out") as out:
        assert [out.claim_folder("cat"), out.claim_folder("cat")] == ["cat", "cat-2"]
        assert out.claim("cat") == "cat-3"


def test_names_that_differ_in_case_differ_unless_the_file_system_says_otherwise(tmp_path: Path) -> None:
    with OutFolder(tmp_path / "out") as out:
        folds = (tmp_path / "OUT").exists()
        assert (out.claim("A.jpg"), out.claim("a.jpg")) == ("A.jpg", "a-2.jpg" if folds else "a.jpg")
        out._folds = True
        assert (out.claim("B.jpg"), out.claim("b.jpg")) == ("B.jpg", "b-2.jpg")


# --- placing


def test_a_file_is_linked_or_copied(tmp_path: Path) -> None:
    source = tmp_path / "1.jpg"
    source.write_bytes(b"pixels")
    (tmp_path / "link.jpg").symlink_to(source)
    with OutFolder(tmp_path / "out") as out:
        out.place(source, "linked.jpg", copy=False)
        out.place(tmp_path / "link.jpg", "x/through.jpg", copy=False)
        out.place(source, "copied.jpg", copy=True)
    inode = source.stat().st_ino
    assert (tmp_path / "out/linked.jpg").stat().st_ino == inode
    assert (tmp_path / "out/x/through.jpg").lstat().st_ino == inode
    assert (tmp_path / "out/copied.jpg").stat().st_ino != inode
    assert (tmp_path / "out/copied.jpg").read_bytes() == b"pixels"
    assert files_of(tmp_path / "out") == {"linked.jpg", "x/through.jpg", "copied.jpg"}


def test_where_links_are_refused_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.jpg").write_bytes(b"pixels")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with OutFolder(tmp_path / "out") as out:
        out.place(tmp_path / "1.jpg", "1.jpg", copy=False)
    assert (tmp_path / "out/1.jpg").read_bytes() == b"pixels"


def test_sources_that_are_no_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    with OutFolder(tmp_path / "out") as out:
        for name, kind in (
            ("gone.jpg", "missing"),
            ("empty.jpg/1.jpg", "missing"),
            ("empty.jpg", "empty"),
            ("folder.jpg", "not_a_file"),
            ("a\0b.jpg", "unreadable"),
        ):
            with pytest.raises(ImageError) as caught:
                out.place(tmp_path / name, "1.jpg", copy=False)
            assert caught.value.kind == kind
    assert files_of(tmp_path / "out") == set()


def test_a_full_disk_is_an_error_with_the_path_and_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with OutFolder(tmp_path / "out") as out:
        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match=r"out/1\.txt: cannot be written: No space left on device"):
            out.write("1.txt", b"cat\n")
    assert files_of(tmp_path / "out") == set()


def test_a_read_only_place_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="out: cannot be written: Read-only file system"):
        OutFolder(tmp_path / "out")


# --- what may be written to, and replaced


def test_a_folder_must_be_new_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    OutFolder(tmp_path / "empty").__exit__(None, None, None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="full: must be new or empty, got 1 entries; --overwrite"):
        OutFolder(tmp_path / "full")
    with pytest.raises(OutputError, match="nothing in it was written by an earlier run"):
        OutFolder(tmp_path / "full", overwrite=True)
    with pytest.raises(OutputError, match="must be a folder, got a file"):
        OutFolder(tmp_path / "full/mine.txt")
    assert files_of(tmp_path / "full") == {"mine.txt"}


def test_overwriting_replaces_what_we_wrote_and_leaves_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with OutFolder(folder) as out:
        for name in ("old/1.txt", "both/1.txt", "2.txt"):
            out.write(name, b"first")
    (folder / "both/mine.txt").write_text("mine")
    (folder / "mine.jpg").write_text("mine")
    with OutFolder(folder, overwrite=True) as out:
        assert files_of(folder) == {"both/mine.txt", "mine.jpg"}
        assert not (folder / "old").exists()
        out.write("2.txt", b"second")
        assert out.claim("mine.jpg") == "mine-2.jpg"
        assert out.claim_folder("both") == "both"
        with pytest.raises(OutputError, match=r"both/mine\.txt: exists and was not written by an earlier run"):
            out.write("both/mine.txt", b"ours")
    assert (folder / "both/mine.txt").read_text() == "mine"
    assert (folder / "2.txt").read_bytes() == b"second"


def test_a_killed_run_can_be_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with OutFolder(folder) as out:
        out.write("1.txt", b"x")
    with (folder / JOURNAL).open("ab") as journal:
        journal.write(b'"2.tx')  # cut off in the middle of a line
    (folder / ".labelengine-part").write_bytes(b"half")
    with OutFolder(folder, overwrite=True):
        assert set(os.listdir(folder)) == {JOURNAL}


def test_a_run_that_is_killed_while_it_clears_leaves_what_tells_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OutFolder(tmp_path / "out") as out:
        for name in ("task.json", "1.txt", "2.txt"):
            out.write(name, b"x")
    unlink = os.unlink

    def killed(path: Path) -> None:
        if path.name == "1.txt":
            raise KeyboardInterrupt
        unlink(path)

    monkeypatch.setattr("engine.outfolder.os.unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        OutFolder(tmp_path / "out", overwrite=True)
    assert files_of(tmp_path / "out") == {"task.json", "1.txt"}


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with OutFolder(folder) as out:
        out.write("1.txt", b"x")
        with pytest.raises(OutputError, match=r"out: another run writes there; wait for its end"):
            OutFolder(folder, overwrite=True)
        out.write("2.txt", b"y")
    assert files_of(folder) == {"1.txt", "2.txt"}
    with OutFolder(folder, overwrite=True):
        assert set(os.listdir(folder)) == {JOURNAL}


def test_a_run_that_was_killed_keeps_nobody_out(tmp_path: Path) -> None:
    writes = (
        "import sys, time, pathlib, engine.outfolder as o\n"
        "out = o.OutFolder(pathlib.Path(sys.argv[1])); print('there', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", writes, str(tmp_path / "out")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == b"there\n"
            with pytest.raises(OutputError, match="another run writes there"):
                OutFolder(tmp_path / "out", overwrite=True)
        finally:
            other.kill()
    OutFolder(tmp_path / "out", overwrite=True).__exit__(None, None, None)


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuses)
    with OutFolder(tmp_path / "out") as out:
        out.write("1.txt", b"x")
    assert files_of(tmp_path / "out") == {"1.txt"}


def test_a_forged_journal_deletes_nothing_outside(tmp_path: Path) -> None:
    folder, victim = tmp_path / "out", tmp_path / "victim.txt"
    victim.write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/1.txt").write_text("mine")
    OutFolder(folder).__exit__(None, None, None)
    (folder / "away").symlink_to(tmp_path / "other")
    (folder / "sub").mkdir()
    forged = ["../victim.txt", str(victim), "away/1.txt", "sub/../../victim.txt", "", ".", "a\0b", 7, "sub"]
    (folder / JOURNAL).write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in forged))
    OutFolder(folder, overwrite=True).__exit__(None, None, None)
    assert victim.read_text() == "mine"
    assert (tmp_path / "other/1.txt").read_text() == "mine"
    assert (folder / "away").is_symlink()
    assert (folder / "sub").is_dir()


def test_a_link_to_a_folder_outside_is_not_written_through(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    OutFolder(folder).__exit__(None, None, None)
    (tmp_path / "other").mkdir()
    (folder / "cat").symlink_to(tmp_path / "other")
    with OutFolder(folder, overwrite=True) as out:
        assert out.claim_folder("cat") == "cat-2"
        with pytest.raises(OutputError, match="cat: leads out of"):
            out.write("cat/1.txt", b"x")
    assert os.listdir(tmp_path / "other") == []


def test_what_is_still_to_be_read_is_not_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with OutFolder(folder) as out:
        out.write("1.jpg", b"pixels")
        out.write("2.jpg", b"pixels")
    with pytest.raises(OutputError, match=r"2\.jpg: is part of the data set being read"):
        OutFolder(folder, overwrite=True, inputs=lambda: [folder / "2.jpg"])
    assert files_of(folder) == {"1.jpg", "2.jpg"}
