"""Tiles per second, seconds per epoch and peak memory on made data, beside a plain loop.

    python -m benchmarks.speed [--rounds 3]

Every measurement is a process of its own; the candidates take turns, so that a busy machine hurts all
alike. CPU seconds (all threads) are the figure to trust; the ratio is against the plain loop of the
same run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.table import peak_mib, print_table, save

BACKBONE, MPP, TILE = "resnetv2_50", 0.5, 224
N_BAGS, N_TILES, DIM, EPOCHS = 16, 2000, 1024, 3


def plain_extraction(slide: Path) -> int:
    """What one writes first: read, convert, normalise, fp32, one batch after another."""
    import openslide
    import timm
    import torch

    network = timm.create_model(BACKBONE, num_classes=0).eval()
    handle = openslide.OpenSlide(slide)
    side = round(TILE * MPP / 0.25)
    corners = [(x, y) for y in range(0, 4096 - side, side) for x in range(0, 4096 - side, side)]
    with torch.inference_mode():
        for start in range(0, len(corners), 16):
            tiles = [
                handle.read_region(corner, 0, (side, side)).convert("RGB").resize((TILE, TILE))
                for corner in corners[start : start + 16]
            ]
            images = torch.from_numpy(np.stack([np.asarray(tile) for tile in tiles]))
            network((images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5)
    return len(corners)


def own_extraction(slide: Path, precision: str) -> int:
    """The library's path, tissue instead of an annotation, every tile kept."""
    from shapely import box

    from features.backbones.registry import load_backbone
    from features.extraction.embed import embed
    from features.slides.slide import open_slide
    from features.tiles.grid import SlideTiles, lay_grid

    backbone = load_backbone(BACKBONE, "random")
    with open_slide(slide) as opened:
        area = box(0, 0, 4096, 4096)
        grid = lay_grid(area, opened, tile_px=TILE, mpp=MPP, min_coverage=1.0)
        embed(SlideTiles(opened, grid), backbone, precision=precision)
    return len(grid)


def _cohort() -> list:
    from features.bags.bag import Bag
    from mil.data.case import Case

    rng = np.random.default_rng(0)
    cases = []
    for number in range(N_BAGS):
        tiles = rng.standard_normal((N_TILES, DIM), dtype=np.float32).astype(np.float16)
        bag = Bag(
            slide=str(number), features=tiles, coords_l0=np.zeros((N_TILES, 2), np.int64),
            coverage=np.ones(N_TILES, np.float32), side_l0=(1.0, 1.0), size_l0=(1, 1), mpp_l0=(1.0, 1.0),
            mpp_source="given", tile_px=1, target_mpp=1.0, recipe={},
        )  # fmt: skip
        cases.append(Case(name=str(number), label="ab"[number % 2], bags=(bag,)))
    return cases


def plain_training() -> int:
    """A gated attention head, one padded-free bag a step, fp32: the loop of a paper's repository."""
    import torch
    from torch import nn

    cases = _cohort()
    embed = nn.Sequential(nn.Linear(DIM, 128), nn.ReLU(), nn.Dropout(0.25))
    project, gate, weigh, classify = (
        nn.Linear(128, 64),
        nn.Linear(128, 64),
        nn.Linear(64, 1),
        nn.Linear(128, 2),
    )
    modules = nn.ModuleList([embed, project, gate, weigh, classify])
    optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for case in cases:
            tiles = embed(torch.from_numpy(case.bags[0].features.astype(np.float32)))
            scores = weigh(torch.tanh(project(tiles)) * torch.sigmoid(gate(tiles)))
            logits = classify((torch.softmax(scores, 0) * tiles).sum(0, keepdim=True))
            loss = nn.functional.cross_entropy(logits, torch.tensor(["ab".index(case.label)]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return EPOCHS


def own_training(model: str) -> int:
    """The library's fit on the same bags, all tiles of each."""
    from mil.learning.training import fit_model
    from mil.settings import FitSettings

    settings = FitSettings(seeds=1, epochs=EPOCHS, batch_bags=1, train_tiles=N_TILES)
    fit_model(model, _cohort(), (), ("a", "b"), settings, seed=0)
    return EPOCHS


def candidates(slide: Path) -> dict[str, Callable[[], int]]:
    """By name; within a group the first is what the others are compared with."""
    return {
        f"extract {BACKBONE}: plain loop, fp32": lambda: plain_extraction(slide),
        f"extract {BACKBONE}: mil, fp32": lambda: own_extraction(slide, "fp32"),
        f"extract {BACKBONE}: mil, auto": lambda: own_extraction(slide, "auto"),
        "train gated-abmil: plain loop": plain_training,
        "train gated-abmil: mil": lambda: own_training("gated-abmil"),
        "train abmil: mil": lambda: own_training("abmil"),
        "train mean: mil": lambda: own_training("mean"),
        "train tile-vote: mil": lambda: own_training("tile-vote"),
    }


def measure_here(name: str, slide: Path) -> dict[str, float]:
    """Run one candidate in this process: imports and slide are warm, its own start-up is counted."""
    import timm  # noqa: F401
    import torch

    torch.set_num_threads(2)
    before = time.process_time()
    started = time.perf_counter()
    items = candidates(slide)[name]()
    return {
        "items": items,
        "wall": time.perf_counter() - started,
        "cpu": time.process_time() - before,
        "peak_mib": peak_mib(),
    }


def measure(name: str, slide: Path) -> dict[str, float]:
    """Run one candidate in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed", "--one", name, "--slide", str(slide)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--slide", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure_here(asked.one, asked.slide)))
        return
    from features.synthetic import CohortSpec, write_cohort

    with tempfile.TemporaryDirectory() as folder:
        write_cohort(Path(folder), CohortSpec(cases_per_class=1))
        slide = sorted(Path(folder, "slides").iterdir())[0]
        rounds = [
            {name: measure(name, slide) for name in candidates(slide)} for _ in range(asked.rounds)
        ]
    rows = []
    for name in rounds[0]:
        group = name.split(":")[0].split()[0]
        first = next(other for other in rounds[0] if other.startswith(group))
        cpu = [r[name]["cpu"] / r[name]["items"] for r in rounds]
        ratio = [r[first]["cpu"] / r[first]["items"] / c for r, c in zip(rounds, cpu, strict=True)]
        wall = [r[name]["items"] / r[name]["wall"] for r in rounds]
        per_item = f"{1000 * median(cpu):.1f} ms" if group == "extract" else f"{median(cpu):.2f} s"
        rate = (
            f"{median(wall):.1f} tiles/s"
            if group == "extract"
            else f"{1 / median(wall):.2f} s/epoch"
        )
        peak = f"{max(r[name]['peak_mib'] for r in rounds):.0f}"
        rows.append([name, per_item, f"{min(ratio):.2f} to {max(ratio):.2f}", rate, peak])
    header = ["what", "CPU per tile or epoch", "times the plain loop", "wall", "peak MiB"]
    print_table(header, rows)
    save("speed", header, rows, {"bags": [N_BAGS, N_TILES, DIM], "tile": TILE, "mpp": MPP})


if __name__ == "__main__":
    main()
