"""The commands of auto labeling: label, confirm what it made, and hold it against the truth."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from engine.cli.arguments import add_command, add_field, add_home, add_map, add_parameters, add_task_arguments
from engine.cli.requests import run_body
from engine.cli.terminal import DONE, in_one_line, print_json, say, say_failures
from engine.dataset import FORMATS, Dataset, read_samples
from engine.tasks.parameters import parameters_of
from engine.tasks.request import parse_request, request_body
from engine.tasks.schema import AUTO_LABEL, PRE_LABEL, SmartTaskConfig, TaskRequest

_LABEL_FIELDS: Final = ("algorithm_type", "confidence_scope", "key_sample_output")
_PRELABEL_FIELDS: Final = ("confidence_scope", "key_sample_output")
#: What parameters mean where nothing is trained.
_PRELABEL_MEANINGS: Final = {
    "label_type": "what the model must label: 0 images, 1 boxes",
    "score_threshold": "confidence from which boxes are given; left out: the model's own",
}
_CLASSES_SHOWN: Final = 40


def add_label(commands: Any) -> None:
    label = add_command(
        commands,
        "label",
        _label,
        "label the rest of a data set of which people labeled a few images",
        "Learn from the labeled images of DATA and label the others; what people said stays. It needs two labels,\n"
        "each on five images (--min-per-class); of boxes one label is enough. OUT then holds report.html (look at it\n"
        "first), result.manifest, the model, task.json, and labels.csv and probabilities.npz, or where people drew\n"
        "boxes boxes.csv and annotations/ with PASCAL VOC files.",
        "labelengine label data.manifest --out labeled --algorithm-type fast\n"
        "labelengine label data --out labeled --algorithm-type accurate --minutes 10",
    )
    label.add_argument(
        "dataset",
        metavar="DATA",
        help="a manifest or a folder; the folders of a tree are labels, VOC, YOLO and COCO files boxes",
    )
    add_task_arguments(label)
    for name in _LABEL_FIELDS:
        add_field(label, name, SmartTaskConfig.model_fields[name])
    add_field(label, "collect_key_sample", TaskRequest.model_fields["collect_key_sample"])
    add_parameters(label, parameters_of(AUTO_LABEL))


def add_prelabel(commands: Any) -> None:
    prelabel = add_command(
        commands,
        "prelabel",
        _prelabel,
        "label a data set with a model that is there already",
        "Label the images of DATA that nobody labeled with an existing model, ours or another's, and find the hard\n"
        "examples among them. OUT is as that of label. With --unseen the images that people labeled tell how far the\n"
        "model can be trusted, and what the hard coefficient means.",
        "labelengine prelabel photos --model labeled/model --out prelabeled\n"
        "labelengine prelabel data.manifest --model animals:2.0 --unseen --out prelabeled",
    )
    prelabel.add_argument("dataset", metavar="DATA", help="a manifest or a folder")
    prelabel.add_argument(
        "--model", metavar="MODEL", required=True, help="a folder, or the id or NAME[:VERSION] of an imported model"
    )
    add_task_arguments(prelabel)
    for name in _PRELABEL_FIELDS:
        add_field(prelabel, name, SmartTaskConfig.model_fields[name])
    add_field(prelabel, "collect_key_sample", TaskRequest.model_fields["collect_key_sample"])
    add_parameters(prelabel, parameters_of(PRE_LABEL), _PRELABEL_MEANINGS)
    add_home(prelabel)


def add_confirm(commands: Any) -> None:
    confirm = add_command(
        commands,
        "confirm",
        _confirm,
        "make automatic labels a person's, or correct them",
        "Confirm the automatic labels in OUT/result.manifest: all of them, those below a difficulty, or those of the\n"
        "samples in a file; what several of these choose adds up. --labels corrects: the labels of decisions.jsonl or\n"
        "labels.csv replace the automatic ones, no label takes them away. What a person has labeled stays.",
        "labelengine confirm labeled --below 0.1 --by anna\n"
        "labelengine confirm labeled --labels decisions.jsonl --by anna\n"
        "labelengine confirm labeled --all --labels decisions.jsonl --by anna",
    )
    confirm.add_argument("out", metavar="OUT", type=Path, help="the folder of a finished labeling, or a manifest")
    confirm.add_argument("--all", action="store_true", help="confirm every automatic label")
    confirm.add_argument(
        "--below",
        metavar="X",
        type=float,
        help="confirm what is less difficult than X: the hard coefficient, else 1 less the lowest confidence",
    )
    confirm.add_argument(
        "--samples",
        metavar="FILE",
        type=Path,
        help="confirm the samples that FILE names: a source a line, a .jsonl, .csv or .manifest",
    )
    confirm.add_argument("--labels", metavar="FILE", type=Path, help="decisions.jsonl or labels.csv with other labels")
    confirm.add_argument("--by", metavar="NAME", help="who says so, kept in the manifest as human/NAME")
    confirm.add_argument("--label-type", type=int, choices=(0, 1), help="0: labels of images, 1: boxes, where both are")
    confirm.add_argument("--replace", action="store_true", help="let --labels change labels that a person gave, too")
    add_map(confirm)


def add_evaluate(commands: Any) -> None:
    evaluate = add_command(
        commands,
        "evaluate",
        _evaluate,
        "compare automatic labels with the truth",
        "Compare what auto labeling said with the labels that people give in TRUTH: accuracy, classes, confusions, of\n"
        "boxes mean average precision, and whether the confidences can be trusted. OUT/evaluation.json holds it all.\n"
        "What people had labeled before the run is left out.",
        "labelengine evaluate labeled --truth all-labels.manifest\nlabelengine evaluate labeled --truth tree --json",
    )
    evaluate.add_argument("out", metavar="OUT", type=Path, help="the folder of a finished labeling")
    evaluate.add_argument("--truth", metavar="TRUTH", required=True, help="a manifest or a folder with the true labels")
    evaluate.add_argument("--format", choices=FORMATS, help="what TRUTH is, where that is not found out rightly")
    evaluate.add_argument("--json", action="store_true", help="print evaluation.json on stdout")
    add_map(evaluate)


def _label(options: argparse.Namespace) -> int:
    names = [*_LABEL_FIELDS, "collect_key_sample", *parameters_of(AUTO_LABEL)]
    body = request_body(AUTO_LABEL, {name: getattr(options, name) for name in names})
    return run_body(options, parse_request(body), plain=False)


def _prelabel(options: argparse.Namespace) -> int:
    from engine.models import Shelf

    names = [*_PRELABEL_FIELDS, "collect_key_sample", *parameters_of(PRE_LABEL)]
    body = request_body(PRE_LABEL, {name: getattr(options, name) for name in names})
    model = Shelf(options.home).meant(options.model)
    return run_body(options, parse_request(body), plain=False, model=model)


def _confirm(options: argparse.Namespace) -> int:
    from engine.tasks.confirming import confirm

    done = confirm(
        options.out,
        all=options.all,
        below=options.below,
        samples=options.samples,
        labels=options.labels,
        by=options.by,
        replace_human=options.replace,
        label_type=options.label_type,
        map=options.map,
    )
    print(f"{done.path}: {done.confirmed:,} confirmed, {done.corrected:,} corrected, {done.rejected:,} rejected")
    if done.kept:
        print(f"{done.kept:,} keep the labels that a person gave them (--replace changes them too)")
    if done.waiting:
        print(f"{done.waiting:,} are still to be confirmed")
    return DONE


def _evaluate(options: argparse.Namespace) -> int:
    from engine.tasks.candidates import CANDIDATES_NAME
    from engine.tasks.evaluating import evaluate

    boxes = (options.out / CANDIDATES_NAME).is_file()
    say(f"reading {options.truth} ...")
    truth = read_samples(options.truth, format=options.format, map=options.map, drawings=boxes)
    for note in truth.notes:
        say(note)
    say_failures(truth.failures)
    if boxes:
        return _evaluate_boxes(options, truth)
    answer = evaluate(options.out, truth, map=options.map).answer()
    if options.json:
        print_json(answer)
        return DONE
    for note in answer["notices"]:
        say(note)
    for line in _evaluation_lines(answer):
        print(line)
    print(f"all of it is in {options.out / 'evaluation.json'}")
    return DONE


def _evaluate_boxes(options: argparse.Namespace, truth: Dataset) -> int:
    from engine.tasks.evaluating_boxes import evaluate_boxes

    answer = evaluate_boxes(options.out, truth, map=options.map)
    if options.json:
        print_json(answer)
        return DONE
    for note in answer["notices"]:
        say(note)
    print(
        f"{answer['evaluated_sample_count']:,} of {answer['total_sample_count']:,} images compared with "
        f"{answer['truth']}; {answer['labeled_before_count']:,} that people had labeled before are left out"
    )
    print(f"mAP50 {_figure(answer['map50'])}, mAP75 {_figure(answer['map75'])}, mAP50:95 {_figure(answer['map50_95'])}")
    print(
        f"{answer['right_count']:,} of {answer['given_count']:,} boxes are right (IoU 0.5), "
        f"{answer['missed_count']:,} objects have none; calibration error (ECE) {_figure(answer['ece'])}"
    )
    print("    boxes   precision     recall      AP50   AP50:95  label")
    for each in answer["classes"]:
        columns = ("precision", "recall", "ap50", "ap50_95")
        figures = "".join(f"  {_figure(each[column]):>9}" for column in columns)
        print(f"{each['support']:>9,}{figures}  {in_one_line(each['label'])}")
    print(f"all of it is in {options.out / 'evaluation.json'}")
    return DONE


def _evaluation_lines(answer: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{answer['evaluated_sample_count']:,} of {answer['total_sample_count']:,} images compared with "
        f"{answer['truth']}; {answer['labeled_before_count']:,} that people had labeled before are left out"
    )
    if answer["missing_count"]:
        yield f"{answer['missing_count']:,} of them have no prediction, which counts as wrong"
    if answer["multi_label"]:
        names = {"mean average precision": "mean_average_precision", "F1": "micro_f1", "macro F1": "macro_f1"}
        names["all labels right"] = "exact"
    else:
        names = {"accuracy": "accuracy", "macro accuracy": "macro_accuracy"}
    yield ", ".join(f"{words} {_figure(answer[name])}" for words, name in names.items())
    yield f"calibration error (ECE) {_figure(answer['ece'])}, Brier skill {_figure(answer['brier_skill'])}"
    yield from _class_table(answer["classes"], multi_label=answer["multi_label"])
    if answer.get("largest_confusions"):
        yield "taken for another label, most often:"
        for each in answer["largest_confusions"]:
            yield f"{each['count']:>9,}  {in_one_line(each['truth'])} as {in_one_line(each['predicted'])}"


def _class_table(classes: Sequence[dict[str, Any]], *, multi_label: bool) -> Iterator[str]:
    columns = ["precision", "recall", "f1", *(["average_precision"] if multi_label else [])]
    heads = ["precision", "recall", "F1", *(["avg prec."] if multi_label else [])]
    yield "  samples" + "".join(f"  {head:>9}" for head in heads) + "  label"
    shown = classes
    if len(classes) > _CLASSES_SHOWN:  # the worst ones, in their order
        worst = sorted(range(len(classes)), key=lambda at: classes[at]["f1"] or 0.0)[:_CLASSES_SHOWN]
        shown = [classes[at] for at in sorted(worst)]
    for each in shown:
        figures = "".join(f"  {_figure(each[column]):>9}" for column in columns)
        yield f"{each['support']:>9,}{figures}  {in_one_line(each['label'])}"
    if len(shown) < len(classes):
        yield f"and {len(classes) - len(shown):,} labels with a higher F1"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
