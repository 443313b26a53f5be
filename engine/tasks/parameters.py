"""Options that the tables of the specification lack: entries of `config.parameters` in a request (label and
value, table 11), and flags of the same name on the command line.

`Parameters` is the one list of them: name, type, range, default, description. It knows nothing of how the
request was sent, and nothing of where the data are read from or written to (that is said beside a request).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from engine.errors import UsageError
from engine.hard.config import HardConfig, parsed_weights
from engine.hard.reasons import OPERATOR_WEIGHTS, OPERATORS
from engine.tasks.schema import AUTO_DEPLOY, AUTO_GROUPING, AUTO_LABEL, PRE_LABEL, TrainingParameter
from engine.tasks.values import Count, Name, Positive, Steps, Truth, Unit, did_you_mean, message, shown, whole

_DEVICE: Final = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")


def _device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        raise ValueError(f"must be auto, cpu, cuda or cuda:N, got {shown(name)}")
    return name


def _precision(name: str) -> str:
    if name not in ("auto", "bfloat16", "float32"):
        raise ValueError(f"must be auto, bfloat16 or float32, got {shown(name)}")
    return name


def _algo_config(text: str) -> str:
    return _weights("comprehensive_algo_config", text, lambda weights: HardConfig(algo_config=weights))


def _aug_op_config(text: str) -> str:
    return _weights("aug_op_config", text, lambda weights: HardConfig(operators=weights))


def _weights(name: str, text: str, check: Callable[[dict[str, float]], object]) -> str:
    try:
        check(parsed_weights(name, text))
    except UsageError as error:
        raise ValueError(str(error).removeprefix(f"{name}: ")) from None
    return text


def _parameter(description: str, default: object = None) -> Any:
    return Field(default, description=description)


class Parameters(BaseModel):
    """Every parameter with its value; None means that the task chooses."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    algo_hard_threshold: Unit | None = _parameter("coefficient from which on an image is hard; left out: 0.1")
    all: Truth = _parameter("group labeled images too", False)
    aug_op_config: Annotated[str, AfterValidator(_aug_op_config)] | None = _parameter(
        f"alterations that predictions should survive, name:weight+..., of {', '.join(OPERATORS)}; "
        f"left out: {', '.join(OPERATOR_WEIGHTS)}"
    )
    batch_size: Annotated[int, whole(2)] | None = _parameter("images a training step")
    compile: Truth = _parameter("networks are compiled before they are trained; needs a C++ compiler", False)
    comprehensive_algo_config: Annotated[str, AfterValidator(_algo_config)] | None = _parameter(
        "miners of hard examples, name:weight+...; left out: all, learned from the labels"
    )
    device: Annotated[str, AfterValidator(_device)] = _parameter("auto, cpu, cuda or cuda:N", "auto")
    encoder: Name | None = _parameter("torchvision backbone that sees the content; needs weights")
    epochs: Count | None = _parameter(
        "times that a network sees every labeled image; accurate: so many steps in each training"
    )
    image_size: Annotated[int, whole(8, 4096)] | None = _parameter("side that images are trained at, in pixels")
    label_type: Annotated[int, whole(0, 1)] | None = _parameter(
        "0: image classification, 1: object detection; left out: what people labeled most"
    )
    learning_rate: Positive | None = _parameter("peak learning rate")
    max_pixels: Count = _parameter("larger images are recorded as failures, not read", 300_000_000)
    min_per_class: Annotated[int, whole(2)] = _parameter("labeled images that every label needs", 5)
    minutes: Positive | None = _parameter(
        "time budget of the whole task; left out: by the number of labels and images, of images 1 to 10 (fast) or 3 to "
        "30 (accurate), of boxes 4 to 15 or 8 to 30; on a GPU a quarter, of boxes a sixth"
    )
    networks: Annotated[int, whole(1, 8)] | None = _parameter("networks that are trained")
    precision: Annotated[str, AfterValidator(_precision)] = _parameter("auto (timed), bfloat16 or float32", "auto")
    score_threshold: Unit | None = _parameter(
        "confidence from which boxes are given; left out: one a label, best by F1 on labels not seen"
    )
    restarts: Annotated[int, whole(1, 100)] = _parameter("starts of the clustering; the best one counts", 10)
    seed: Annotated[int, whole(0, 2**32 - 1)] = _parameter("same seed, same result", 0)  # the range numpy takes
    steps: Steps | None = _parameter(
        "training steps, as task.json has them; with its networks and precision they repeat a run exactly, where "
        "minutes cannot"
    )
    threads: Annotated[int, whole(1, 1024)] | None = _parameter("threads; left out: one a core")
    unseen: Truth = _parameter(
        "the model was not trained on the labeled images: they tell how far it can be trusted", False
    )
    weights: Name | None = _parameter("local file with the weights of the encoder")


def hard_config(options: Parameters) -> HardConfig:
    """What the parameters say of hard examples."""
    algo, aug = options.comprehensive_algo_config, options.aug_op_config
    return HardConfig(
        None if algo is None else parsed_weights("comprehensive_algo_config", algo),
        OPERATOR_WEIGHTS if aug is None else parsed_weights("aug_op_config", aug),
        options.algo_hard_threshold,
    )


_EVERY: Final = frozenset({AUTO_LABEL, PRE_LABEL, AUTO_GROUPING, AUTO_DEPLOY})
_GROUPING: Final = frozenset({AUTO_GROUPING})
_TRAINING: Final = frozenset({AUTO_LABEL, AUTO_DEPLOY})
_GIVEN: Final = frozenset({PRE_LABEL})

_TRAINING_PARAMETERS: Final = (
    *("batch_size", "compile", "epochs", "image_size", "learning_rate", "min_per_class", "minutes", "networks"),
    *("precision", "steps"),
)

#: Which tasks take which parameter.
PARAMETER_TASKS: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("device", "max_pixels", "seed", "threads"), _EVERY),
    **dict.fromkeys(("all", "restarts"), _GROUPING),
    **dict.fromkeys(("encoder", "weights"), _GROUPING | _TRAINING | _GIVEN),
    **dict.fromkeys(_TRAINING_PARAMETERS, _TRAINING),
    **dict.fromkeys(("label_type", "score_threshold"), _TRAINING | _GIVEN),
    **dict.fromkeys(("algo_hard_threshold", "aug_op_config", "comprehensive_algo_config"), _TRAINING | _GIVEN),
    "unseen": _GIVEN,
}


def parameters_of(task_type: str) -> list[str]:
    """The names of the parameters that a task takes, sorted."""
    return sorted(name for name, tasks in PARAMETER_TASKS.items() if task_type in tasks)


def read_parameters(entries: Sequence[TrainingParameter] | None, task_type: str) -> Parameters:
    """The typed parameters of a task.

    Raises UsageError, a line each, for a name that the task does not take or that comes twice, and for a
    wrong value.
    """
    problems = "\n".join(parameter_problems(entries, task_type))
    if problems:
        raise UsageError(problems)
    return Parameters.model_validate({entry.label: entry.value for entry in entries or ()})


def parameter_problems(entries: Iterable[TrainingParameter] | None, task_type: str) -> Iterator[str]:
    """What is wrong with these entries, one line each, with the path in the request."""
    seen: set[str] = set()
    for position, entry in enumerate(entries or ()):
        problem = "given twice" if entry.label in seen else _problem(entry, task_type)
        if problem:
            name = f"{shown(entry.label)[1:-1]}: " if entry.label else ""
            yield f"config.parameters[{position}]: {name}{problem}"
        if entry.label:
            seen.add(entry.label)


def _problem(entry: TrainingParameter, task_type: str) -> str | None:
    if not entry.label:
        return "label: must be the name of a parameter, got none"
    if entry.label not in PARAMETER_TASKS:
        return f"unknown parameter{did_you_mean(entry.label, parameters_of(task_type))}"
    tasks = PARAMETER_TASKS[entry.label]
    if task_type not in tasks:
        return f"belongs to {' and '.join(sorted(tasks))}, not to {task_type}"
    if entry.value is None:
        return "value: must be given"
    try:
        Parameters.model_validate({entry.label: entry.value})
    except ValidationError as error:
        return message(error.errors(include_url=False)[0])
    return None
