"""How the authors of each encoder prepare images, typed from their cards and code, and what their files hold.

Each row states its source. ``shapes`` are weights of the published file that tell it from others.
Sources that several rows share:

- TRIDENT: github.com/mahmoodlab/TRIDENT, trident/patch_encoder_models/load.py, which loads the published
  files strictly into the networks it lists.
- r2f: github.com/CraigMyles/raw2features, src/raw2features/embedders/registry.yaml, read off the cards, with
  the address of each.
- lazyslide: github.com/rendeirolab/lazyslide-models, tests/test_preprocessing.py, likewise.
"""

from collections.abc import Mapping
from dataclasses import dataclass

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
CLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711),
}  # fmt: skip
BIOPTIMUS = {"mean": (0.707223, 0.578729, 0.703617), "std": (0.211883, 0.230117, 0.177517)}
HISTAI = {"mean": (0.7068, 0.5755, 0.722), "std": (0.195, 0.2316, 0.1816)}
LUNIT = {
    "mean": (0.70322989, 0.53606487, 0.66096631), "std": (0.21716536, 0.26081574, 0.20723464),
}  # fmt: skip


# Sides of the tile, of the resized tile and of what the network is shown.
AT_224, FROM_256, CENTRE = (224, 224, 224), (256, 224, 224), (256, 256, 224)


@dataclass(frozen=True, kw_only=True)
class Card:
    """One encoder: a tile of ``tile_px`` becomes ``resize_px`` and its centre ``input_px``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    tile_px: int
    resize_px: int
    input_px: int
    shapes: Mapping[str, tuple[int, ...]]
    table_side: int = 0
    source: str


def card(colours, interpolation, sides, source, shapes, table_side=0):
    """A row; ``sides`` are those of tile, resized tile and what the network is shown."""
    return Card(
        **colours, interpolation=interpolation, tile_px=sides[0], resize_px=sides[1], input_px=sides[2],
        shapes=shapes, table_side=table_side, source=source,
    )  # fmt: skip


def vit(width, patch, positions, **more):
    """The stem of a vision transformer under timm's names."""
    return {
        "cls_token": (1, 1, width), "pos_embed": (1, positions, width),
        "patch_embed.proj.weight": (width, 3, patch, patch), **more,
    }  # fmt: skip


def transformers(width, patch, positions, **more):
    """The same under the names of transformers; ``__`` stands for a dot."""
    return {
        "embeddings.cls_token": (1, 1, width), "embeddings.position_embeddings": (1, positions, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, patch, patch),
        **{key.replace("__", "."): shape for key, shape in more.items()},
    }  # fmt: skip


PUBLISHED = {
    "uni": card(IMAGENET, "bilinear", FROM_256, "card: Resize(224), at torchvision's default (r2f); TRIDENT",
        vit(1024, 16, 197, **{"blocks.23.ls1.gamma": (1024,)})),
    "uni2-h": card(IMAGENET, "bilinear", FROM_256, "card, as for UNI (r2f); TRIDENT",
        vit(1536, 14, 256, **{"reg_token": (1, 8, 1536), "blocks.23.mlp.fc1.weight": (8192, 1536)})),
    "conch": card(CLIP, "bicubic", (512, 448, 448), "mahmoodlab/CONCH conch/open_clip_custom/transform.py",
        {"visual.trunk.pos_embed": (1, 785, 768), "visual.attn_pool_contrast.query": (1, 512)}),
    "conch-v1.5": card(IMAGENET, "bilinear", (512, 448, 448),
        "TRIDENT model_zoo/conchv1_5/conchv1_5.py (of the authors): a trunk of 224 px, shown 448",
        {"trunk.pos_embed": (1, 197, 1024), "attn_pool_contrast.to_kv.weight": (1536, 1024)}, table_side=14),
    "virchow": card(IMAGENET, "bicubic", AT_224, "card: timm's configuration (r2f); TRIDENT",
        vit(1280, 14, 257, **{"blocks.31.mlp.fc1.weight": (6832, 1280)})),
    "virchow2": card(IMAGENET, "bicubic", AT_224, "card: timm's configuration (r2f); TRIDENT",
        vit(1280, 14, 261, **{"reg_token": (1, 4, 1280)})),
    "h-optimus-0": card(BIOPTIMUS, "bicubic", AT_224, "card (colours and side); r2f and slide2vec (filter)",
        vit(1536, 14, 256, **{"reg_token": (1, 4, 1536), "blocks.39.ls2.gamma": (1536,)})),
    "h-optimus-1": card(BIOPTIMUS, "bicubic", AT_224, "card (colours and side); r2f and slide2vec (filter)",
        vit(1536, 14, 256, **{"reg_token": (1, 4, 1536)})),
    "h0-mini": card(BIOPTIMUS, "bicubic", AT_224, "slide2vec hoptimus.py; lazyslide vision/h_optimus.py",
        vit(768, 14, 256, **{"reg_token": (1, 4, 768), "blocks.11.mlp.fc1.weight": (4096, 768)})),
    "prov-gigapath": card(IMAGENET, "bicubic", CENTRE,
        "prov-gigapath README and gigapath/pipeline.py; STAMP extractor/gigapath.py; TRIDENT",
        vit(1536, 16, 197, **{"blocks.39.mlp.fc1.weight": (8192, 1536)})),
    "gigapath-flash": card(IMAGENET, "bicubic", CENTRE, "TRIDENT (after gigapath/tile_encoder.py); lazyslide",
        vit(384, 16, 197, **{"blocks.11.mlp.fc1.weight": (2048, 384), "blocks.11.ls1.gamma": (384,)})),
    "phikon": card(IMAGENET, "bilinear", AT_224, "preprocessor_config.json (r2f); TRIDENT",
        transformers(768, 16, 197, encoder__layer__11__layernorm_before__weight=(768,))),
    "phikon-v2": card(IMAGENET, "bicubic", AT_224, "preprocessor_config.json, resample 3 (r2f)",
        transformers(1024, 16, 197, encoder__layer__23__layer_scale1__lambda1=(1024,))),
    "hibou-b": card(HISTAI, "bicubic", AT_224, "slide2vec hibou.py; lazyslide vision/hibou.py; r2f",
        transformers(768, 14, 257, embeddings__register_tokens=(1, 4, 768))),
    "hibou-l": card(HISTAI, "bicubic", AT_224, "TRIDENT; slide2vec hibou.py; r2f",
        transformers(1024, 14, 257, embeddings__register_tokens=(1, 4, 1024))),
    "midnight-12k": card(HALF, "bilinear", AT_224, "card: Resize(224), CenterCrop(224) (r2f); slide2vec",
        transformers(1536, 14, 1370, encoder__layer__39__mlp__weights_in__weight=(8192, 1536)),
        table_side=37),
    "kaiko-vits16": card(HALF, "bilinear", FROM_256, "TRIDENT; card of 1aurent (r2f)", vit(384, 16, 197)),
    "kaiko-vits8": card(HALF, "bilinear", FROM_256, "TRIDENT; card of 1aurent (r2f)", vit(384, 8, 785)),
    "kaiko-vitb16": card(HALF, "bilinear", FROM_256, "TRIDENT; card of 1aurent (r2f)", vit(768, 16, 197)),
    "kaiko-vitb8": card(HALF, "bilinear", FROM_256, "TRIDENT; card of 1aurent (r2f)", vit(768, 8, 785)),
    "kaiko-vitl14": card(HALF, "bilinear", FROM_256, "TRIDENT (518 px, shown 224); card of 1aurent (r2f)",
        vit(1024, 14, 1369, reg_token=(1, 4, 1024))),
    "lunit-dino-s16": card(LUNIT, "bicubic", AT_224, "release notes (colours); lazyslide (filter)",
        vit(384, 16, 197)),
    "lunit-dino-s8": card(LUNIT, "bicubic", AT_224, "release notes (colours); lazyslide (filter)",
        vit(384, 8, 785)),
    "ctranspath": card(IMAGENET, "bilinear", AT_224, "hms-dbmi/CHIEF Get_CHIEF_patch_feature.py; TRIDENT",
        {"patch_embed.proj.0.weight": (12, 3, 3, 3), "layers.0.downsample.reduction.weight": (192, 384)}),
    "gpfm": card(IMAGENET, "bicubic", (512, 224, 224), "birkhoffkiki/GPFM README (tile); TRIDENT; r2f",
        vit(1024, 14, 257, **{"blocks.23.ls1.gamma": (1024,)})),
    "retccl": card(IMAGENET, "bilinear", (256, 256, 256), "Xiyue-Wang/RetCCL get_feature.py (r2f)",
        {"conv1.weight": (64, 3, 7, 7), "layer4.2.bn3.running_var": (2048,)}),
    "plip": card(CLIP, "bicubic", AT_224, "preprocessor_config.json of transformers' CLIP (r2f)",
        {"vision_model.embeddings.position_embedding.weight": (50, 768),
         "visual_projection.weight": (512, 768)}),
    "mstar": card(IMAGENET, "bilinear", FROM_256, "README: Resize(224) (r2f, lazyslide); slide2vec (tile)",
        vit(1024, 16, 197, **{"blocks.23.ls1.gamma": (1024,)})),
}  # fmt: skip
