"""A model on disk: what comes back says the same to the bit, and nothing that was altered comes back."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torchvision import models as torchvision_models

import engine.models.kept as rooms
from engine.embeddings import Backbone, Embedding, Encoder, Gradients, backbone, fit_embedding
from engine.errors import InputError, OutputError
from engine.label.classifier import Classifier, Committee, LinearHead
from engine.label.heads import fit_ridge
from engine.label.mirrored import mirrored
from engine.label.networks import Network, NetworkSpec, fit_stem, initialised
from engine.label.sight import Sight
from engine.models import (
    MODEL_NAME,
    WEIGHTS_NAME,
    Models,
    list_models,
    load_model,
    model_digest,
    read_model_info,
    save_model,
)
from engine.outfolder import OutFolder
from engine.predictions import Predictor

LABELS = ("cat", "dog", "owl")
CREATED = datetime(2024, 5, 6, 7, 8, 9, 123456)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int, side: int, seed: int = 0) -> Tensor:
    """(n, 3, side, side) uint8."""
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=rng(seed))


def network(seed: int) -> Network:
    """A network that nobody trained; its normalisations have seen images."""
    spec = NetworkSpec(16, (8, 12), len(LABELS))
    net = initialised(spec, fit_stem(noise(20, 16, seed), spec), rng(seed)).train()
    with torch.no_grad():
        net(noise(20, 16, seed).float() / 255)
        net.head.weight.normal_(0, 1, generator=rng(seed))
    return net


def committee(count: int = 2, *, bfloat16: bool = False) -> Committee:
    return Committee(tuple(network(seed) for seed in range(count)), 0.7, (True, False), bfloat16)


def head(encoder: Encoder, rows: int = 12) -> LinearHead:
    truth = torch.eye(len(LABELS))[torch.arange(rows) % len(LABELS)]
    ridge = fit_ridge(torch.randn(rows, encoder.dim, generator=rng(1)), truth, penalties=[1.0])
    return LinearHead(encoder, ridge.mean, ridge.weights, ridge.intercept, 0.02)


def whitened(encoder: Encoder) -> Embedding:
    return fit_embedding(encoder, [noise(90, encoder.size, 2)])


def shufflenet() -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = torchvision_models.shufflenet_v2_x0_5(weights=None).state_dict()
    return replace(backbone("shufflenet_v2_x0_5", state, place=Path("random")), size=64)


def sight(encoder: Encoder, *, bfloat16: bool = False) -> Sight:
    return Sight(network(7), True, bfloat16, encoder)


def plain_head() -> Classifier:
    return Classifier(LABELS, False, 16, None, head(Gradients()), 0.0)


def mixed() -> Classifier:
    return Classifier(LABELS, False, 24, committee(), head(Gradients()), 0.6)


CLASSIFIERS: dict[str, Callable[[], Classifier]] = {
    "head": plain_head,
    "head by columns": lambda: replace(
        plain_head(), head=head(whitened(Gradients(size=16)), 200)
    ),  # more rows than columns
    "networks": lambda: Classifier(LABELS, True, 16, committee(3), None, 1.0),
    "both": mixed,
    "bfloat16": lambda: replace(mixed(), committee=committee(bfloat16=True)),
    "other size": lambda: replace(mixed(), head=head(Gradients(size=48))),
    "backbone": lambda: replace(mixed(), head=head(shufflenet())),
    "sight": lambda: replace(plain_head(), head=head(whitened(sight(Gradients(size=16))))),
    "sight beside a backbone": lambda: replace(mixed(), head=head(sight(shufflenet(), bfloat16=True))),
    "mirrored": lambda: replace(plain_head(), head=head(mirrored(Gradients(), (True, True)))),
    "sight beside a mirrored encoder": lambda: replace(
        mixed(), head=head(whitened(sight(mirrored(Gradients(size=16), (True, False)))))
    ),
    "mirrored backbone": lambda: replace(plain_head(), head=head(mirrored(shufflenet(), (True, False)))),
    "whitened backbone": lambda: replace(plain_head(), head=head(whitened(shufflenet()))),
}


def kept(place: Path, classifier: Classifier, **options: Any) -> Path:
    """The folder of the model, saved."""
    given = {"metrics": {"cv_accuracy": 0.75}, "training_digest": "ab" * 32, "created": CREATED, **options}
    with OutFolder(place) as out:
        save_model(out, classifier, **given)
    return place / given.get("folder", "model")


def document_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / MODEL_NAME).read_bytes())
    return document


def rewrite(folder: Path, document: dict[str, Any], weights: bytes | None = None) -> None:
    """Put another description, or other weights with their right digest, into the folder."""
    if weights is not None:
        (folder / WEIGHTS_NAME).write_bytes(weights)
        document["weights"] = {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)}
    (folder / MODEL_NAME).write_text(json.dumps(document))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    """model.json and weights of `mixed`, to be altered."""
    folder = kept(tmp_path_factory.mktemp("both") / "out", mixed())
    return document_of(folder), (folder / WEIGHTS_NAME).read_bytes()


@pytest.fixture
def model(tmp_path: Path, both: tuple[dict[str, Any], bytes]) -> Path:
    """A folder with that model."""
    (tmp_path / "model").mkdir()
    rewrite(tmp_path / "model", json.loads(json.dumps(both[0])), both[1])
    return tmp_path / "model"


# ---- What comes back.


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_what_was_saved_says_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    classifier = CLASSIFIERS[name]()
    folder = kept(tmp_path / "out", classifier)
    chance = torch.get_rng_state()
    loaded = load_model(folder)
    assert torch.equal(torch.get_rng_state(), chance)
    predictor: Predictor = loaded
    for count in (1, 7):
        images = noise(count, 30, 5).float() / 255
        said, again = classifier.predict(images), predictor.predict(images)
        assert said.probabilities is not None and again.probabilities is not None
        assert torch.equal(said.probabilities, again.probabilities)
        assert said.probabilities.std() > 0.01  # so that equal means something
        assert (said.embeddings is None) == (again.embeddings is None)
        if said.embeddings is not None and again.embeddings is not None:
            assert torch.equal(said.embeddings, again.embeddings)
    assert (loaded.labels, loaded.share, loaded.image_size) == (LABELS, classifier.share, classifier.image_size)
    assert loaded.multi_label is classifier.multi_label
    assert model_digest(loaded) == model_digest(classifier) == read_model_info(folder).id


def test_networks_come_back_ready_to_be_asked(model: Path) -> None:
    crew = load_model(model).committee
    assert crew is not None
    assert all(not net.training for net in crew.networks)
    assert not any(weight.requires_grad for net in crew.networks for weight in net.parameters())


def test_the_same_classifier_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = kept(tmp_path / "first", mixed()), kept(tmp_path / "second", mixed())
    later = kept(tmp_path / "later", mixed(), created=datetime(2025, 1, 1), metrics={}, folder="models/two")
    assert later == tmp_path / "later/models/two"
    for name in (WEIGHTS_NAME, MODEL_NAME):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (first / WEIGHTS_NAME).read_bytes() == (later / WEIGHTS_NAME).read_bytes()
    assert read_model_info(first).id == read_model_info(later).id


def test_a_digest_hears_of_every_tensor_and_setting() -> None:
    def moved(classifier: Classifier, move: Callable[[Classifier], Tensor]) -> Classifier:
        with torch.no_grad():
            move(classifier).view(-1)[0] += 1e-3
        return classifier

    base = mixed()
    assert base.committee is not None and base.head is not None
    others = [
        replace(base, labels=("dog", "cat", "owl")),
        replace(base, multi_label=True),
        replace(base, image_size=25),
        replace(base, share=0.61),
        replace(base, committee=replace(base.committee, temperature=0.71)),
        replace(base, committee=replace(base.committee, flips=(True, True))),
        replace(base, committee=replace(base.committee, bfloat16=True)),
        replace(base, committee=replace(base.committee, networks=base.committee.networks[::-1])),
        replace(base, head=replace(base.head, temperature=0.021)),
        replace(base, head=replace(base.head, intercept=base.head.intercept + 0.1)),
        moved(mixed(), lambda each: each.committee.networks[1].stages[0].deepen_norm.running_var),  # type: ignore
        moved(mixed(), lambda each: each.head.mean),  # type: ignore[union-attr]
    ]
    assert model_digest(base) == model_digest(mixed())
    assert len({model_digest(each) for each in [base, *others]}) == 13


# ---- What is known of it.


def test_what_a_model_is(tmp_path: Path) -> None:
    folder = kept(tmp_path / "out", mixed(), metrics={"cv_accuracy": 0.75, "cv_ece": float("nan")})
    info = read_model_info(folder)
    sizes = [(folder / name).stat().st_size for name in (WEIGHTS_NAME, MODEL_NAME)]
    assert (info.type, info.labels, info.multi_label) == ("image_classification", LABELS, False)
    assert (info.input_size, info.encoder, info.networks, info.path) == ((24, 24), "gradients", 2, folder)
    told = {"temperature_of_networks": 0.7, "temperature_of_head": 0.02, "share_of_networks": 0.6}
    assert info.calibration == told
    assert info.metrics == {"cv_accuracy": 0.75, "cv_ece": None}
    assert (info.created, info.training_digest) == (datetime(2024, 5, 6, 7, 8, 9), "ab" * 32)
    assert info.bytes == sum(sizes)
    assert len(info.id) == 64
    document = document_of(folder)
    assert document["weights"] == {
        "sha256": hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest(),
        "bytes": sizes[0],
    }
    assert document["encoder"] == {"kind": "gradients", "size": 32}
    assert document["networks"]["widths"] == [8, 12]
    assert document["code_version"] == info.code_version != ""
    assert {"networks.1.head.bias", "head.mean"} < load_file(folder / WEIGHTS_NAME).keys()


def test_a_model_without_networks_or_head(tmp_path: Path) -> None:
    without_networks = read_model_info(kept(tmp_path / "a", CLASSIFIERS["whitened backbone"]()))
    assert (without_networks.networks, without_networks.encoder) == (0, "shufflenet_v2_x0_5")
    assert without_networks.calibration == {"temperature_of_head": 0.02, "share_of_networks": 0.0}
    without_head = read_model_info(kept(tmp_path / "b", CLASSIFIERS["networks"]()))
    assert (without_head.networks, without_head.encoder, without_head.multi_label) == (3, None, True)
    assert without_head.calibration == {"temperature_of_networks": 0.7, "share_of_networks": 1.0}


def test_labels_of_every_kind(tmp_path: Path) -> None:
    labels = ('a/b, "c"\n', "猫🐈" * 60, "half a pair \ud800")
    folder = kept(tmp_path / "out", replace(plain_head(), labels=labels))
    assert load_model(folder).labels == read_model_info(folder).labels == labels


def test_models_below_a_folder(tmp_path: Path, model: Path) -> None:
    kept(tmp_path / "z", plain_head())
    kept(tmp_path / "a" / "deep", plain_head())
    (model / WEIGHTS_NAME).write_bytes(b"short")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / MODEL_NAME).write_text('{"modelTopology": {}}')
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    models = list_models(tmp_path)
    assert [each.path for each in models.found] == [tmp_path / "a/deep/model", tmp_path / "z/model"]
    assert len(models.broken) == 2
    assert models.broken[0].startswith(f"{model / WEIGHTS_NAME}: must have ")
    assert "got 5" in models.broken[0]
    assert "another program's file" in models.broken[1]
    assert list_models(tmp_path / "z" / "model").found == models.found[1:]
    with pytest.raises(InputError, match="must be a folder, got nothing there"):
        list_models(tmp_path / "nowhere")
    with pytest.raises(InputError, match="must be a folder, got a file"):
        list_models(model / MODEL_NAME)


# ---- What does not come back.


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder))
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("format", "other", "another program's file"),
        ("version", 2, "version must be 1, all that this program knows, got 2"),
        ("version", True, "version must be 1, all that this program knows, got True"),
        ("type", "object_tracking", "type: must be 'image_classification', got 'object_tracking'"),
        ("labels", "cat", "labels: must be a valid list, got 'cat'"),
        ("labels", ["cat", 2, "owl"], "labels.1: must be a valid string, got 2"),
        ("labels", ["cat", "", "owl"], "labels: must be different from each other, and none empty"),
        ("labels", ["cat", "cat", "owl"], "labels: must be different from each other, and none empty"),
        ("labels", ["cat", "dog"], "head.weights must be (2184, 2) float32, got (2184, 3) float32"),
        ("multi_label", "yes", "multi_label: must be a valid boolean, got 'yes'"),
        ("image_size", 0, "image_size: must be greater than or equal to 1, got 0"),
        ("image_size", 10**9, "image_size: must be less than or equal to 4096"),
        ("code", "import os", "code: Extra inputs are not permitted, got 'import os'"),
        ("weights.file", "../../etc/passwd", "weights.file: Extra inputs are not permitted"),
        ("weights.sha256", "../../etc/passwd", "weights.sha256: String should match pattern"),
        ("weights.sha256", "0" * 64, f"must have the SHA-256 {'0' * 64} of model.json, got "),
        ("created", "yesterday", "created: must be a valid datetime"),
        ("encoder.kind", "pickle", "encoder: Input tag 'pickle'"),
        ("encoder.size", 33, "encoder.gradients.size: must be a multiple of 8, got 33"),
        ("encoder.size", 40, "head.mean must be (3588,) float32, got (2184,) float32"),
        ("encoder", None, "temperature_of_head: must be there exactly when there is an encoder"),
        ("encoder", {"kind": "backbone", "name": "../resnet18", "size": 64}, "encoder: must be gradients or one of"),
        ("encoder", {"kind": "backbone", "name": "resnet18", "size": 64}, "tensors of resnet18, got 100 missing"),
        ("networks", None, "temperature_of_networks: must be there exactly when there are networks"),
        ("networks.count", 1, "must hold the tensors that model.json tells of, got "),
        ("networks.count", 3, "networks.2.stem.weight must be (32, 3, 3, 3) float32, got nothing there"),
        ("networks.count", 10**9, "must hold 1,000,000,000 networks of widths (8, 12)"),
        (
            "networks.widths",
            [8, 16],
            "networks.0.stages.1.widen.weight must be (16, 8, 3, 3) float32, got (12, 8, 3, 3)",
        ),
        ("networks.widths", [8, 10**6], "must hold 2 networks of widths (8, 1000000)"),
        ("networks.flips", [True], "networks.flips.1: Field required"),
        ("calibration.temperature_of_head", 0.0, "temperature_of_head: must be greater than 0, got 0.0"),
        ("calibration.temperature_of_networks", float("nan"), "temperature_of_networks: must be there exactly when"),
        ("calibration.temperature_of_networks", float("inf"), "temperature_of_networks: must be there exactly when"),
        ("calibration.share_of_networks", 1.5, "share_of_networks: must be less than or equal to 1, got 1.5"),
    ],
)
def test_descriptions_that_are_refused(path: str, value: Any, told: str, model: Path) -> None:
    document = document_of(model)
    *parents, last = path.split(".")
    record = document
    for parent in parents:
        record = record[parent]
    record[last] = value
    rewrite(model, document)
    assert told in refused(model)


def test_nothing_to_mix_is_no_mixture(tmp_path: Path) -> None:
    folder = kept(tmp_path / "out", plain_head())
    document = document_of(folder)
    document["calibration"]["share_of_networks"] = 0.5
    rewrite(folder, document)
    assert "share_of_networks: must be 0, there is nothing to mix, got 0.5" in refused(folder)


def _without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def _nan(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors["networks.0.stages.0.widen.weight"][1, 2, 0, 0] = torch.nan
    return tensors


@pytest.mark.parametrize(
    ("alter", "told"),
    [
        (_without("head.mean"), "head.mean must be (2184,) float32, got nothing there"),
        (_without("networks.1.head.bias"), "networks.1.head.bias must be (3,) float32, got nothing there"),
        (lambda each: {**each, "head.mean": torch.zeros(2)}, "head.mean must be (2184,) float32, got (2,) float32"),
        (lambda each: {**each, "head.mean": each["head.mean"].half()}, "must be float32 or int64, got (2184,) float16"),
        (lambda each: {**each, "head.intercept": torch.ones(3).long()}, "must be (3,) float32, got (3,) int64"),
        (lambda each: {**each, "more": torch.zeros(2)}, "model.json tells of, got 1 more ('more')"),
        (_nan, "'networks.0.stages.0.widen.weight' must be finite, got NaN or infinity"),
    ],
)
def test_weights_that_are_refused(
    alter: Callable[[dict[str, Tensor]], dict[str, Tensor]], told: str, model: Path
) -> None:
    rewrite(model, document_of(model), save(alter(load_file(model / WEIGHTS_NAME))))
    assert told in refused(model)


def test_files_that_are_none(model: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    weights = (model / WEIGHTS_NAME).read_bytes()
    rewrite(model, document_of(model), pickle.dumps(Trap()))
    assert "must be tensors as safetensors, cannot be read" in refused(model)
    assert not marker.exists()
    rewrite(model, document_of(model), weights[:-8])
    assert "must be tensors as safetensors, cannot be read" in refused(model)

    (model / WEIGHTS_NAME).write_bytes(weights[:-1] + b"\x01")
    assert "must have the SHA-256" in refused(model)
    (model / WEIGHTS_NAME).unlink()
    assert "must be a file of a model, got nothing there" in refused(model)
    os.mkfifo(model / WEIGHTS_NAME)
    assert "got something that is not a regular file" in refused(model)

    for content, told in (
        (b"", "must be JSON"),
        (b"{", "must be JSON"),
        (b"\xff\xfe\x00", "must be JSON"),
        (b"[" * 100_000, "must be JSON"),
        (b"[]", "another program's file"),
        (b'{"format": "labelengine-model", "version": 1}', "labels: Field required"),
        (b" " * (16 * 2**20 + 1), "must have at most 16,777,216 bytes, got 16,777,217"),
    ):
        (model / MODEL_NAME).write_bytes(content)
        assert told in refused(model)
    (model / MODEL_NAME).unlink()
    assert "got nothing there" in refused(model)
    assert "got nothing there" in refused(tmp_path / "nowhere")


def test_links_that_lead_out_are_not_followed(model: Path, tmp_path: Path) -> None:
    for name in (WEIGHTS_NAME, MODEL_NAME):
        (model / name).rename(tmp_path / name)
        (model / name).symlink_to(tmp_path / name)
        assert "got a link that leads out of it" in refused(model)
        (model / name).unlink()
        (tmp_path / name).rename(model / name)
    (tmp_path / "link").symlink_to(model)
    assert load_model(tmp_path / "link").labels == LABELS


def test_bfloat16_only_where_the_machine_is_made_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = kept(tmp_path / "out", CLASSIFIERS["bfloat16"]())
    for capability, expected in (("AVX512", True), ("AVX2", False), ("DEFAULT", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda told=capability: told)
        crew = load_model(folder).committee
        assert crew is not None and crew.bfloat16 is expected


# ---- What is not saved.


def test_a_classifier_that_could_not_come_back_is_not_saved(tmp_path: Path) -> None:
    class Other:
        name, size, dim = "other", 32, 4

    bad = plain_head()
    assert bad.head is not None
    for classifier, told in (
        (
            replace(bad, head=replace(bad.head, intercept=torch.full((3,), torch.nan))),
            "'head.intercept' must be finite",
        ),
        (
            replace(bad, head=replace(bad.head, temperature=float("nan"))),
            "temperature_of_head: must be a finite number, got nan",
        ),
        (
            replace(bad, head=replace(bad.head, encoder=Other())),
            "must be Gradients, a Backbone, one of them Mirrored, a Sight or an Embed",
        ),
        (replace(bad, share=0.5), "there is nothing to mix, got 0.5"),
    ):
        with pytest.raises(InputError, match=r"^classifier: ") as caught:
            kept(tmp_path / told[:9].strip("'."), classifier)
        assert told in str(caught.value)
    assert not list(tmp_path.rglob("model"))


def test_a_model_whose_writing_ends_half_way_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = rooms.write_bytes

    def full(path: Path, content: bytes) -> None:
        if path.name == MODEL_NAME:
            raise OutputError(f"{path}: cannot be written: No space left on device")
        written(path, content)

    monkeypatch.setattr(rooms, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        kept(tmp_path / "out", plain_head())
    assert sorted(path.name for path in (tmp_path / "out/model").iterdir()) == [WEIGHTS_NAME]
    assert list_models(tmp_path) == Models((), ())
    monkeypatch.undo()
    with OutFolder(tmp_path / "out", overwrite=True) as out:
        save_model(out, plain_head(), metrics={}, training_digest="", created=CREATED)
    assert load_model(tmp_path / "out/model").labels == LABELS
