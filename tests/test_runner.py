"""engine.tasks.runner: states, progress, what stays in OUT, and how a run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from engine.errors import Failure, InputError, OutputError, Stopped
from engine.outfolder import OutFolder
from engine.tasks import runner
from engine.tasks.runner import CACHE, TASK_NAME, Outcome, Run, Silent, Status, Task, read_answer, run


def a_task(job: Callable[[Run], Outcome], **changes: Any) -> Task:
    fields: dict[str, Any] = {
        "kind": "counting",
        "config": {"n": 2},
        "dataset": "things",
        "stages": {"one": 30, "two": 70},
    }
    return Task(job=job, **{**fields, **changes})


def writes_a_file(this: Run) -> Outcome:
    this.out.write("result.txt", b"done")
    return Outcome({"count": 2}, (Failure("a.png", "empty", "expected an image, got 0 bytes"),))


class Listening(Silent):
    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []

    def stage(self, name: str, total: int) -> None:
        self.heard.append((name, total))

    def advance(self, done: int) -> None:
        self.heard.append(("done", done))

    def note(self, line: str) -> None:
        self.heard.append(("note", line))


def test_a_task_that_succeeds(tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = run(a_task(writes_a_file, notices=("mind this",), export_type=1), out)
    assert answer == read_answer(out) == json.loads((out / "task.json").read_text())
    assert (answer["status"], answer["progress"], answer["message"]) == (3, 100.0, "succeeded")
    assert answer["result"] == {"count": 2}
    assert answer["failures"] == [{"source": "a.png", "kind": "empty", "reason": "expected an image, got 0 bytes"}]
    assert (answer["config"], answer["export_type"], answer["notices"]) == ({"n": 2}, 1, ["mind this"])
    assert (answer["error_code"], answer["error_msg"], answer["error_detail"]) == ("", "", "")
    assert len(answer["task_id"]) == 32
    assert (out / "result.txt").read_bytes() == b"done"
    assert not (out / CACHE).exists()


def test_states_have_the_numbers_of_the_specification() -> None:
    assert [(status.name, int(status)) for status in Status] == [
        ("QUEUING", -1),
        ("INITIALIZING", 0),
        ("RUNNING", 1),
        ("FAILED", 2),
        ("SUCCEEDED", 3),
        ("STOPPING", 4),
        ("STOPPED", 5),
    ]


def test_progress_is_the_sum_of_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_EVERY", 0.0)
    seen: list[float] = []

    def job(this: Run) -> Outcome:
        advance = this.stage("one", 10)
        for done in (5, 10):
            advance(done)
            seen.append(read_answer(tmp_path / "out")["progress"])
        advance = this.stage("two", 4)
        advance(1)
        seen.append(read_answer(tmp_path / "out")["progress"])
        assert read_answer(tmp_path / "out")["status"] == Status.RUNNING
        return Outcome({})

    listening = Listening()
    answer = run(a_task(job, notices=("first",)), tmp_path / "out", reporter=listening)
    assert seen == [15.0, 30.0, 47.5]
    assert listening.heard == [("note", "first"), ("one", 10), ("done", 5), ("done", 10), ("two", 4), ("done", 1)]
    assert [(stage["stage"], stage["count"]) for stage in answer["timings"]] == [("one", 10), ("two", 1)]
    assert sum(stage["seconds"] for stage in answer["timings"]) <= answer["elapsed_time"] + 0.01


def test_a_task_that_fails_says_so_and_may_be_tried_again(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fails(this: Run) -> Outcome:
        this.out.write("half.txt", b"half")
        raise InputError("a.manifest:3: expected this, got that\nand more")

    with pytest.raises(InputError, match="expected this"):
        run(a_task(fails), out)
    answer = read_answer(out)
    assert (answer["status"], answer["error_code"]) == (Status.FAILED, "InputError")
    assert answer["error_msg"] == "a.manifest:3: expected this, got that"
    assert answer["error_detail"].endswith("and more")
    run(a_task(writes_a_file), out)
    assert sorted(path.name for path in out.iterdir()) == [".labelengine-wrote", "result.txt", "task.json"]


def test_a_result_is_never_overwritten_unasked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(a_task(writes_a_file), out)
    with pytest.raises(OutputError, match="must be new or empty"):
        run(a_task(writes_a_file), out)
    (out / "mine.txt").write_text("a user's")
    run(a_task(writes_a_file), out, overwrite=True)
    assert (out / "mine.txt").read_text() == "a user's"


def test_a_folder_with_foreign_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a user's")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError):
            run(a_task(writes_a_file), tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def stops_in_the_middle(stop: Event) -> Callable[[Run], Outcome]:
    def job(this: Run) -> Outcome:
        this.cache.mkdir(exist_ok=True)
        done = this.cache / "done"
        count = int(done.read_text()) if done.exists() else 0
        advance = this.stage("one", 4)
        for number in range(count, 4):
            done.write_text(str(number + 1))
            if number == 1:
                stop.set()
            advance(number + 1)
        return Outcome({"started_at": count})

    return job


def test_a_stopped_task_goes_on_with_resume(tmp_path: Path) -> None:
    out, stop = tmp_path / "out", Event()
    with pytest.raises(Stopped, match="--resume goes on"):
        run(a_task(stops_in_the_middle(stop)), out, stop=stop)
    assert read_answer(out)["status"] == Status.STOPPED
    assert read_answer(out)["progress"] == 15.0
    with pytest.raises(OutputError, match="--resume goes on with it, --overwrite begins it again"):
        run(a_task(writes_a_file), out)
    answer = run(a_task(stops_in_the_middle(Event())), out, resume=True)
    assert answer["result"] == {"started_at": 2}
    assert not (out / CACHE).exists()


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"kind": "measuring"}, "counting, got measuring"),
        ({"config": {"n": 3, "parameters": [{"label": "seed", "value": "1"}]}}, "with other n, parameters.seed"),
        ({"digest": lambda: "more"}, "of other data"),
    ],
)
def test_resume_of_another_task_keeps_what_a_stopped_one_has(
    tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    out, stop = tmp_path / "out", Event()
    with pytest.raises(Stopped):
        run(a_task(stops_in_the_middle(stop)), out, stop=stop)
    with pytest.raises(OutputError, match=rf"another task that did not end \({difference}\); --overwrite replaces it"):
        run(a_task(writes_a_file, **changes), out, resume=True)
    assert read_answer(out)["status"] == Status.STOPPED
    assert run(a_task(stops_in_the_middle(Event())), out, resume=True)["result"] == {"started_at": 2}


def test_a_task_is_the_same_however_it_is_computed(tmp_path: Path) -> None:
    out, seed = tmp_path / "out", {"label": "seed", "value": "1"}
    with_threads = {"n": 2, "parameters": [{"label": "threads", "value": "1"}, seed]}
    first = run(a_task(writes_a_file, config=with_threads), out)
    assert run(a_task(writes_a_file, config={"n": 2, "parameters": [seed]}), out, resume=True) == first
    assert run(a_task(writes_a_file, config={"n": 2, "parameters": {"seed": "1"}}), out, resume=True) == first


def test_a_folder_of_one_task_goes_on_with_other_data(tmp_path: Path) -> None:
    out, stop = tmp_path / "out", Event()
    with pytest.raises(Stopped):
        run(a_task(stops_in_the_middle(stop)), out, stop=stop)
    more = a_task(stops_in_the_middle(Event()), digest=lambda: "more")
    assert run(more, out, resume=True, same_task=True)["result"] == {"started_at": 2}
    assert run(a_task(writes_a_file), out, resume=True, same_task=True)["result"] == {"count": 2}, "done again"
    again = a_task(lambda this: pytest.fail("was done before"))
    assert run(again, out, resume=True, same_task=True)["result"] == {"count": 2}


def test_a_task_says_that_it_runs_before_its_first_stage(tmp_path: Path) -> None:
    def job(this: Run) -> Outcome:
        assert read_answer(this.out.folder)["status"] == Status.RUNNING
        return Outcome({})

    run(a_task(job), tmp_path / "out")


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}])
def test_a_task_that_runs_is_left_alone(tmp_path: Path, options: dict[str, bool]) -> None:
    out = tmp_path / "out"

    def job(this: Run) -> Outcome:
        this.cache.mkdir()
        with pytest.raises(OutputError, match="another run writes there"):
            run(a_task(writes_a_file), out, **options)
        assert this.cache.is_dir() and read_answer(out)["status"] == Status.RUNNING
        return writes_a_file(this)

    assert run(a_task(job), out)["status"] == Status.SUCCEEDED


def test_overwrite_begins_a_stopped_task_again(tmp_path: Path) -> None:
    out, stop = tmp_path / "out", Event()
    with pytest.raises(Stopped):
        run(a_task(stops_in_the_middle(stop)), out, stop=stop)
    assert run(a_task(stops_in_the_middle(Event())), out, overwrite=True)["result"] == {"started_at": 0}


def leaves_a_result(error: Exception) -> Callable[[Run], Outcome]:
    def job(this: Run) -> Outcome:
        this.out.write("result.manifest", b"a machine's\n")
        raise error

    return job


@pytest.mark.parametrize(("error", "again"), [(Stopped("now"), {"resume": True}), (InputError("no page"), {})])
def test_what_a_person_did_to_a_result_since_is_only_replaced_where_asked(
    tmp_path: Path, error: Exception, again: dict[str, bool]
) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # as the task left it, it goes on
        with pytest.raises(type(error)):
            run(a_task(leaves_a_result(error)), out, **again)
    (out / "result.manifest").write_bytes(b"a person's\n")
    with pytest.raises(OutputError, match=r"holds a result\.manifest that a person has changed since the task ended"):
        run(a_task(writes_a_file), out, **again)
    assert (out / "result.manifest").read_bytes() == b"a person's\n"
    assert run(a_task(writes_a_file), out, overwrite=True)["status"] == Status.SUCCEEDED
    assert not (out / "result.manifest").exists()


def test_what_a_stopped_task_has_kept_is_there_until_it_has_another(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def job(content: bytes | None, error: Exception) -> Callable[[Run], Outcome]:
        def stops(this: Run) -> Outcome:
            if content is not None:
                this.out.write("model/a.bin", content)
                this.keep("model")
            raise error

        return stops

    for content, there in ((b"first", b"first"), (None, b"first"), (b"second", b"second"), (None, b"second")):
        with pytest.raises(Stopped):
            run(a_task(job(content, Stopped("now"))), out, resume=True)
        assert (out / "model/a.bin").read_bytes() == there
    with pytest.raises(InputError):
        run(a_task(job(None, InputError("wrong"))), out, resume=True)
    assert (out / "model/a.bin").read_bytes() == b"second"
    with pytest.raises(Stopped):  # of another task, which may take the place of one that failed
        run(a_task(job(None, Stopped("now")), config={"n": 3}), out, resume=True)
    assert not (out / "model").exists()
    run(a_task(writes_a_file, config={"n": 3}), out, resume=True)
    assert sorted(path.name for path in out.iterdir()) == [".labelengine-wrote", "result.txt", "task.json"]


def test_an_interrupt_counts_as_a_stop(tmp_path: Path) -> None:
    def interrupted(this: Run) -> Outcome:
        raise KeyboardInterrupt

    with pytest.raises(Stopped):
        run(a_task(interrupted), tmp_path / "out")
    assert read_answer(tmp_path / "out")["status"] == Status.STOPPED


def test_resume_does_not_repeat_what_is_finished(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run(a_task(writes_a_file), out)
    again = run(a_task(lambda this: pytest.fail("was done before")), out, resume=True)
    assert again == first
    with pytest.raises(OutputError, match="finished result of another task"):
        run(a_task(writes_a_file, config={"n": 3}), out, resume=True)


def test_resume_begins_where_there_is_nothing(tmp_path: Path) -> None:
    assert run(a_task(writes_a_file), tmp_path / "out", resume=True)["status"] == Status.SUCCEEDED


def test_resume_begins_where_a_run_was_killed_before_it_said_anything(tmp_path: Path) -> None:
    with OutFolder(tmp_path / "out") as folder:
        folder.target(TASK_NAME)
    assert run(a_task(writes_a_file), tmp_path / "out", resume=True)["status"] == Status.SUCCEEDED


@pytest.mark.parametrize("left", [None, b"{", b"[]"])
def test_resume_keeps_what_another_command_wrote(tmp_path: Path, left: bytes | None) -> None:
    out = tmp_path / "out"
    with OutFolder(out) as folder:
        folder.write("labels.manifest", b"a person's")
        if left is not None:
            folder.write(TASK_NAME, left)
    with pytest.raises(OutputError, match=r"files that another command wrote, and no task\.json to go on with"):
        run(a_task(writes_a_file), out, resume=True)
    assert (out / "labels.manifest").read_bytes() == b"a person's"
    answer = run(a_task(writes_a_file), out, resume=True, same_task=True)
    assert answer["status"] == Status.SUCCEEDED and not (out / "labels.manifest").exists()


def test_a_full_disk_is_one_line_and_a_failed_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(this: Run) -> Outcome:
        raise OutputError(f"{this.out.folder / 'x'}: cannot be written: No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        run(a_task(full), tmp_path / "out")
    assert read_answer(tmp_path / "out")["status"] == Status.FAILED

    def nothing_fits(path: Path, content: bytes) -> None:
        raise OutputError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(runner, "write_bytes", nothing_fits)
    with pytest.raises(OutputError, match=r"task\.json: cannot be written: No space left on device"):
        run(a_task(writes_a_file), tmp_path / "other")


def test_what_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be the folder of a finished task"):
        read_answer(tmp_path)
    (tmp_path / "task.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_answer(tmp_path)
    (tmp_path / "task.json").write_text("[]")
    with pytest.raises(InputError, match="got list"):
        read_answer(tmp_path)


def test_resume_of_a_finished_task_on_other_data_says_so(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(a_task(writes_a_file, digest=lambda: "one"), out)
    with pytest.raises(OutputError, match="of another task, or of other data; --overwrite replaces it"):
        run(a_task(writes_a_file, digest=lambda: "two"), out, resume=True)


def test_names_that_are_not_utf8_do_not_break_the_answer(tmp_path: Path) -> None:
    def job(this: Run) -> Outcome:
        return Outcome({"labels": ["caf\udce9"]}, (Failure("b\udce9.png", "empty", "expected an image"),))

    run(a_task(job, dataset="d\udce9"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "task.json").read_text())["result"] == {"labels": ["caf\udce9"]}
    again = a_task(lambda this: pytest.fail("was done before"), dataset="d\udce9")
    assert run(again, tmp_path / "out", resume=True)["result"] == {"labels": ["caf\udce9"]}
