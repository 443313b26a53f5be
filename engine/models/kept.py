"""Our own models, kept in a folder and read again: `Classifier`, `BoxDetector`.

    weights.safetensors   every tensor; its bytes depend on the tensors alone
    model.json            what they are: type, labels, sizes, encoder, networks, calibration; how good it was, when and
                          from what it was trained; the SHA-256 of weights.safetensors

There are two types: `image_classification`, a `Classifier`, and `object_detection`, a `BoxDetector`. model.json is
written last: a folder without it is no model. Names in it choose among forms that are known here, sizes must be those
of the tensors. Knows nothing of training or of tasks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from engine.detect.canvases import Canvas
from engine.detect.detector import BoxDetector, Calibration
from engine.detect.network import Detector, DetectorSpec
from engine.detect.trunk import TRUNKS, widths_of
from engine.embeddings import Backbone, Embedding, Encoder, Gradients, Whitening, backbone
from engine.errors import InputError, UsageError
from engine.files import as_json, write_bytes
from engine.label.classifier import Classifier, Committee, LinearHead
from engine.label.mirrored import Mirrored
from engine.label.networks import Network, NetworkSpec
from engine.label.sight import Sight
from engine.models.documents import (
    FORMAT,
    MODEL_NAME,
    VERSION,
    WEIGHTS_NAME,
    BackboneForm,
    BoxDocument,
    BoxForm,
    CalibrationForm,
    DetectorsForm,
    Document,
    EmbeddingForm,
    EncoderForm,
    Form,
    GradientsForm,
    MirroredForm,
    NetworksForm,
    SightForm,
    WeightsRecord,
    clipped,
    file_of,
    first_problem,
    id_of,
    read_document,
    read_file,
    version_of_code,
)
from engine.models.info import ModelInfo
from engine.models.tensors import Tensors, check_tensors, shaped, stored
from engine.outfolder import OutFolder

#: CPUs of these kinds compute in bfloat16; on others it is there, at a third of the speed of float32.
_BFLOAT16_CPUS: Final = ("AVX512", "SVE")
_BFLOAT16_CUDA: Final = 8  # compute capability: Ampere

_Net = TypeVar("_Net", Network, Detector)


def save_model(
    out: OutFolder,
    model: Classifier | BoxDetector,
    *,
    folder: str = "model",
    metrics: Mapping[str, Any],
    training_digest: str,
    created: datetime,
) -> None:
    """Write a model into `folder` of `out`, whole or not at all. The same model gives the same weights and id.

    metrics: JSON values. Raises InputError for a model that could not be loaded again (NaN, an encoder of another
    kind), OutputError when it cannot be written.
    """
    form, tensors = _apart(model)
    weights = safetensors.torch.save(tensors)
    document = {
        "format": FORMAT,
        "version": VERSION,
        **form.model_dump(),
        "weights": {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)},
        "metrics": dict(metrics),
        "training_digest": training_digest,
        "created": created.isoformat(timespec="seconds"),
        "code_version": version_of_code(),
    }
    write_bytes(out.target(f"{folder}/{WEIGHTS_NAME}"), weights)
    write_bytes(out.target(f"{folder}/{MODEL_NAME}"), as_json(document))


def load_model(folder: Path, *, device: torch.device | None = None) -> Classifier:
    """The classifier that `save_model` wrote, a `Predictor`, on a device (the CPU by default).

    Its probabilities are the same to the bit on the same machine. A model that computes in bfloat16 does so in float32
    where the device is not made for it. Raises InputError when anything is missing, altered or does not fit.
    """
    document = read_document(folder)
    if not isinstance(document, Document):
        raise InputError(f"{folder}: must be a model of image_classification, got one of {document.type}")
    return _put_together(document, _tensors_of(folder, document.weights), device or torch.device("cpu"))


def load_detector(folder: Path, *, device: torch.device | None = None) -> BoxDetector:
    """The detector that `save_model` wrote, as `load_model` does for a classifier."""
    document = read_document(folder)
    if not isinstance(document, BoxDocument):
        raise InputError(f"{folder}: must be a model of object_detection, got one of {document.type}")
    return _detector_together(document, _tensors_of(folder, document.weights), device or torch.device("cpu"))


def _tensors_of(folder: Path, weights: WeightsRecord) -> Tensors:
    """The tensors of a folder. Raises InputError unless they are those that model.json tells of."""
    place, content = folder / WEIGHTS_NAME, read_file(folder, WEIGHTS_NAME)
    digest = hashlib.sha256(content).hexdigest()
    if digest != weights.sha256:
        raise InputError(f"{place}: must have the SHA-256 {weights.sha256} of {MODEL_NAME}, got {digest}")
    return Tensors.read(place, content)


def kept_info(folder: Path) -> ModelInfo:
    """What a folder's model is. Weights are there and of the right size, but not read.

    Raises InputError when the folder holds no model.
    """
    document = read_document(folder)
    form, weights = document.form, document.weights
    place, size = file_of(folder, WEIGHTS_NAME)
    if size != weights.bytes:
        raise InputError(f"{place}: must have {weights.bytes:,} bytes, got {size:,}")
    return ModelInfo(
        id=id_of(form, weights.sha256),
        type=form.type,
        labels=form.labels,
        multi_label=isinstance(form, BoxForm) or form.multi_label,
        input_size=form.input_size,
        encoder=form.encoder.shown if isinstance(form, Form) and form.encoder else None,
        networks=form.networks.count if form.networks else 0,
        calibration=form.trust,
        metrics=document.metrics,
        training_digest=document.training_digest,
        created=document.created,
        code_version=document.code_version,
        path=folder,
        bytes=weights.bytes + file_of(folder, MODEL_NAME)[1],
    )


def model_digest(model: Classifier | BoxDetector) -> str:
    """64 hexadecimal digits of every tensor and setting of a model: what it says depends on nothing else.

    The precision of networks is a setting: where timing chose it, two trainings may differ in that alone.
    """
    form, tensors = _apart(model)
    return id_of(form, hashlib.sha256(safetensors.torch.save(tensors)).hexdigest())


# ---- A detector and its parts. ----


def _apart(model: Classifier | BoxDetector) -> tuple[Form | BoxForm, dict[str, Tensor]]:
    """The settings, and the tensors by name, on the CPU. Raises InputError for what could not be loaded again."""
    return _detector_apart(model) if isinstance(model, BoxDetector) else _taken_apart(model)


def _detector_apart(detector: BoxDetector) -> tuple[BoxForm, dict[str, Tensor]]:
    spec = detector.networks[0].spec
    tensors: dict[str, Tensor] = {}
    for at, net in enumerate(detector.networks):
        assert net.spec == spec
        tensors.update({f"networks.{at}.{name}": tensor for name, tensor in net.state_dict().items()})
    trust = detector.calibration
    try:
        form = BoxForm(
            labels=detector.labels,
            width=detector.canvas.width,
            height=detector.canvas.height,
            networks=DetectorsForm(
                count=len(detector.networks),
                widths=spec.widths,
                neck=spec.neck,
                reach=spec.reach,
                flips=detector.flips,
                bfloat16=detector.bfloat16,
                trunk=spec.trunk,
            ),
            offset=tuple(trust.offset.tolist()),
            of_center=tuple(trust.of_center.tolist()),
            of_fit=tuple(trust.of_fit.tolist()),
            thresholds=detector.thresholds,
        )
    except ValidationError as error:
        raise InputError(f"detector: {first_problem(error)}") from None
    check_tensors("detector", tensors)
    return form, dict(stored(name, tensor) for name, tensor in tensors.items())


def _detector_together(document: BoxDocument, tensors: Tensors, device: torch.device) -> BoxDetector:
    form = document.networks
    widths = (*form.widths, form.neck)
    _check_room(tensors, form.count, sum(9 * width * width for width in widths), f"networks of widths {widths}")
    if form.trunk is not None and (form.trunk not in TRUNKS or form.widths != widths_of(form.trunk)):
        place = tensors.place.parent / MODEL_NAME
        raise InputError(f"{place}: networks.trunk: must be a known one of these widths, got {clipped(form.trunk)}")
    spec = DetectorSpec(form.widths, form.neck, len(document.labels), form.reach, form.trunk)
    networks = tuple(_filled(Detector(spec), tensors, f"networks.{at}.", device) for at in range(form.count))
    tensors.end()
    numbers = (
        torch.tensor(each, dtype=torch.float64) for each in (document.offset, document.of_center, document.of_fit)
    )
    return BoxDetector(
        document.labels,
        Canvas(document.height, document.width),
        networks,
        form.flips,
        form.bfloat16 and _computes_bfloat16(device),
        Calibration(*numbers),
        document.thresholds,
    )


def _check_room(tensors: Tensors, count: int, numbers: int, what: str) -> None:
    """So that no form claims memory, or time, for tensors that the file does not have."""
    least = 4 * count * numbers
    if least > tensors.bytes:
        asked = f"{count:,} {what}"
        raise InputError(f"{tensors.place}: must hold {asked}, {least:,} bytes at least, got {tensors.bytes:,}")


# ---- A classifier and its parts. ----


def _taken_apart(classifier: Classifier) -> tuple[Form, dict[str, Tensor]]:
    """The settings, and the tensors by name, on the CPU. Raises InputError for what could not be loaded again."""
    committee, head = classifier.committee, classifier.head
    tensors: dict[str, Tensor] = {}
    try:
        networks = encoder = None
        if committee is not None:
            networks, tensors = _committee_apart(committee)
            assert committee.spec.outputs == len(classifier.labels)
        if head is not None:
            encoder, of_encoder = _encoder_apart(head.encoder)
            tensors |= of_encoder
            tensors |= {"head.mean": head.mean, "head.weights": head.weights, "head.intercept": head.intercept}
        form = Form(
            labels=classifier.labels,
            multi_label=classifier.multi_label,
            image_size=classifier.image_size,
            encoder=encoder,
            networks=networks,
            calibration=CalibrationForm(
                temperature_of_networks=committee.temperature if committee else None,
                temperature_of_head=head.temperature if head else None,
                share_of_networks=classifier.share,
            ),
        )
    except ValidationError as error:
        raise InputError(f"classifier: {first_problem(error)}") from None
    check_tensors("classifier", tensors)
    return form, dict(stored(name, tensor) for name, tensor in tensors.items())


def _committee_apart(committee: Committee) -> tuple[NetworksForm, dict[str, Tensor]]:
    spec, tensors = committee.spec, {}
    for at, net in enumerate(committee.networks):
        assert net.spec == spec
        tensors.update({f"networks.{at}.{name}": tensor for name, tensor in net.state_dict().items()})
    form = NetworksForm(
        count=len(committee.networks),
        image_size=spec.image_size,
        widths=spec.widths,
        flips=committee.flips,
        bfloat16=committee.bfloat16,
    )
    return form, tensors


def _encoder_apart(encoder: Encoder) -> tuple[EncoderForm, dict[str, Tensor]]:
    if isinstance(encoder, Gradients):
        return GradientsForm(size=encoder.size), {}
    if isinstance(encoder, Backbone):
        state = {f"encoder.{name}": tensor for name, tensor in encoder.net.state_dict().items()}
        return BackboneForm(name=encoder.name, size=encoder.size), state
    if isinstance(encoder, Mirrored):
        inner, tensors = _encoder_apart(encoder.encoder)
        assert isinstance(inner, GradientsForm | BackboneForm)
        return MirroredForm(flips=encoder.flips, encoder=inner), tensors
    if isinstance(encoder, Sight):
        inner, tensors = _encoder_apart(encoder.encoder)
        assert isinstance(inner, GradientsForm | BackboneForm | MirroredForm)
        spec = encoder.network.spec
        tensors |= {f"sight.{name}": tensor for name, tensor in encoder.network.state_dict().items()}
        form = SightForm(
            image_size=spec.image_size,
            widths=spec.widths,
            outputs=spec.outputs,
            flip=encoder.flip,
            bfloat16=encoder.bfloat16,
            encoder=inner,
        )
        return form, tensors
    if isinstance(encoder, Embedding) and not isinstance(encoder.encoder, Embedding):
        inner, tensors = _encoder_apart(encoder.encoder)
        assert not isinstance(inner, EmbeddingForm)
        for at, whitening in enumerate(encoder.whitenings):
            tensors |= {f"whitening.{at}.mean": whitening.mean, f"whitening.{at}.matrix": whitening.matrix}
        return EmbeddingForm(encoder=inner, images=encoder.images), tensors
    kinds = "Gradients, a Backbone, one of them Mirrored, a Sight or an Embedding of one of them"
    raise InputError(f"classifier: the encoder of a model that is kept must be {kinds}, got {type(encoder).__name__}")


def _put_together(document: Document, tensors: Tensors, device: torch.device) -> Classifier:
    committee, head = None, None
    k, calibration = len(document.labels), document.calibration
    if document.encoder is not None:
        assert calibration.temperature_of_head is not None
        encoder = _encoder_of(document.encoder, tensors, device)
        shapes = {"mean": shaped(encoder.dim), "weights": shaped(encoder.dim, k), "intercept": shaped(k)}
        mean, weights, intercept = (tensor.to(device) for tensor in tensors.take("head.", shapes).values())
        head = LinearHead(encoder, mean, weights, intercept, calibration.temperature_of_head)
    if document.networks is not None:
        assert calibration.temperature_of_networks is not None
        networks = _networks_of(document.networks, k, tensors, device)
        bfloat16 = document.networks.bfloat16 and _computes_bfloat16(device)
        committee = Committee(networks, calibration.temperature_of_networks, document.networks.flips, bfloat16)
    tensors.end()
    return Classifier(
        document.labels, document.multi_label, document.image_size, committee, head, calibration.share_of_networks
    )


def _networks_of(form: NetworksForm, outputs: int, tensors: Tensors, device: torch.device) -> tuple[Network, ...]:
    spec = NetworkSpec(form.image_size, form.widths, outputs)
    _check_room(tensors, form.count, _filters(spec), f"networks of widths {clipped(form.widths)}")
    return tuple(_filled(Network(spec), tensors, f"networks.{at}.", device) for at in range(form.count))


def _filters(spec: NetworkSpec) -> int:
    """Numbers that the network of a form has at least."""
    return sum(9 * width * width for width in spec.widths)


def _filled(net: _Net, tensors: Tensors, prefix: str, device: torch.device) -> _Net:
    """The network with the tensors whose names begin so, ready to be asked on a device."""
    net.load_state_dict(tensors.take(prefix, net.state_dict()))
    net.requires_grad_(False)
    return net.eval().to(device).to(memory_format=torch.channels_last)


def _encoder_of(form: EncoderForm, tensors: Tensors, device: torch.device) -> Encoder:
    if isinstance(form, GradientsForm):
        return Gradients(size=form.size)
    if isinstance(form, BackboneForm):
        try:
            net = backbone(form.name, tensors.take_all("encoder."), place=tensors.place, device=device)
        except UsageError as error:
            raise InputError(f"{tensors.place.parent / MODEL_NAME}: {error}") from None
        return replace(net, size=form.size)
    if isinstance(form, MirroredForm):
        return Mirrored(_encoder_of(form.encoder, tensors, device), form.flips)
    if isinstance(form, SightForm):
        spec = NetworkSpec(form.image_size, form.widths, form.outputs)
        _check_room(tensors, 1, _filters(spec), f"network of widths {clipped(form.widths)}")
        network = _filled(Network(spec), tensors, "sight.", device)
        bfloat16 = form.bfloat16 and _computes_bfloat16(device)
        return Sight(network, form.flip, bfloat16, _encoder_of(form.encoder, tensors, device))
    encoder = _encoder_of(form.encoder, tensors, device)
    whitenings = []
    for at, part in enumerate(encoder.parts):
        wanted = {"mean": shaped(part.columns), "matrix": shaped(part.columns, part.keep)}
        taken = tensors.take(f"whitening.{at}.", wanted)
        whitenings.append(Whitening(taken["mean"].to(device), taken["matrix"].to(device)))
    return Embedding(encoder, tuple(whitenings), form.images)


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether the device is made for it, by what it says of itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= _BFLOAT16_CUDA
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith(_BFLOAT16_CPUS)
