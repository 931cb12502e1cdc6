"""Two processes come to what one comes to, with half of each step."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lessons import QUICK, RECIPE, lessons, results, small_inputs, tune
from safetensors.torch import load_file
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mil.errors import FitError
from mil.finetune.distributed import Ranks, ranks
from mil.finetune.training import finetune

REPO = Path(__file__).parents[3]
# A norm over groups of channels: with a norm over the batch, half a batch would have other statistics.
EQUAL = replace(RECIPE, backbone="test_efficientnet_gn")
SETTINGS = replace(QUICK, epochs=2, dropout=0.0, early_stopping="always")
HEAD = replace(SETTINGS, train="head", augment=("off",), patience=1)


def train_together(folder):
    """The body of each process."""
    small_inputs(pytest.MonkeyPatch())
    torch.set_num_threads(1)
    with ranks("cpu", workers=1) as together:
        assert (together.size, together.first) == (2, together.number == 0)
        finetune(lessons_of(folder), EQUAL, SETTINGS, folder / "two", ranks=together)
        finetune(lessons_of(folder), EQUAL, HEAD, folder / "two-heads", ranks=together)
        drifted = torch.full((3,), float(together.number))
        try:
            together.check_equal([drifted])
        except FitError as error:
            (folder / f"rank-{together.number}.json").write_text(json.dumps(str(error)))


def lessons_of(folder):
    from features.extraction.jobs import SlideJob
    from mil.finetune.tiles import LabelledSlide

    names = sorted({path.name.rsplit("-", 2)[0] for path in (folder / "tiles").iterdir()})
    return [
        LabelledSlide(
            SlideJob(
                slide=name, case=name, mpp=0.5, from_tiles=True,
                files=tuple(sorted((folder / "tiles").glob(f"{name}-*.png"))),
            ),
            name.split("-")[0],
        )
        for name in names
    ]  # fmt: skip


def test_two_processes_train_the_network_of_one(tmp_path, forked):
    lessons(tmp_path / "tiles")
    as_torchrun = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        start_method="forkserver",
    )  # fmt: skip
    elastic_launch(as_torchrun, train_together)(tmp_path)
    for number in (0, 1):  # each has refused weights that differ, after training made none
        assert "have diverged" in json.loads((tmp_path / f"rank-{number}.json").read_text())
    tune(lessons_of(tmp_path), tmp_path / "one", SETTINGS, EQUAL)
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    start = tmp_path / "start"
    tune(lessons_of(tmp_path), start, replace(SETTINGS, train="head", epochs=1), EQUAL)
    moved = 0.0
    for name, value in load_file(start / "weights.safetensors").items():
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=2e-5)
        moved = max(moved, float((one[name] - value).abs().max()))
    tune(lessons_of(tmp_path), tmp_path / "one-head", HEAD, EQUAL)
    heads = [
        load_file(tmp_path / name / "classifier.safetensors") for name in ("one-head", "two-heads")
    ]
    for name, value in heads[0].items():
        torch.testing.assert_close(value, heads[1][name], rtol=1e-3, atol=2e-5)
    assert not (tmp_path / "two-heads" / "frozen").exists()
    assert moved > 1e-3  # the tolerance is far below what was learnt
    cards = [json.loads((tmp_path / name / "card.json").read_text()) for name in ("one", "two")]
    for losses in ("losses", "valid_losses"):
        assert cards[0][losses] == pytest.approx(cards[1][losses], rel=1e-4)


def test_steps_too_small_to_share_are_refused(tmp_path):
    slides = lessons(tmp_path / "tiles")
    with pytest.raises(FitError, match="40 processes share steps of 8 tiles"):
        finetune(
            slides,
            RECIPE,
            QUICK,
            tmp_path / "out",
            ranks=Ranks(0, 40, torch.device("cpu"), workers=1),
        )
    assert not (tmp_path / "out").exists() or not results_exist(tmp_path / "out")


def results_exist(folder):
    return (folder / "weights.safetensors").exists() and bool(results(folder))


def test_torch_distributed_is_imported_in_one_file():
    files = [
        path
        for package in ("cli", "features", "mil")
        for path in (REPO / package).rglob("*.py")
        if "torch.distributed" in path.read_text().split('"""', 2)[-1]
    ]
    assert [path.name for path in files] == ["distributed.py"]
