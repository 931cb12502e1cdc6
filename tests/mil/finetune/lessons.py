"""Small labelled slides as folders of tile images, and quick settings to learn from them."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from timm.models import _registry as timm_registry

from features.extraction.jobs import SlideJob
from features.progress import Silent
from features.recipe import Recipe
from mil.finetune.distributed import Ranks, ranks
from mil.finetune.settings import FinetuneSettings
from mil.finetune.tiles import LabelledSlide, TilePool
from mil.finetune.training import finetune

TILE = 32
RECIPE = Recipe(backbone="test_resnet", weights="random", mpp=0.5, tile=TILE, precision="fp32")
QUICK = FinetuneSettings(epochs=3, tiles_per_slide=4, batch_tiles=8, learning_rate=1e-3)
COLOURS = {"blue": (90, 90, 200), "red": (200, 90, 90)}


def small_inputs(
    patch: pytest.MonkeyPatch,
    side_px: int = 64,
    of: tuple[str, ...] = ("test_resnet", "test_efficientnet_gn", "vgg11"),
) -> None:
    """These networks see 64 pixels and not their own 160 or 224, which takes a sixth of the time or less."""
    configs = timm_registry._model_pretrained_cfgs
    for name in of:
        patch.setitem(configs, name, replace(configs[name], input_size=(3, side_px, side_px)))


def images(folder, slide, colour, *, n_tiles=6, seed=0, spread=40):
    """Noise of one mean colour, each tile another."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng([seed, *slide.encode()])
    files = []
    for i in range(n_tiles):
        pixels = rng.normal(colour, spread, size=(TILE, TILE, 3)).clip(0, 255).astype(np.uint8)
        files.append(folder / f"{slide}-{i * TILE}-0.png")
        Image.fromarray(pixels).save(files[-1])
    return tuple(sorted(files))


def lesson(folder, slide, label, case="", *, colour=None, **keywords):
    files = images(folder, slide, colour or COLOURS[label], **keywords)
    job = SlideJob(slide=slide, files=files, mpp=0.5, case=case or slide, from_tiles=True)
    return LabelledSlide(job, label)


def lessons(folder, per_class=3, **keywords):
    """Cases red-0, blue-0, red-1 ...: the label is the colour."""
    return [
        lesson(folder, f"{label}-{i}", label, **keywords)
        for i in range(per_class)
        for label in COLOURS
    ]


def pool_of(slides, recipe=RECIPE):
    return TilePool(slides, recipe, None, Silent())


def alone() -> Ranks:
    with ranks("cpu", workers=1) as process:
        return process


def tune(slides, out, settings=QUICK, recipe=RECIPE, **keywords):
    return finetune(slides, recipe, settings, out, ranks=alone(), **keywords)


def results(folder):
    names = ("weights.safetensors", "classifier.safetensors", "card.json", "history.csv")
    return {name: (folder / name).read_bytes() for name in names}
