"""LazySlide's own steps on a slide, for `benchmarks.extraction`; runs under the peer's Python.

PEER_PYTHON lazyslide_peer.py SLIDE WEIGHTS OUT.npz THREADS
"""

import sys
import time
from pathlib import Path

import lazyslide as zs
import numpy as np
import timm
import torch
from torchvision.transforms import v2
from wsidata import open_wsi

slide, weights, out, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
network = timm.create_model("resnet50.tv_in1k", num_classes=0)
network.load_state_dict(torch.load(weights, weights_only=True))
network.eval()
transform = v2.Compose(
    [
        v2.ToImage(),
        v2.Resize((224, 224), antialias=True),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)
wsi = open_wsi(slide)
zs.pp.find_tissues(wsi)
zs.pp.tile_tissues(wsi, 256, mpp=0.5)
cpu, wall = time.process_time(), time.perf_counter()
features = zs.tl.feature_extraction(
    wsi, model=network, model_name="resnet50", transform=transform, device="cpu",
    return_features=True, pbar=False,
)  # fmt: skip
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
if features is None:
    features = wsi.tables["resnet50_tiles"].X
bounds = wsi.shapes["tiles"].bounds.to_numpy()
np.savez(
    out,
    features=np.asarray(features, np.float32),
    coords=np.rint(bounds[:, :2]).astype(np.int64),
    side=bounds[0, 2] - bounds[0, 0],
    cpu=cpu,
    wall=wall,
    peak_mib=int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024,
)
