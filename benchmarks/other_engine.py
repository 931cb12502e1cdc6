"""Would OpenVINO embed tiles faster than this project does, on a CPU and in bf16?

    python -m benchmarks.other_engine [NAME...]

Needs `pip install openvino`; the project does without it. Both engines run one thread on the same batch of
tiles, in turn; what counts is processor time. The weights are random.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import openvino  # type: ignore[import-not-found]
import torch
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.table import print_table, save
from features.backbones.registry import load_backbone
from features.extraction.embed import BATCH_TILES, Clock, Embedder, preprocess

NETWORKS = ("vit_small_patch16_224", "vit_base_patch16_224", "tf_efficientnetv2_s", "resnet50")
ROUNDS = 9
HEADER = ("network", "here ms/tile", "OpenVINO ms/tile", "ratio", "cosine here", "cosine OpenVINO")
Embed = Callable[[], NDArray[np.float32]]


def make_tiles() -> NDArray[np.uint8]:
    """(B, 224, 224, 3) smooth noise."""
    noise = np.random.default_rng(0).normal(size=(BATCH_TILES, 224, 224, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 3, 3, 0))
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def engines(name: str, tiles: NDArray[np.uint8]) -> tuple[Embed, Embed, Embed]:
    """The project in bf16, OpenVINO in bf16, the project in fp32."""
    backbone = load_backbone(name, "random")
    images = preprocess(torch.from_numpy(tiles), backbone)
    converted = openvino.convert_model(backbone.module, example_input=images)
    request = openvino.Core().compile_model(
        converted, "CPU",
        {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1},
    ).create_infer_request()  # fmt: skip
    half, full = (
        Embedder(load_backbone(name, "random"), precision=precision, device="cpu")
        for precision in ("bf16", "fp32")
    )

    def other() -> NDArray[np.float32]:
        prepared = preprocess(torch.from_numpy(tiles), backbone)
        return np.array(request.infer([prepared.numpy()])[0])

    return lambda: half(tiles, Clock()), other, lambda: full(tiles, Clock())


def seconds(embed: Embed) -> float:
    """Processor time of a batch."""
    started = time.process_time()
    embed()
    return time.process_time() - started


def cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """The smallest over tiles."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(axis=1) / norms).min())


def measure(name: str) -> tuple[str, ...]:
    """The row of a network."""
    here, other, full = engines(name, make_tiles())
    exact = full()
    cosines = [f"{cosine(embed(), exact):.5f}" for embed in (here, other)]
    spent = np.array([[seconds(here), seconds(other)] for _ in range(ROUNDS)])
    low, ratio, high = np.quantile(spent[:, 0] / spent[:, 1], (0.1, 0.5, 0.9))
    times = [f"{1e3 * value / BATCH_TILES:.1f}" for value in np.median(spent, axis=0)]
    return name, *times, f"{ratio:.2f} ({low:.2f} to {high:.2f})", *cosines


def main() -> None:
    """Print and keep a row per network."""
    torch.set_num_threads(1)
    rows = [measure(name) for name in sys.argv[1:] or NETWORKS]
    print_table(HEADER, rows)
    save("other-engine", HEADER, rows, {"rounds": ROUNDS, "openvino": openvino.__version__})


if __name__ == "__main__":
    main()
