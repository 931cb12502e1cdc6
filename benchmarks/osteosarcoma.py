"""Real fields of bone sarcoma: tumour or not, one patient left out at a time, by ImageNet and random weights.

    python -m benchmarks.osteosarcoma --tiles FOLDER [--networks 5]
    python -m benchmarks.osteosarcoma --tiles FOLDER --splits
    python -m benchmarks.osteosarcoma --tiles FOLDER --blocks [--backbone NAME] [--weights FILE]

FOLDER has fields of 1,024 px named <class>___<block>-<x>-<y>_<n>.jpg (TCIA Osteosarcoma-Tumor-Assessment, CC
BY 3.0, doi 10.7937/tcia.2019.bvhjhdas). EfficientNet-Lite0 sees each field whole or in parts; the classifier
is this library's pooled-logistic, which chooses its penalty within the training patients. Random weights are
those of several networks. Colour is the mean and the spread of red, green and blue.

Two AUCs are given. Over all fields, where the scores of four models are pooled, one for each patient left
out: its interval counts fields as if they were independent, which those of one patient are not, and is too
narrow. And within patients: the mean over those that have both kinds of field, which no difference between
patients can shift.

Of the views only the maps at 128 px put ImageNet (.78) above random (.71, five networks) above colour (.49),
with intervals that overlap; in the last layer random weights are ahead (.70 to .78 against .61 to .68). The
view was found by looking, and four patients carry no order of weights.

With --splits, patients left out beside fields dealt to five folds without regard to patients, ten times, and
how often the field nearest to one is of the same patient.

With --blocks, whether a block has viable tumour, as in a user's run: the folder is extracted and
cross-validated. A block is a bag; its patient is its site, so that folds leave patients out.
"""

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from benchmarks.auc_intervals import macro_auc_interval
from benchmarks.table import print_table, save
from features.backbones.registry import load_backbone
from features.tiles.folders import group_tiles
from mil.data.case import Case
from mil.evaluation.classification.metrics import macro_auc
from mil.learning.training import fit_model
from mil.settings import FitSettings
from tests.mil.made import made_case, probabilities

NETWORK = "efficientnet-lite0"
WINDOW_PX = 224
CLASSES = ("no tumour", "tumour")
LAST, MAPS = "last layer", "maps /4, /8, /16"
VIEWS = ((LAST, 224), (LAST, 448), (LAST, 896), (MAPS, 128), (MAPS, 256))  # and sides in pixels
COLOUR = "colour"


class Fields(NamedTuple):
    """Images (n, 1024, 1024, 3), which show tumour (n,), and the patient of each."""

    images: list[Image.Image]
    tumour: NDArray[np.int64]
    patients: NDArray[np.str_]


class Judged(NamedTuple):
    """AUC over all fields with its interval, and the mean within patients that have both kinds."""

    auc: float
    low: float
    high: float
    within: float


def patient_of(block: str) -> str:
    return re.sub(r"-?[A-Z]\d+$", "", block)


def read_fields(tiles: Path) -> Fields:
    """All fields, by name."""
    rows = [
        (file.name, block, Image.open(file).convert("RGB"))
        for block, files in group_tiles(tiles).items()
        for file in files
    ]
    rows.sort(key=lambda row: row[0])
    return Fields(
        [image for _, _, image in rows],
        np.array([int(not name.startswith("Non-Tumor")) for name, _, _ in rows]),
        np.array([patient_of(block) for _, block, _ in rows]),
    )


def networks(weights: str, seed: int) -> tuple[nn.Module, nn.Module]:
    """The network to its last layer, and the same one's intermediate maps."""
    backbone = load_backbone(NETWORK, weights, seed=seed)
    whole = backbone.module
    maps = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3))
    state = whole.network.state_dict()  # type: ignore[union-attr]
    maps.load_state_dict({name: state[name] for name in maps.state_dict()})
    return whole, maps.eval()


def vectors(
    images: Sequence[Image.Image],
    weights: str,
    seed: int = 0,
    views: Sequence[tuple[str, int]] = VIEWS,
) -> dict[str, NDArray[np.float32]]:
    """Of every view, the mean features of each field (n, D)."""
    whole, maps = networks(weights, seed)
    of_views: dict[str, NDArray[np.float32]] = {}
    with torch.inference_mode():
        for layer, side in views:
            rows = []
            for image in images:
                picture = _picture(image, side)  # (1, 3, side, side)
                if layer == LAST:
                    rows.append(whole(_windows(picture)).mean(dim=0).numpy())
                else:
                    parts = [one.mean(dim=(2, 3))[0] for one in maps(picture)]
                    rows.append(torch.cat(parts).numpy())
            of_views[f"{layer}, {side} px"] = np.stack(rows)
    return of_views


def _picture(image: Image.Image, side: int) -> Tensor:
    small = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS), dtype=np.float32)
    return torch.from_numpy((small / 255 - 0.5) / 0.5).permute(2, 0, 1)[None]


def _windows(picture: Tensor) -> Tensor:
    """(k, 3, 224, 224) beside each other."""
    rows = picture[0].unfold(1, WINDOW_PX, WINDOW_PX).unfold(2, WINDOW_PX, WINDOW_PX)
    return rows.permute(1, 2, 0, 3, 4).reshape(-1, 3, WINDOW_PX, WINDOW_PX)


def colours(images: Sequence[Image.Image]) -> NDArray[np.float32]:
    """(n, 6) mean and spread of each channel."""
    pixels = [np.asarray(image)[::4, ::4].reshape(-1, 3) / np.float32(255) for image in images]
    return np.stack([np.concatenate([rgb.mean(axis=0), rgb.std(axis=0)]) for rgb in pixels])


def judge(
    fields: Fields, rows: NDArray[np.float32], parts: NDArray[np.generic] | None = None
) -> Judged:
    """Each patient's fields, or those of each part, by a model of the others' fields."""
    parts = fields.patients if parts is None else parts
    p = np.zeros((len(rows), 2))
    for part in np.unique(parts):
        out = parts == part
        cases = list(_cases(fields, rows))
        train = [case for case, left in zip(cases, out, strict=True) if not left]
        fitted = fit_model("pooled-logistic", train, (), CLASSES, FitSettings(seeds=1), seed=0)
        for number in np.flatnonzero(out):
            p[number] = probabilities(fitted, cases[number].bags[0])
    interval = macro_auc_interval(fields.tumour, p)
    within = [
        macro_auc(fields.tumour[own], p[own])
        for own in (fields.patients == patient for patient in np.unique(fields.patients))
        if len(set(fields.tumour[own])) == 2
    ]
    auc = macro_auc(fields.tumour, p)
    assert auc is not None
    return Judged(
        auc, interval.low, interval.high, float(np.mean([v for v in within if v is not None]))
    )


def _cases(fields: Fields, rows: NDArray[np.float32]) -> Iterator[Case]:
    for number, (tumour, row) in enumerate(zip(fields.tumour, rows, strict=True)):
        yield made_case(f"field-{number:02d}", CLASSES[tumour], row[None])


def tumour_table(fields: Fields, count: int) -> list[list[str]]:
    """A row of each view: ImageNet, random as the mean of so many networks with their range, colour."""
    published = vectors(fields.images, "pretrained")
    drawn = [vectors(fields.images, "random", seed) for seed in range(count)]
    by_colour = judge(fields, colours(fields.images))
    rows = []
    for view, known in published.items():
        rows.append([view, "ImageNet", *_cells([judge(fields, known)])])
        rows.append([view, "random", *_cells([judge(fields, each[view]) for each in drawn])])
    return [*rows, ["whole field", COLOUR, *_cells([by_colour])]]


def splits_table(fields: Fields, deals: int = 10) -> list[list[str]]:
    """A row of each view: patients left out, fields dealt to five folds, and whose field is nearest."""
    views = vectors(fields.images, "pretrained") | {COLOUR: colours(fields.images)}
    of_folds = [
        np.random.default_rng(deal).permutation(np.arange(len(fields.tumour)) % 5)
        for deal in range(deals)
    ]
    rows = []
    for view, known in views.items():
        left_out = judge(fields, known)
        dealt = [judge(fields, known, folds).auc for folds in of_folds]
        rows.append([
            view, f"{left_out.auc:.2f} ({left_out.low:.2f} to {left_out.high:.2f})",
            f"{np.mean(dealt):.2f}", f"{min(dealt):.2f} to {max(dealt):.2f}",
            f"{nearest_of_same(known, fields.patients):.2f}",
        ])  # fmt: skip
    return rows


def nearest_of_same(rows: NDArray[np.float32], patients: NDArray[np.str_]) -> float:
    """Share of fields whose nearest other field is of the same patient; features on one scale."""
    z = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-6)
    squares = (z**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * z @ z.T
    np.fill_diagonal(distance, np.inf)
    return float(np.mean(patients[distance.argmin(axis=1)] == patients))


def _cells(judged: Sequence[Judged]) -> list[str]:
    aucs, within = [one.auc for one in judged], [one.within for one in judged]
    low, high = (
        float(np.mean(limit)) for limit in zip(*((j.low, j.high) for j in judged), strict=True)
    )
    spread = [f"{min(v):.2f} to {max(v):.2f}" if len(judged) > 1 else "" for v in (aucs, within)]
    return [
        f"{np.mean(aucs):.2f} ({low:.2f} to {high:.2f})", spread[0], f"{np.mean(within):.2f}", spread[1],
    ]  # fmt: skip


def write_table(tiles: Path, path: Path) -> None:
    """One row per block: viable if one of its tiles is, and the patient as site."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "slide", "label", "site"])
        for block, files in group_tiles(tiles).items():
            viable = any(tile.name.startswith("Viable___") for tile in files)
            writer.writerow([block, block, "viable" if viable else "not viable", patient_of(block)])


def run_blocks(tiles: Path, backbone: str, weights: str) -> None:
    """Extract the folder and cross-validate its blocks, by the command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(tiles, folder / "cohort.csv")
        for arguments in (
            ["extract", folder / "cohort.csv", "--slides", tiles, "--slide-mpp", "0.5", "--out",
             folder / "store", "--backbone", backbone, "--weights", weights],
            ["crossval", folder / "cohort.csv", folder / "store", "--folds", "site", "--out",
             folder / "run", "--models", "majority,tile-vote,mean,abmil"],
        ):  # fmt: skip
            subprocess.run([sys.executable, "-m", "cli", *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tiles", type=Path, required=True)
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--blocks", action="store_true")
    parser.add_argument("--splits", action="store_true")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--weights", default="random")
    options = parser.parse_args()
    if options.blocks:
        run_blocks(options.tiles, options.backbone, options.weights)
        return
    torch.set_num_threads(1)
    fields = read_fields(options.tiles)
    counts = {str(p): int((fields.patients == p).sum()) for p in np.unique(fields.patients)}
    if options.splits:
        header = [
            "view",
            "AUC, patients left out (95 %)",
            "fields dealt",
            "lowest to highest",
            "nearest of same",
        ]
        rows = splits_table(fields)
        print_table(header, rows)
        same = sum((count / len(fields.tumour)) ** 2 for count in counts.values())
        print(f"Nearest of the same patient by chance: about {same:.2f}.")
        save("osteosarcoma-splits", header, rows, {"fields of patients": counts})
        return
    header = [
        "view",
        "weights",
        "AUC of fields (95 %)",
        "of the networks",
        "AUC within patients",
        "networks'",
    ]
    rows = tumour_table(fields, options.networks)
    print_table(header, rows)
    save("osteosarcoma", header, rows, {"networks": options.networks, "fields of patients": counts})


if __name__ == "__main__":
    main()
