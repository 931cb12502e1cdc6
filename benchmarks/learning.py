"""Seconds per epoch, memory and AUC of learning on made bags, beside torchmil and a plain loop.

    python -m benchmarks.learning [--rounds 3] [--heads gated-abmil] [--peer PYTHON-WITH-TORCHMIL]

Every measurement is a process of its own on one thread; the candidates take turns. CPU seconds are the
figure to trust. The limit is the time of the epoch's matrix products in bf16, measured beside each round.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.table import RESULTS, peak_mib, print_table, save

TRAIN, VALID, TEST, DIM, WIDTH, EPOCHS = 16, 4, 12, 1024, 512, 4
LENGTHS = (2_000, 10_000)
SIZES = (1_000, 10_000, 100_000)
CHUNK_TILES = 4096
SMALL_HEADS, SMALL_EPOCHS = 15, 10


def make_bags(folder: Path) -> None:
    """Bags of tiles at random; in those of the second class 5 % are moved in one direction."""
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(DIM)
    direction *= 5.0 / np.linalg.norm(direction)
    for kind in ("single", "half", "labels"):
        (folder / kind).mkdir()
    for number in range(TRAIN + VALID + TEST):
        tiles = rng.standard_normal((rng.integers(*LENGTHS), DIM), dtype=np.float32)
        if number % 2:
            tiles[rng.random(len(tiles)) < 0.05] += direction.astype(np.float32)
        np.save(folder / "single" / f"{number:02d}.npy", tiles)
        np.save(folder / "half" / f"{number:02d}.npy", tiles.astype(np.float16))
        np.save(folder / "labels" / f"{number:02d}.npy", np.array(number % 2))


def part(first: int, count: int) -> list[str]:
    return [f"{number:02d}" for number in range(first, first + count)]


PARTS = part(0, TRAIN), part(TRAIN, VALID), part(TRAIN + VALID, TEST)


def own(head: str, precision: str, folder: Path) -> Callable[[], list[float]]:
    """The library's fit, an inner part to choose the epoch by, all tiles of each bag."""
    from mil.learning.training import fit_model
    from mil.settings import FitSettings
    from tests.mil.made import probabilities

    train, valid, test = ([_case(folder, name) for name in names] for names in PARTS)
    settings = FitSettings(
        seeds=1, epochs=EPOCHS, width=WIDTH, batch_bags=1, train_tiles=0, precision=precision,
        learning_rate=2e-4, patience=EPOCHS,
    )  # fmt: skip
    fitted = fit_model(head, train, valid, ("0", "1"), settings, seed=0)
    return lambda: [probabilities(fitted, case.bags[0])[1] for case in test]


def _case(folder: Path, name: str):
    from features.bags.bag import Bag
    from mil.data.case import Case

    tiles = np.load(folder / "half" / f"{name}.npy", mmap_mode="r")
    bag = Bag(
        slide=name, features=tiles, coords_l0=np.zeros((len(tiles), 2), np.int64),
        coverage=np.ones(len(tiles), np.float32), side_l0=(1.0, 1.0), size_l0=(1, 1), mpp_l0=(1.0, 1.0),
        mpp_source="given", tile_px=1, target_mpp=1.0, recipe={},
    )  # fmt: skip
    return Case(name=name, label=str(int(name) % 2), bags=(bag,))


def plain(folder: Path) -> Callable[[], list[float]]:
    """A gated attention head in fp32, one bag a step: the loop of a paper's repository."""
    import torch
    from torch import nn

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Sequential(nn.Linear(DIM, WIDTH), nn.ReLU(), nn.Dropout(0.25))
            self.project, self.gate = nn.Linear(WIDTH, WIDTH // 2), nn.Linear(WIDTH, WIDTH // 2)
            self.weigh, self.classify = nn.Linear(WIDTH // 2, 1), nn.Linear(WIDTH, 2)

        def forward(self, x):
            tiles = self.embed(x)
            gated = torch.tanh(self.project(tiles)) * torch.sigmoid(self.gate(tiles))
            return self.classify((torch.softmax(self.weigh(gated), 0) * tiles).sum(0, keepdim=True))

    def bag(name: str):
        return torch.from_numpy(
            np.load(folder / "half" / f"{name}.npy", mmap_mode="r").astype(np.float32)
        )

    torch.manual_seed(0)
    train, valid, test = PARTS
    head = Head()
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-4)
    rng = np.random.default_rng(0)
    for _ in range(EPOCHS):
        head.train()
        for index in rng.permutation(len(train)):
            label = torch.tensor([index % 2])
            loss = nn.functional.cross_entropy(head(bag(train[index])), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        head.eval()
        with torch.inference_mode():
            for name in valid:
                head(bag(name))
    return lambda: [float(head(bag(name)).softmax(-1)[0, 1]) for name in test]


def torchmil(head: str, folder: Path) -> Callable[[], list[float]]:
    """Its own dataset and Trainer, as its examples have them."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchmil.data import collate_fn
    from torchmil.datasets import ProcessedMILDataset
    from torchmil.models import ABMIL, TransMIL
    from torchmil.utils import Trainer

    def bags(names: list[str]) -> ProcessedMILDataset:
        return ProcessedMILDataset(
            features_path=str(folder / "single"), labels_path=str(folder / "labels"), bag_names=names,
            bag_keys=["X", "Y"], verbose=False,
        )  # fmt: skip

    torch.manual_seed(0)
    if head == "transmil":
        model = TransMIL(in_shape=(DIM,), att_dim=WIDTH)
    else:
        embed = nn.Sequential(nn.Linear(DIM, WIDTH), nn.ReLU(), nn.Dropout(0.25))
        model = ABMIL((DIM,), WIDTH // 2, gated=head == "gated-abmil", feat_ext=embed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    train, valid, test = (bags(names) for names in PARTS)
    trainer = Trainer(model, optimizer, device="cpu", disable_pbar=True, verbose=False)
    trainer.train(
        EPOCHS,
        DataLoader(train, batch_size=1, shuffle=True, collate_fn=collate_fn),
        DataLoader(valid, batch_size=1, collate_fn=collate_fn),
    )
    model.eval()
    return lambda: [float(model(test[i]["X"].unsqueeze(0))) for i in range(TEST)]


def limit(folder: Path) -> Callable[[], list[float]]:
    """The products of a gated head's epochs in bf16, forward and backward, and nothing else."""
    import torch

    for number, name in enumerate([*PARTS[0], *PARTS[1]]):
        n = len(np.load(folder / "half" / f"{name}.npy", mmap_mode="r"))
        tiles, embedded = (torch.randn(n, k).bfloat16() for k in (DIM, WIDTH))
        first, gates = (torch.randn(WIDTH, k).bfloat16() for k in (DIM, WIDTH))
        started = time.process_time()
        for _ in range(EPOCHS):
            tiles @ first.T, embedded @ gates.T
            if number < TRAIN:
                embedded.T @ tiles, embedded @ gates, embedded.T @ embedded
        SPENT.append(time.process_time() - started)
    return list


SPENT: list[float] = []  # CPU seconds, where a candidate counts them itself
BEFORE: list[float] = []  # MiB held when it began to count


def step(size: int, chunk_tiles: int, head: str, folder: Path) -> Callable[[], list[float]]:
    """Three training steps on one bag that is a map of a file, whose pages are in memory before."""
    from functools import partial

    from mil.heads.head import HeadSettings
    from mil.heads.registry import build_head
    from mil.learning.epochs import run_epochs
    from mil.settings import FitSettings
    from mil.tasks.diagnosis_objective import ClassObjective

    bag = np.memmap(folder / "long", np.float16, "r", shape=(max(SIZES), DIM))[:size]
    bag.max()  # its pages are there before memory is looked at
    built = build_head(head, HeadSettings(dim=DIM, n_outputs=2, width=WIDTH))
    settings = FitSettings(seeds=1, epochs=1, width=WIDTH, train_tiles=0, chunk_tiles=chunk_tiles)
    case: Any = SimpleNamespace(name="a", label="a", bags=[SimpleNamespace(features=bag)])
    rng, objective = np.random.default_rng(0), ClassObjective([case], (), ("a",))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    BEFORE.append(peak_mib())
    for _ in range(3):
        started = time.process_time()
        run_epochs(built, settings, partial(objective.epoch, built, settings, rng), None)
        SPENT.append(time.process_time() - started)
    return list


def measure_here(name: str, folder: Path) -> dict[str, object]:
    """Run one candidate in this process."""
    import torch

    torch.set_num_threads(1)
    if name != "torchmil":
        with contextlib.suppress(ImportError):
            from features.threads import keep_freed_memory

            keep_freed_memory()
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # what it imports counts for nobody
    kind, *rest = name.split()
    candidates = {"mil": own, "plain": plain, "torchmil": torchmil, "limit": limit, "step": step}
    before_mib, started = peak_mib(), time.process_time()
    arguments = [int(word) if word.isdigit() else word for word in rest]
    predict = candidates[kind](*arguments, folder)
    cpu = time.process_time() - started
    peak = peak_mib()
    with torch.inference_mode():
        scores, labels = predict(), [int(name) % 2 for name in PARTS[2]]
    found: dict[str, object] = {"peak_mib": peak, "before_mib": [before_mib, *BEFORE][-1]}
    found["cpu"] = (
        (min(SPENT) if kind == "step" else sum(SPENT) / EPOCHS) if SPENT else cpu / EPOCHS
    )
    if scores:
        pairs = [(a > b) + (a == b) / 2 for a, x in zip(scores, labels, strict=True) if x
                 for b, y in zip(scores, labels, strict=True) if not y]  # fmt: skip
        found["auc"] = float(np.mean(pairs))
    return found


def measure(name: str, folder: Path, python: str = sys.executable) -> dict[str, float]:
    """Run one candidate in a process of its own."""
    command = [python, "-m", "benchmarks.learning", "--one", name, "--bags", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def epochs(head: str, rounds: int, peer: str | None, folder: Path) -> list[list[str]]:
    """One table row per candidate."""
    names = ["limit", f"mil {head} bf16", f"mil {head} fp32"]
    names += ["plain"] * (head == "gated-abmil") + [f"torchmil {head}"] * bool(peer)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            python = peer if peer and name.startswith("torchmil") else sys.executable
            found[name].append(measure(name, folder, python))
            print(name, found[name][-1], flush=True)
    first = found[names[-1]]
    rows = []
    for name, each in found.items():
        ratios = [a["cpu"] / b["cpu"] for a, b in zip(first, each, strict=True)]
        rows.append(
            [
                name if name != "limit" else "limit: bf16 products of a gated head",
                f"{median(one['cpu'] for one in each):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                f"{max(one['peak_mib'] for one in each):.0f}",
                "" if "auc" not in each[0] else f"{median(one['auc'] for one in each):.2f}",
            ]
        )
    return rows


def scaling(head: str, folder: Path) -> list[list[str]]:
    """Training steps on one bag of growing size, at once and in chunks."""
    rng, rows = np.random.default_rng(0), []
    with (folder / "long").open("wb") as file:
        for _ in range(max(SIZES) // 1000):
            rng.standard_normal((1000, DIM), np.float32).astype(np.float16).tofile(file)
    for chunk_tiles in (0, CHUNK_TILES):
        for size in SIZES:
            found = measure(f"step {size} {chunk_tiles} {head}", folder)
            rows.append(
                [
                    f"step of {head}, {size} tiles" + f", chunks of {chunk_tiles}" * bool(chunk_tiles),
                    f"{found['cpu']:.3f}", f"{1e6 * found['cpu'] / size:.1f}",
                    f"{found['peak_mib'] - found['before_mib']:.0f}",
                ]
            )  # fmt: skip
    return rows


def draw(rows: list[list[str]], head: str) -> None:
    """Cost and memory over the number of tiles, as a picture beside the numbers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for label, part_rows in (("at once", rows[:3]), (f"chunks of {CHUNK_TILES}", rows[3:])):
        panels[0].loglog(SIZES, [float(row[1]) for row in part_rows], "o-", label=label)
        panels[1].semilogx(SIZES, [float(row[3]) for row in part_rows], "o-", label=label)
    panels[0].loglog(SIZES, [float(rows[1][1]) * n / SIZES[1] for n in SIZES], "k:", label="linear")
    panels[0].set(title=f"{head}: one training step", xlabel="tiles", ylabel="CPU seconds")
    panels[1].set(title="memory beyond the bag", xlabel="tiles", ylabel="MiB")
    panels[0].legend()
    figure.savefig(RESULTS / f"{time.strftime('%Y-%m-%d')}-learning-scaling.png", dpi=120)


def small_heads(rounds: int) -> list[list[str]]:
    """Fifteen small gated heads: one after another in fp32 on two threads, and as they run by default.

    The start of the processes is left out, as is whatever else comes once.
    """
    import torch

    from mil.learning.crossval import cross_validate
    from mil.settings import FitSettings
    from tests.mil.made import cohort_of, folds_of, made_case

    rng = np.random.default_rng(0)
    cohort = cohort_of([
        made_case(
            f"c{i:02d}", "ab"[i % 2],
            rng.standard_normal((rng.integers(50, 501), DIM), np.float32).astype(np.float16),
        )
        for i in range(20)
    ])  # fmt: skip
    folds = folds_of(cohort, repeats=3)

    def seconds(precision: str, workers: int) -> float:
        """Per epoch; the difference of two lengths leaves out what comes once: start, prediction."""
        ends = []
        for n_epochs in (SMALL_EPOCHS, 3 * SMALL_EPOCHS):
            settings = FitSettings(
                epochs=n_epochs,
                precision=precision,
                train_tiles=0,
                seeds=1,
                early_stopping="never",
            )
            started = time.perf_counter()
            cross_validate(cohort, folds, ["gated-abmil"], settings, seed=0, workers=workers)
            ends.append(time.perf_counter() - started)
        return (ends[1] - ends[0]) / (2 * SMALL_EPOCHS)

    torch.set_num_threads(2)
    two_threads = "one after another, fp32, two threads"
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        with (
            mock.patch("mil.learning.training.one_thread", contextlib.nullcontext),
            mock.patch("mil.learning.crossval.one_thread", contextlib.nullcontext),
        ):
            found.setdefault(two_threads, []).append(seconds("fp32", 1))
        for name, precision, workers in (
            ("one after another, fp32", "fp32", 1), ("one after another, bf16", "bf16", 1),
            ("two processes, fp32", "fp32", 2), ("two processes, bf16", "bf16", 2),
        ):  # fmt: skip
            found.setdefault(name, []).append(seconds(precision, workers))
    first = found[two_threads]
    return [
        [f"{SMALL_HEADS} heads, {name}", f"{median(each):.3f}",
         f"{median(a / b for a, b in zip(first, each, strict=True)):.2f}"]
        for name, each in found.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heads", default="gated-abmil")
    parser.add_argument("--peer", help="a python that has torchmil")
    parser.add_argument("--only", default="epochs,scaling,small", help="which parts to run")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--bags", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure_here(asked.one, asked.bags)))
        return
    facts = {"bags": [TRAIN, VALID, TEST], "tiles": LENGTHS, "dim": DIM, "width": WIDTH}
    facts |= {"epochs": EPOCHS, "load": os.getloadavg()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        heads = asked.heads.split(",")
        if "epochs" in asked.only:
            make_bags(folder)
            header = [
                "what",
                "CPU s per epoch",
                "times the last",
                "peak MiB",
                "AUC of held-out bags",
            ]
            rows = [row for head in heads for row in epochs(head, asked.rounds, asked.peer, folder)]
            print_table(header, rows)
            save(f"learning-{'-'.join(heads)}", header, rows, facts)
        if "scaling" in asked.only:
            header = ["what", "CPU s", "us per tile", "MiB beyond the bag"]
            rows = scaling(heads[0], folder)
            print_table(header, rows)
            save("learning-scaling", header, rows, facts)
            draw(rows, heads[0])
    if "small" in asked.only:
        header, rows = (
            ["what", "wall s per epoch of all", "times faster"],
            small_heads(asked.rounds),
        )
        print_table(header, rows)
        save("learning-small", header, rows, facts)


if __name__ == "__main__":
    main()
