"""Extraction from slide to bag beside LazySlide and beside the limit of the machine.

    python -m benchmarks.extraction --peer-python VENV/bin/python [--rounds 3]
    python -m benchmarks.extraction --scaling

The peer lives in an environment of its own, which `python3 -m venv VENV && VENV/bin/pip install lazyslide`
makes. It lays its tiles, 256 px at 0.5 micrometres from a 40x slide; the same tiles are then extracted here
with the same ResNet50. Every measurement is a process of its own and they take turns. CPU seconds are the
figure to trust; wall time means something only on an idle machine. The limit is the decoding of each JPEG
tile at half size plus the network's arithmetic at the speed of one large bf16 convolution.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.reading import decode_once, write_slide
from benchmarks.table import peak_mib, print_table, save

THREADS = 2
SIDE = SCALING_SIDE = 10_240
SIZES = (1_000, 10_000, 100_000)
TINY = "test_resnet.r160_in1k"


def peer(python: Path, folder: Path, threads: int) -> dict[str, float]:
    """LazySlide, in its own environment."""
    script = Path(__file__).with_name("lazyslide_peer.py")
    files = [folder / "slide.tif", folder / "resnet50.pth", folder / "peer.npz"]
    command = [str(python), str(script), *map(str, files), str(threads)]
    subprocess.run(
        command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)}
    )
    with np.load(folder / "peer.npz") as held:
        found = {name: float(held[name]) for name in ("cpu", "wall", "peak_mib")}
        return found | {"items": len(held["coords"])}


def ours(folder: Path, precision: str, workers: int) -> dict[str, float]:
    """The tiles of the peer, slide to bag; in a process of its own."""
    command = [
        sys.executable, "-m", "benchmarks.extraction", "--ours", str(folder), precision, str(workers),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def given(folder: Path, coords: np.ndarray, side: float, mpp: float) -> None:
    """A bag whose tiles are to be read."""
    from features.bags.bag import Bag, write_bag

    bag = Bag(
        slide="slide", features=np.ones((len(coords), 1), np.float32), coords_l0=coords,
        coverage=np.ones(len(coords), np.float32), side_l0=(side, side), size_l0=(1, 1),
        mpp_l0=(0.25, 0.25), mpp_source="given", tile_px=round(side * 0.25 / mpp), target_mpp=mpp, recipe={},
    )  # fmt: skip
    write_bag(folder / "given.h5", bag)


def extract_here(folder: Path, precision: str, workers: int) -> dict[str, float]:
    from features.bags.bag import read_bag
    from features.extraction.extract import ExtractionRun
    from features.extraction.jobs import SlideJob
    from features.extraction.outputs import store_specs
    from features.progress import Silent
    from features.recipe import Recipe

    with np.load(folder / "peer.npz") as held:
        coords, side, theirs = held["coords"], float(held["side"]), held["features"]
    given(folder, coords, side, 0.5)
    weights = str(folder / "resnet50.pth")
    recipe = Recipe(
        backbone="resnet50",
        weights=weights,
        tile=256,
        mpp=0.5,
        precision=precision,
        max_tiles=10**9,
    )
    job = SlideJob(slide="slide", files=(folder / "slide.tif",), coordinates=folder / "given.h5")
    with tempfile.TemporaryDirectory() as store:
        run = ExtractionRun([job], store_specs([recipe], Path(store)), "cpu")
        cpu, wall = time.process_time(), time.perf_counter()
        with run.embedding(workers, Silent()):
            (outcome,) = run.slide(job) or []
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        assert outcome.status == "done", outcome.reason
        features = read_bag(Path(store, "slide.h5")).features.astype(np.float64)
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(theirs, axis=1)
    return {
        "items": len(coords),
        "cpu": cpu,
        "wall": wall,
        "peak_mib": peak_mib(),
        "cosine": float(((features * theirs).sum(axis=1) / norms).min()),
    }


def limit(folder: Path) -> dict[str, float]:
    """Seconds of one core per tile that decoding and arithmetic cannot go below."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from features.backbones.registry import load_backbone

    torch.set_num_threads(1)
    with np.load(folder / "peer.npz") as held:
        where = [(int(x), int(y)) for x, y in held["coords"]]
    decoding = decode_once(folder / "slide.tif", where, 512, 256) / len(where)
    module = load_backbone("resnet50", "random").module
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(torch.zeros(1, 3, 224, 224))
    images = torch.randn(32, 128, 28, 28, dtype=torch.bfloat16).to(
        memory_format=torch.channels_last
    )
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False).to(torch.bfloat16)
    layer = layer.to(memory_format=torch.channels_last)
    speeds = []
    with torch.inference_mode():
        for _ in range(30):
            before = time.process_time()
            layer(images)
            speeds.append(2 * 32 * 128 * 128 * 9 * 28 * 28 / (time.process_time() - before))
    return {"items": 1, "cpu": decoding + counter.get_total_flops() / max(speeds)}


def compare(python: Path, rounds: int) -> None:
    import timm
    import torch

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_slide(folder / "slide.tif", SIDE)
        torch.manual_seed(0)
        network = timm.create_model("resnet50.tv_in1k", num_classes=0)
        torch.save(network.state_dict(), folder / "resnet50.pth")
        peer(python, folder, THREADS)  # warms its caches, and lays the tiles
        candidates = {
            "LazySlide, 1 thread": lambda: peer(python, folder, 1),
            f"LazySlide, {THREADS} threads": lambda: peer(python, folder, THREADS),
            "mil fp32": lambda: ours(folder, "fp32", THREADS),
            "mil bf16": lambda: ours(folder, "bf16", THREADS),
            "limit: decode + bf16 arithmetic": lambda: limit(folder),
        }
        found = [{what: run() for what, run in candidates.items()} for _ in range(rounds)]
    one, two = list(candidates)[:2]
    rows = []
    for what in candidates:
        cpu = [r[what]["cpu"] / r[what]["items"] for r in found]
        base = [r[one]["cpu"] / r[one]["items"] / c for r, c in zip(found, cpu, strict=True)]
        bound = list(candidates)[-1]
        share = [r[bound]["cpu"] / c for r, c in zip(found, cpu, strict=True)]
        row = [what, f"{1000 * median(cpu):.1f} ms", f"{min(base):.2f} to {max(base):.2f}"]
        row.append(f"{median(share):.0%}")
        if "wall" in found[0][what]:
            rate = [r[what]["items"] / r[what]["wall"] for r in found]
            wall = [
                a / (r[two]["items"] / r[two]["wall"]) for a, r in zip(rate, found, strict=True)
            ]
            peak = max(r[what]["peak_mib"] for r in found)
            row += [f"{median(rate):.1f}", f"{min(wall):.2f} to {max(wall):.2f}", f"{peak:.0f}"]
        else:
            row += ["", "", ""]
        row.append(f"{min(r[what].get('cosine', 1.0) for r in found):.6f}")
        rows.append(row)
    header = [
        "what", "CPU per tile", "CPU: times LazySlide", "share of limit", "tiles/s",
        "tiles/s: times LazySlide", "peak MiB", "least cosine",
    ]  # fmt: skip
    print_table(header, rows)
    settings = {"tiles": int(found[0][one]["items"]), "rounds": rounds, "tile": "256 px at 0.5"}
    save("extraction", header, rows, settings | {"load": list(os.getloadavg())})


def tiles_here(slide: Path, n_tiles: int) -> dict[str, float]:
    """Extract so many small tiles with a tiny network: everything but the network shows."""
    from features.extraction.extract import extract
    from features.extraction.jobs import SlideJob
    from features.recipe import Recipe

    recipe = Recipe(backbone=TINY, weights="random", mpp=0.25, tile=32, precision="fp32")
    across = SCALING_SIDE // 32
    numbers = np.linspace(0, across**2 - 1, n_tiles).astype(np.int64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given(folder, np.stack([numbers % across, numbers // across], axis=1) * 32, 32.0, 0.25)
        job = SlideJob(slide="slide", files=(slide,), coordinates=folder / "given.h5")
        cpu, wall = time.process_time(), time.perf_counter()
        (outcome,) = extract([job], recipe, folder / "store", device="cpu")
    assert outcome.status == "done", outcome.reason
    return {
        "items": outcome.n_tiles,
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "peak_mib": peak_mib(),
    }


def scaling() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        slide = Path(name, "slide.tif")
        write_slide(slide, SCALING_SIDE)
        for size in SIZES:
            command = [
                sys.executable,
                "-m",
                "benchmarks.extraction",
                "--tiles",
                str(slide),
                str(size),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            per_tile = 1000 * found["cpu"] / found["items"]
            rows.append(
                [
                    f"{found['items']}",
                    f"{per_tile:.2f} ms",
                    f"{found['wall']:.0f} s",
                    f"{found['peak_mib']:.0f}",
                ]
            )
    header = ["tiles", "CPU per tile", "wall", "peak MiB"]
    print_table(header, rows)
    save(
        "scaling", header, rows, {"backbone": TINY, "tile": "32 px", "load": list(os.getloadavg())}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--ours", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--tiles", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.ours:
        folder, precision, workers = asked.ours
        print(json.dumps(extract_here(Path(folder), precision, int(workers))))
    elif asked.tiles:
        print(json.dumps(tiles_here(Path(asked.tiles[0]), int(asked.tiles[1]))))
    elif asked.scaling:
        scaling()
    elif asked.peer_python:
        compare(asked.peer_python, asked.rounds)
    else:
        parser.error("--peer-python of an environment with lazyslide, or --scaling")


if __name__ == "__main__":
    main()
