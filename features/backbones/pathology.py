"""Published encoders of pathology by name: each is one row of ``ENCODERS``.

The figures of each row agree in the sources it names: the authors' own code first, then public code that
loads the same file. Those sources are TRIDENT (github.com/mahmoodlab/TRIDENT,
trident/patch_encoder_models/load.py), slide2vec (github.com/clemsgrs/slide2vec, encoders/models),
lazyslide-models (github.com/rendeirolab/lazyslide-models, vision) and eva (github.com/kaiko-ai/eva,
vision/models/networks/backbones/pathology). ``mpp`` is that of the training tiles; where only a
magnification is published, 20x is 0.5. Interpolation and crop are those of the card's or the authors' own
transform, as raw2features (github.com/CraigMyles/raw2features, embedders/registry.yaml) and the tests of
lazyslide-models (tests/test_preprocessing.py) list them too. The authors of Lunit's encoders and of
H-optimus publish none for tiles of another side; theirs are what these two lists take.

One source only is behind the arguments of gigapath-flash, the ``mlp_ratio`` of h0-mini, mean and side of
retccl, the key names of Hibou, and the scales and tile side of kaiko. No file of these encoders was loaded.

Left out, because a figure could not be confirmed twice or the network is not one of timm's: OpenMidnight
(the size of its position table), MUSK, KEEP and GenBio-PathFM (networks of their own).
"""

from collections.abc import Mapping

from features.backbones.network_recipe import IMAGENET_MEAN, IMAGENET_STD, NetworkRecipe

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BIOPTIMUS_MEAN, BIOPTIMUS_STD = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)
HIBOU_MEAN, HIBOU_STD = (0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)
LUNIT_MEAN, LUNIT_STD = (0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464)

NO_DERIVATIVES, APACHE = "CC-BY-NC-ND-4.0", "Apache-2.0"
IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
AT_20X = {"mpp": (0.5,), "tile_px": 224}
BILINEAR, BICUBIC = {"interpolation": "bilinear"}, {"interpolation": "bicubic"}
SWIGLU = {"mlp_layer": "swiglu", "act_layer": "silu"}
GIGAPATH = {
    "mpp": (0.5,),
    "tile_px": 256,
    "resize_px": 256,
    **BICUBIC,
}  # of which the centre is shown
KAIKO = {
    "pooling": "cls", "mean": HALF, "std": HALF, "mpp": (0.25, 0.5, 1.0, 2.0), "tile_px": 256,
    "licence": "Kaiko, non-commercial", "paper": "arXiv:2404.15217",
    "sources": "github.com/kaiko-ai/towards_large_pathology_fms hubconf.py and README; TRIDENT",
    **BILINEAR,
}  # fmt: skip
LUNIT = {
    "pooling": "cls", "mean": LUNIT_MEAN, "std": LUNIT_STD, "mpp": (0.25, 0.5), "tile_px": 224, "dim": 384,
    "licence": "Lunit, non-commercial", "paper": "arXiv:2212.04690",
    "sources": "eva lunit.py (with the mean and std of the training); slide2vec; TRIDENT", **BICUBIC,
}  # fmt: skip
H_OPTIMUS = {
    "architecture": "vit_giant_patch14_reg4_dinov2", "arguments": {"img_size": 224}, "pooling": "cls",
    "mean": BIOPTIMUS_MEAN, "std": BIOPTIMUS_STD, "dim": 1536, "gated": True,
    "sources": "slide2vec and lazyslide-models (as the card loads it); TRIDENT (strict load of the file)",
    **AT_20X, **BICUBIC,
}  # fmt: skip
VIRCHOW = {
    "architecture": "vit_huge_patch14_224", "pooling": "cls+mean", "dim": 2560, "gated": True,
    "sources": "TRIDENT (strict load of the file); slide2vec; eva paige.py", **IMAGENET, **BICUBIC,
}  # fmt: skip
HIBOU = {
    "pooling": "cls", "mean": HIBOU_MEAN, "std": HIBOU_STD, "licence": APACHE, "gated": True,
    "paper": "arXiv:2406.05074", **AT_20X, **BICUBIC, "names": ("hf-dinov2", "dinov2"),
    "sources": "github.com/HistAI/hibou models/__init__.py and README; slide2vec; lazyslide-models",
}  # fmt: skip


def _row(name: str, *shared: Mapping[str, object], **own: object) -> NetworkRecipe:
    values: dict[str, object] = {}
    for part in (*shared, own):
        values |= part
    return NetworkRecipe(name=name, **values)  # type: ignore[arg-type]


ENCODERS: Mapping[str, NetworkRecipe] = {
    row.name: row
    for row in (
        _row(
            "uni", IMAGENET, BILINEAR, architecture="vit_large_patch16_224", arguments={"init_values": 1e-5},
            pooling="cls", dim=1024, mpp=(0.5,), tile_px=256, licence=NO_DERIVATIVES, gated=True,
            repository="MahmoodLab/UNI", files=("pytorch_model.bin",), paper="10.1038/s41591-024-02857-3",
            sources="TRIDENT (same authors, strict load of the file); slide2vec",
        ),
        _row(
            "uni2-h", IMAGENET, BILINEAR, architecture="vit_giant_patch14_224",
            arguments={
                "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "init_values": 1e-5,
                "embed_dim": 1536, "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "reg_tokens": 8,
                **SWIGLU,
            },
            pooling="cls", dim=1536, mpp=(0.5,), tile_px=256, licence=NO_DERIVATIVES, gated=True,
            repository="MahmoodLab/UNI2-h", files=("pytorch_model.bin",),
            paper="10.1038/s41591-024-02857-3",
            sources="TRIDENT (same authors, strict load of the file); slide2vec",
        ),
        _row(
            "conch", BICUBIC, architecture="conch",
            arguments={"trunk": "vit_base_patch16_224", "img_size": 448, "width": 512}, names=("conch",),
            pooling="network", input_px=448, mean=CLIP_MEAN, std=CLIP_STD, dim=512, mpp=(0.5,), tile_px=512,
            licence=NO_DERIVATIVES, gated=True, repository="MahmoodLab/CONCH", files=("pytorch_model.bin",),
            paper="10.1038/s41591-024-02856-4",
            sources="github.com/mahmoodlab/CONCH open_clip_custom (towers, factory, transform); TRIDENT",
        ),
        _row(
            "conch-v1.5", IMAGENET, BILINEAR, architecture="conch-v1.5",
            arguments={
                "trunk": "vit_large_patch16_224", "img_size": 448, "width": 768, "init_values": 1.0
            },
            table_side=14,
            pooling="network", input_px=448, dim=768, mpp=(0.5,), tile_px=512, licence=NO_DERIVATIVES,
            gated=True, repository="MahmoodLab/conchv1_5", files=("pytorch_model_vision.bin",),
            paper="arXiv:2411.19666",
            sources="TRIDENT conchv1_5.py (same authors, strict load of the file); slide2vec",
        ),
        _row(
            "virchow", VIRCHOW, arguments={"init_values": 1e-5, "mlp_ratio": 5.3375, **SWIGLU}, mpp=(0.5,),
            tile_px=224, licence=APACHE, repository="paige-ai/Virchow", paper="10.1038/s41591-024-03141-0",
        ),
        _row(
            "virchow2", VIRCHOW,
            arguments={"init_values": 1e-5, "mlp_ratio": 5.3375, "reg_tokens": 4, **SWIGLU},
            mpp=(0.5, 0.25, 1.0, 2.0), tile_px=224, licence=NO_DERIVATIVES, repository="paige-ai/Virchow2",
            paper="arXiv:2408.00738",
        ),
        _row("h-optimus-0", H_OPTIMUS, licence=APACHE, repository="bioptimus/H-optimus-0"),
        _row("h-optimus-1", H_OPTIMUS, licence=NO_DERIVATIVES, repository="bioptimus/H-optimus-1"),
        _row(
            "h0-mini", H_OPTIMUS, architecture="vit_base_patch14_reg4_dinov2",
            arguments={"img_size": 224, "mlp_ratio": 4096 / 768 + 1e-6, **SWIGLU}, pooling="cls+mean",
            licence=NO_DERIVATIVES, repository="bioptimus/H0-mini", paper="arXiv:2501.16239",
            sources="slide2vec; lazyslide-models; public code that loads the file strictly",
        ),
        _row(
            "prov-gigapath", IMAGENET, GIGAPATH, architecture="vit_giant_patch14_dinov2",
            arguments={"img_size": 224, "patch_size": 16}, pooling="cls", dim=1536, gated=True,
            licence="Apache-2.0, research only", repository="prov-gigapath/prov-gigapath",
            files=("pytorch_model.bin",), paper="10.1038/s41586-024-07441-w",
            sources="github.com/prov-gigapath demo/3_load_tile_encoder.py; TRIDENT (strict load of the file)",
        ),
        _row(
            "gigapath-flash", IMAGENET, GIGAPATH, architecture="vit_small_patch16_224",
            arguments={"mlp_ratio": 2048 / 384, "init_values": 1e-5, **SWIGLU}, pooling="cls", dim=384,
            licence="Apache-2.0, research only", gated=True, repository="prov-gigapath/prov-gigapath-flash",
            files=("pytorch_model.bin",), paper="10.48550/arXiv.2607.18218",
            sources="TRIDENT (after gigapath/tile_encoder.py, strict load of the file)",
        ),
        _row(
            "phikon", IMAGENET, AT_20X, BILINEAR, architecture="vit_base_patch16_224", names=("vit",),
            arguments={"norm_eps": 1e-12}, pooling="cls", dim=768, licence="Owkin, non-commercial",
            repository="owkin/phikon", paper="10.1101/2023.07.21.23292757",
            sources="TRIDENT (transformers' ViTModel); slide2vec; eva owkin.py",
        ),
        _row(
            "phikon-v2", IMAGENET, AT_20X, BICUBIC, architecture="vit_large_patch16_224",
            names=("hf-dinov2",), arguments={"init_values": 1e-5}, pooling="cls", dim=1024,
            licence="Owkin, non-commercial", repository="owkin/phikon-v2", paper="arXiv:2409.09173",
            sources="TRIDENT (transformers' Dinov2Model); slide2vec",
        ),
        _row(
            "hibou-b", HIBOU, architecture="vit_base_patch14_reg4_dinov2",
            arguments={"img_size": 224, "mlp_ratio": 4096 / 768 + 1e-6, **SWIGLU}, dim=768,
            repository="histai/hibou-b",
        ),
        _row(
            "hibou-l", HIBOU, architecture="vit_large_patch14_reg4_dinov2",
            arguments={"img_size": 224, "mlp_ratio": 5472 / 1024, **SWIGLU}, dim=1024,
            repository="histai/hibou-L",
        ),
        _row(
            "midnight-12k", BILINEAR, architecture="vit_giant_patch14_dinov2", arguments={"img_size": 224},
            names=("hf-dinov2",), table_side=37,
            pooling="cls+mean", mean=HALF, std=HALF, dim=3072, mpp=(0.5, 0.25, 1.0, 2.0), tile_px=224,
            licence="MIT", repository="kaiko-ai/midnight", paper="arXiv:2504.05186",
            sources="slide2vec; lazyslide-models; TRIDENT (transformers' Dinov2Model)",
        ),
        *(
            _row(
                f"kaiko-{short}", KAIKO, architecture=architecture, dim=dim,
                repository=f"1aurent/{architecture}.kaiko_ai_towards_large_pathology_fms",
            )
            for short, architecture, dim in (
                ("vits16", "vit_small_patch16_224", 384), ("vits8", "vit_small_patch8_224", 384),
                ("vitb16", "vit_base_patch16_224", 768), ("vitb8", "vit_base_patch8_224", 768),
            )
        ),
        _row(
            "kaiko-vitl14", KAIKO, architecture="vit_large_patch14_reg4_dinov2",
            arguments={"img_size": 518, "dynamic_img_size": True}, dim=1024,
            repository="1aurent/vit_large_patch14_reg4_dinov2.kaiko_ai_towards_large_pathology_fms",
        ),
        _row(
            "lunit-dino-s16", LUNIT, architecture="vit_small_patch16_224",
            repository="1aurent/vit_small_patch16_224.lunit_dino",
        ),
        _row(
            "lunit-dino-s8", LUNIT, architecture="vit_small_patch8_224",
            repository="1aurent/vit_small_patch8_224.lunit_dino",
        ),
        _row(
            "ctranspath", IMAGENET, BILINEAR, architecture="swin_tiny_patch4_window7_224",
            arguments={"embed_layer": "conv-stem"}, pooling="network", dim=768, licence="GPL-3.0",
            mpp=(1.0, 0.5), tile_px=224, names=("timm", "swin"),
            repository="1aurent/swin_tiny_patch4_window7_224.CTransPath", files=("model.safetensors",),
            paper="10.1016/j.media.2022.102559",
            sources="github.com/Xiyue-Wang/TransPath README (trained at 20x, 1.0 recommended); TRIDENT (file "
            "of the authors); github.com/hms-dbmi/CHIEF; public code that loads the repository's file",
        ),
        _row(
            "gpfm", IMAGENET, BICUBIC, architecture="vit_large_patch14_dinov2", arguments={"img_size": 224},
            pooling="cls", dim=1024, mpp=(0.25,), tile_px=512, repository="majiabo/GPFM",
            licence="CC-BY-NC-ND-4.0 (repository) or MIT (card)",
            files=("GPFM.pth",), paper="10.1038/s41551-025-01488-4",
            sources="github.com/birkhoffkiki/GPFM README (512 px at 40x) and LICENSE; slide2vec and TRIDENT "
            "(strict load of the file); raw2features (on the two licences)",
        ),
        _row(
            "retccl", IMAGENET, BILINEAR, architecture="resnet50", pooling="network", input_px=256, dim=2048,
            mpp=(1.0,), tile_px=256, licence="GPL-3.0", repository="jamesdolezal/RetCCL",
            files=("retccl.pth",), paper="10.1016/j.media.2022.102645",
            sources="github.com/slideflow/slideflow (strict load of the file); raw2features",
        ),
        _row(
            "plip", BICUBIC, names=("clip",), architecture="vit_base_patch32_clip_quickgelu_224",
            arguments={"num_classes": 512},
            pooling="projection", mean=CLIP_MEAN, std=CLIP_STD, dim=512, mpp=(0.5,), tile_px=224,
            licence="not stated", repository="vinid/plip", paper="10.1038/s41591-023-02504-3",
            sources="lazyslide-models (transformers' CLIPModel); raw2features",
        ),
        _row(
            "mstar", IMAGENET, BILINEAR, architecture="vit_large_patch16_224",
            arguments={"init_values": 1e-5}, mpp=(0.5,), tile_px=256, pooling="cls", dim=1024,
            licence=NO_DERIVATIVES, gated=True, repository="Wangyh/mSTAR",
            paper="arXiv:2407.15362", sources="slide2vec mstar.py (tile); raw2features",
        ),
    )
}  # fmt: skip


def find_encoder(name: str) -> NetworkRecipe | None:
    """The encoder of a name, or of its repository on the hub; None if it is none of the table.

    Args:
        name: in any capitals, also as ``hf-hub:ORG/NAME``.
    """
    plain = name.casefold().replace("_", "-")
    if plain in ENCODERS:
        return ENCODERS[plain]
    _, hub, repository = name.casefold().replace("hf_hub:", "hf-hub:").partition("hf-hub:")
    for row in ENCODERS.values():
        if hub and repository == row.repository.casefold():
            return row
    return None
