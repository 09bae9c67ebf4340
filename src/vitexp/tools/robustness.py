"""`vitexp robustness`: networks on changed test images, every network on the same ones, image by image.

What is measured lies beside each run, in robustness.json and answers/robust/, and is not measured again while the
checkpoint, the images and the test are the same.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitexp.bits import read_answers, write_answers
from vitexp.data.module import ShardData
from vitexp.data.shards.layout import alone
from vitexp.metrics import ROBUST
from vitexp.record import check_folder, measured_elsewhere, option
from vitexp.robust import FILE, Subject, read_tests, with_tests, write_tests
from vitexp.tools.network import TIMM, open_network
from vitexp.tools.robust_tests import (
    Images,
    Test,
    Wanted,
    as_pixels,
    attended,
    digest,
    make_tests,
    salience_by_file,
    salience_by_network,
)
from vitexp.train.answers import class_places
from vitexp.train.identity import read_checkpoint
from vitexp.train.loggers import send_again

FAR = 0.01
"""Share of images that a checkpoint may answer otherwise than its record says: another processor, another precision."""


@dataclass(frozen=True)
class _Opened:
    subject: Subject
    network: nn.Module
    size: int
    places: Sequence[int] = ()
    """Where classes have another order in the network than in the data, that of each class of the data."""


def measure(subjects: Sequence[Subject], reference: Subject | None, chosen: Any) -> list[dict[str, float]]:
    """The accuracy of each network in each test, by the name of its metric; what is new is written beside the networks.

    `reference` is the network whose gradient tells what is salient, unless --salience says otherwise.
    Raises: ValueError before anything is measured, for networks that do not take the same images, and for tests that
    they do not have.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_folder(Path(chosen.out))
    for folder in dict.fromkeys(subject.folder for subject in subjects):
        check_folder(folder, "the folder of results")
    opened = [_open(subject, device, chosen.allow_import) for subject in subjects]
    images = Images.drawn(_data(opened, chosen), chosen.images)
    opened = [_in_order(one, images.data) for one in opened]
    shift = _shift_data(images.data, chosen)
    tests = make_tests(chosen.test, _wanted(opened, images, shift, reference, chosen, device))
    able = _with_attention(opened, device) if any(test.attention for test in tests) else []
    for number, test in enumerate(tests):
        subjected = able if test.attention else opened
        pending = [one for one in subjected if not _is_done(one, test, images)]
        if pending:
            print(f"[{number + 1}/{len(tests)}] {test.name}: {len(pending)} networks", file=sys.stderr, flush=True)
            _run(test, pending, images, device)
    if chosen.wandb:
        send_again(with_tests(one.record, []) for one in subjects if one.record)
    names = {test.name for test in tests}  # of one without attention fewer are known
    return [
        {f"{ROBUST}{name}": found["accuracy"] for name, found in _known(one.subject).items() if name in names}
        for one in opened
    ]


def _known(subject: Subject) -> dict[str, dict[str, Any]]:
    return read_tests(subject.folder, subject.record)


def _open(subject: Subject, device: torch.device, allow_import: bool) -> _Opened:
    opened = open_network(str(subject.checkpoint), allow_import=allow_import)
    network = opened.network.to(device).requires_grad_(False)
    return _Opened(subject, network, opened.image_size)


def _in_order(one: _Opened, data: ShardData) -> _Opened:
    """The network with its classes in the order of the data set. Raises: ValueError for classes of other names."""
    record, checkpoint = one.subject.record, one.subject.checkpoint
    if record and option(record.config, "model.objective", "classify") != "classify":
        raise ValueError(f"{one.subject.name} was trained without classes (model.objective), so it has no accuracy")
    names = record.data.get("class_names") if record else None
    if not record and checkpoint.suffix == ".ckpt":
        names = read_checkpoint(checkpoint, "cpu").get("vitexp", {}).get("classes")
    places = class_places(names or data.class_names, data.class_names, str(data.name), one.subject.name)
    if places == sorted(places):
        return one
    one.network.register_forward_hook(lambda _, __, logits: logits[:, places])
    return replace(one, places=places)


def _data(opened: Sequence[_Opened], chosen: Any) -> ShardData:
    """The test images that all networks are measured on. Raises: ValueError where they are not the same for all."""
    sizes = {one.size: one.subject.name for one in reversed(opened)}
    if len(sizes) > 1:
        held = ", ".join(f"{size} pixels ({name})" for size, name in sizes.items())
        raise ValueError(f"the networks take images of different sizes, {held}; test those of one size at a time")
    records = [one.subject.record for one in opened if one.subject.record]
    shards = {chosen.data} if chosen.data else {option(one.config, "data.shards") for one in records}
    views = {option(one.config, "data.eval_view", "resize") for one in records} or {"resize"}
    if len(shards) != 1 or None in shards or len(views) > 1:
        held = ", ".join(sorted(map(str, shards))) or "no data set"
        raise ValueError(f"networks are tested on one data set in one view, and these name {held}: give --data SHARDS")
    asked: dict[str, Any] = {"shards": shards.pop(), "batch_size": chosen.batch_size, "eval_view": views.pop()}
    data = ShardData(**asked, image_size=opened[0].size, val_fraction=0.0)
    if not data.test_count:
        raise ValueError(f"{data.name} has no test images; give --data with a set that has")
    order = {"test": data.order_fingerprint("test")}
    for one in opened:
        record, classes = one.subject.record, getattr(getattr(one.network, "config", None), "classes", data.classes)
        if classes != data.classes:
            raise ValueError(f"{one.subject.name} knows {classes} classes, and {data.name} has {data.classes}")
        if record and measured_elsewhere(record, order) == "test":
            raise ValueError(
                f"{one.subject.name} was measured on other test images than those of {data.name} now; give --data with "
                "the set that it was trained with"
            )
    return data


def _shift_data(data: ShardData, chosen: Any) -> Images | None:
    """Other images of the same classes. Raises: ValueError where the classes are others."""
    if not chosen.shift_data:
        return None
    shift = ShardData(
        shards=chosen.shift_data, batch_size=chosen.batch_size, image_size=data.size, val_fraction=0.0,
        eval_view=data.eval_view,
    )  # fmt: skip
    class_places(data.class_names, shift.class_names, f"--shift-data {shift.name}", str(data.name))
    if not shift.test_count:
        raise ValueError(f"--shift-data {shift.name} has no test images")
    return Images.drawn(shift, chosen.images)


def _wanted(
    opened: Sequence[_Opened],
    images: Images,
    shift: Images | None,
    reference: Subject | None,
    chosen: Any,
    device: torch.device,
) -> Wanted:
    """What orders patches by salience: a file, a network by its name, or the reference of the study."""
    given, data, found = chosen.salience, images.data, {}
    if given and given.endswith(".npy"):
        found["of"] = salience_by_file(given, images)
        identity = digest(found["of"].tobytes())
    elif given or reference:
        known = next((one for one in opened if not given and one.subject == reference), None)
        source = known.network if known else _reference(given or str(reference and reference.checkpoint), data, device)
        identity = digest(b"".join(value.cpu().numpy().tobytes() for value in source.state_dict().values()))
    else:
        if "salient" in chosen.test:
            raise ValueError("--test salient needs --salience: a network, or a .npy file of one value for each pixel")
        return Wanted(images=images, ratios=chosen.ratios, device=device, shift=shift)

    def salience() -> np.ndarray:
        if "of" not in found:
            found["of"] = salience_by_network(source, images, device)
        return found["of"]

    return Wanted(
        images=images, ratios=chosen.ratios, device=device, shift=shift, salience=salience, salience_of=identity
    )


def _reference(name: str, data: ShardData, device: torch.device) -> nn.Module:
    opened = open_network(name, download=False) if not name.startswith(TIMM) else open_network(name, data.size)
    if opened.image_size != data.size:
        raise ValueError(f"--salience {name} takes images of {opened.image_size} pixels, and these have {data.size}")
    network = opened.network.to(device).requires_grad_(False)
    classes = network(_blank(data.size, device)).shape[1]
    if classes != data.classes:
        raise ValueError(f"--salience {name} knows {classes} classes, and {data.name} has {data.classes}")
    subject = Subject(name=f"--salience {name}", checkpoint=Path(name), folder=Path())
    return _in_order(_Opened(subject, network, data.size), data).network


def _blank(size: int, device: torch.device) -> Tensor:
    return torch.zeros(1, 3, size, size, device=device)


def _with_attention(opened: Sequence[_Opened], device: torch.device) -> list[_Opened]:
    """The networks whose attention can be seen. Raises: ValueError where there is none."""
    able, why = [], dict[str, str]()
    for one in opened:
        try:
            attended(one.network, _blank(one.size, device))
            able.append(one)
        except ValueError as error:
            why[one.subject.name] = str(error)
    if not able:
        raise ValueError(f"--test attended: {next(iter(why.values()))}")
    for name, reason in why.items():
        print(f"note: {name}: not in attended: {reason}", file=sys.stderr)
    return able


def _key(one: _Opened, test: Test, images: Images) -> str:
    """What a result holds for: the weights, the images, and the test."""
    shown = test.images or images
    parts = [one.subject.digest, shown.order, shown.data.size, shown.data.eval_view, test.name, dict(test.settings)]
    parts += [list(places) for places in (one.places, _places(test, images) if test.images else ()) if places]
    return digest(json.dumps(parts, sort_keys=True).encode())


def _places(test: Test, images: Images) -> list[int]:
    """The class for each label of the images that are shown."""
    known, data = images.data, (test.images or images).data
    return class_places(known.class_names, data.class_names, str(data.name), str(known.name))


def _is_done(one: _Opened, test: Test, images: Images) -> bool:
    """Whether the result is there, with its answers, of these images or of all."""
    entry = _known(one.subject).get(test.name)
    if entry is None:
        return False
    on_all = replace(test, images=test.images.whole) if test.images else test
    if entry["key"] not in (_key(one, test, images), _key(one, on_all, images.whole)):
        return False
    path = one.subject.folder / str(entry["answers"].get("file"))
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == entry["answers"].get("sha256")


def _run(test: Test, pending: Sequence[_Opened], images: Images, device: torch.device) -> None:
    """One test on all networks that lack it, batch by batch, and writes what they answered."""
    rights: list[list[np.ndarray]] = [[] for _ in pending]
    for labels, seen in _seen(test, [one.network for one in pending], images, device):
        for right, (network, batch) in zip(rights, seen, strict=True):
            with torch.no_grad():
                right.append((network(batch).argmax(1) == labels).cpu().numpy())
    for one, parts in zip(pending, rights, strict=True):
        answers, order, key = np.concatenate(parts), (test.images or images).order, _key(one, test, images)
        if test.name == "clean":
            _check_clean(one, images, answers)
        write_test(one.subject, test.name, answers, order, key=key, settings=dict(test.settings))


def _seen(
    test: Test, networks: Sequence[nn.Module], images: Images, device: torch.device
) -> Iterator[tuple[Tensor, Iterator[tuple[nn.Module, Tensor]]]]:
    """Of each batch the labels, and what each network sees: the same images, unless they are changed against it."""
    shown = test.images or images
    data, places = shown.data, torch.tensor(_places(test, images))
    for batch in shown.batches():
        samples, labels = batch.samples.numpy(), places[batch.labels].to(device)
        if test.attack:
            pixels, attack = as_pixels(batch.images, device), test.attack
            changed = ((one, 2 * attack(one, pixels, labels, samples) - 1) for one in networks)
            yield labels, changed
            continue
        if test.change:
            found = test.change(np.ascontiguousarray(batch.images.permute(0, 2, 3, 1).numpy()), samples)
            batch = batch._replace(images=torch.from_numpy(found).permute(0, 3, 1, 2))
        batch = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)
        yield labels, ((one, batch.images) for one in networks)


def write_test(subject: Subject, name: str, right: np.ndarray, order: str, **rest: Any) -> None:
    """What a network answered in a test, beside what is there already: two commands may write there at once."""
    with alone(subject.folder / f".{FILE}.lock"):
        answers: Mapping[str, Any] = write_answers(subject.folder, f"{ROBUST}{name}", right.tolist(), order)
        entry = {"accuracy": int(right.sum()) / len(right), "answers": dict(answers[f"{ROBUST}{name}"])} | rest
        write_tests(subject.folder, subject.record, _known(subject) | {name: entry})


def _check_clean(one: _Opened, images: Images, right: np.ndarray) -> None:
    """Raises: ValueError for a checkpoint that does not hold the weights that its record was measured with."""
    record = one.subject.record
    if record is None or "test_acc" not in record.answers:
        return
    places = np.searchsorted(images.data.samples("test"), images.samples)
    recorded = np.array(read_answers(one.subject.folder, record, "test_acc"))[places]
    changed = int(np.sum(recorded != right))
    if changed > max(1, FAR * len(recorded)):
        raise ValueError(
            f"{one.subject.name}: {one.subject.checkpoint} is right on {changed} of {len(recorded)} images where the "
            "record is wrong, or the reverse: the checkpoint holds other weights; train that run again"
        )
