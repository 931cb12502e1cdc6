"""Encoders of pathology by name: what they are shown, which files they take, and which they refuse."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms

from features.backbones.card import scale_notes
from features.backbones.file import _fit, load_network
from features.backbones.networks import PooledFeatures, build_network, names_and_shapes
from features.backbones.pathology import ENCODERS, find_encoder
from features.backbones.registry import Backbone, load_backbone, resolve_name
from features.backbones.transformers_keys import fit_positions, to_timm_names
from features.errors import BackboneError
from features.extraction.embed import Clock, Embedder, preprocess
from features.recipe import Recipe, Stated
from tests.features.making import MeanColour
from tests.features.published import PUBLISHED

# The published formats: names and shapes of a first block and of what surrounds the blocks.
VIT = {
    "embeddings.cls_token", "embeddings.position_embeddings",
    "embeddings.patch_embeddings.projection.weight", "embeddings.patch_embeddings.projection.bias",
    "layernorm.weight", "layernorm.bias",
    *(
        f"encoder.layer.0.{part}.{kind}"
        for part in (
            "attention.attention.query", "attention.attention.key", "attention.attention.value",
            "attention.output.dense", "intermediate.dense", "output.dense", "layernorm_before",
            "layernorm_after",
        )
        for kind in ("weight", "bias")
    ),
}  # fmt: skip
DINOV2 = {
    *(key for key in VIT if "layer.0." not in key or "attention" in key),
    "embeddings.mask_token", "encoder.layer.0.layer_scale1.lambda1", "encoder.layer.0.layer_scale2.lambda1",
    *(
        f"encoder.layer.0.{part}.{kind}"
        for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    ),
}  # fmt: skip
GATED = {key.replace("fc1", "weights_in").replace("fc2", "weights_out") for key in DINOV2}
CLIP = {
    "vision_model.embeddings.class_embedding", "vision_model.embeddings.patch_embedding.weight",
    "vision_model.embeddings.position_embedding.weight", "visual_projection.weight",
    *(
        f"vision_model.{part}.{kind}"
        for part in (
            "pre_layrnorm", "post_layernorm",
            *(
                f"encoder.layers.0.{layer}"
                for layer in (
                    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
                    "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2",
                )
            ),
        )
        for kind in ("weight", "bias")
    ),
}  # fmt: skip
FORMATS = {
    "phikon": VIT, "phikon-v2": DINOV2, "midnight-12k": GATED,
    "hibou-b": GATED | {"embeddings.register_tokens"}, "hibou-l": GATED | {"embeddings.register_tokens"},
    "plip": CLIP,
}  # fmt: skip
SMALL = ("kaiko-vits16", "lunit-dino-s16", "gigapath-flash")


@cache
def on_meta(name):
    with names_and_shapes():
        return build_network(ENCODERS[name]).eval()


def of_blocks(keys):
    """The names of the first block and of what surrounds the blocks."""
    return {key for key in keys if not re.search(r"(blocks|layers?)\.[1-9]", key)}


def published(name, network):
    """A state dict in the published format, of made weights; those of timm's format are the network's own."""
    state = {key: value.clone() for key, value in network.state_dict().items()}
    if side := PUBLISHED[name].table_side:
        key = "trunk.pos_embed" if "trunk.pos_embed" in state else "pos_embed"
        table = state[key]
        state[key] = torch.rand(1, 1 + side**2, table.shape[-1], device=table.device)
    if name == "plip":
        state = to_clip(state)
    elif name in FORMATS:
        state = to_transformers(state, gated=FORMATS[name] >= GATED - {""})
    elif name == "conch":
        state = {f"visual.{key}": value for key, value in state.items()}
        state |= {"visual.proj_contrast": torch.zeros(2, 2), "text.cls_emb": torch.zeros(2)}
    elif name == "ctranspath":
        earlier = r"layers\.(\d)\.downsample"
        state = {
            re.sub(earlier, lambda m: f"layers.{int(m[1]) - 1}.downsample", k): v
            for k, v in state.items()
        }
        state["layers.0.blocks.1.attn_mask"] = torch.zeros(2)
    return state


def to_transformers(state, *, gated):
    out = {"embeddings.mask_token": state["cls_token"][:, 0]}
    if "blocks.0.ls1.gamma" not in state:
        del out["embeddings.mask_token"]
    positions = state.pop("pos_embed")
    if "reg_token" in state:
        out["embeddings.register_tokens"] = state.pop("reg_token")
        first = torch.full_like(positions[:, :1], 0.25)
        positions = torch.cat([first, positions], dim=1)
        state["cls_token"] = state["cls_token"] - first
    out["embeddings.position_embeddings"] = positions
    names = {
        "attn.proj": "attention.output.dense", "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    }  # fmt: skip
    if "embeddings.mask_token" not in out:
        names |= {
            "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense", "norm1": "layernorm_before",
            "norm2": "layernorm_after",
        }  # fmt: skip
    if gated:
        names |= {"mlp.fc1": "mlp.weights_in", "mlp.fc2": "mlp.weights_out"}
    for own_key, value in state.items():
        key = renamed(own_key, (r"^blocks\.", "encoder.layer."), (r"^norm\.", "layernorm."))
        key = key.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        if "attn.qkv" in key:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                out[key.replace("attn.qkv", f"attention.attention.{part}")] = third
        else:
            out["embeddings.cls_token" if key == "cls_token" else replaced(key, names)] = value
    return out


def renamed(key, *rules):
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def replaced(key, names):
    for own, other in names.items():
        key = key.replace(own, other) if "layer" in key else key
    return key


def to_clip(state):
    out = {"text_model.final_layer_norm.bias": torch.zeros(2), "logit_scale": torch.zeros(())}
    rules = (
        (r"^norm\.", "post_layernorm."), (r"\.norm([12])\.", r".layer_norm\1."),
        (r"^cls_token", "embeddings.class_embedding"),
        (r"^pos_embed", "embeddings.position_embedding.weight"),
        (r"^patch_embed.proj", "embeddings.patch_embedding"),
        (r"^norm_pre", "pre_layrnorm"), (r"attn\.proj", "self_attn.out_proj"),
        (r"^blocks\.", "encoder.layers."),
        (r"^", "vision_model."),
    )  # fmt: skip
    del state["head.bias"]
    out["visual_projection.weight"] = state.pop("head.weight")
    for own_key, value in state.items():
        key = renamed(own_key, *rules)
        if "attn.qkv" in key:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                out[key.replace("attn.qkv", f"self_attn.{part}_proj")] = third
        else:
            out[key] = value.squeeze() if own_key in ("cls_token", "pos_embed") else value
    return out


@pytest.mark.parametrize("name", ENCODERS)
def test_the_published_format_is_that_of_the_network(name):
    """On the meta device, whole depth: the file's names become the network's, shape by shape."""
    recipe, network = ENCODERS[name], on_meta(name)
    state = published(name, network)
    if name in FORMATS:
        vision = {key for key in state if not key.startswith(("text", "logit"))}
        assert of_blocks(vision) == FORMATS[name]
    renamed = fit_positions(to_timm_names(state), network, recipe.table_side)
    own = network.state_dict()
    assert {key: tuple(v.shape) for key, v in renamed.items()} == {
        key: tuple(value.shape) for key, value in own.items()
    }
    module = PooledFeatures(network, recipe.pooling)
    with torch.device("meta"):
        features = module(torch.empty(2, 3, recipe.input_px, recipe.input_px))
    assert features.shape == (2, recipe.dim)


def shallow(name, depth=1):
    """The same encoder with fewer blocks, so that its weights are small; built by the same code."""
    recipe = ENCODERS[name]
    if "swin" in recipe.architecture or recipe.architecture == "resnet50":
        return recipe
    return replace(recipe, arguments={**recipe.arguments, "depth": depth})


@pytest.mark.parametrize(
    "name", ["phikon", "phikon-v2", "hibou-b", "plip", "conch", "conch-v1.5", "ctranspath"]
)
def test_a_file_in_the_published_format_gives_the_features_of_its_network(name, tmp_path):
    recipe = shallow(name)
    torch.manual_seed(1)
    network = build_network(recipe).eval()
    for parameter in network.state_dict().values():
        if parameter.is_floating_point():
            parameter.add_(0.02 * torch.rand(parameter.shape))
    if name == "plip":
        network.head.bias.data.zero_()
    state = published(name, network)
    if name == "conch-v1.5":  # as the authors' interpolate_pos_encoding does when it runs
        first, table = state["trunk.pos_embed"].split([1, 14**2], dim=1)
        table = table.reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
        scale = (28 + 0.1) / 14
        table = nn.functional.interpolate(table, scale_factor=(scale, scale), mode="bicubic")
        network.trunk.pos_embed.data = torch.cat([first, table.flatten(2).mT], dim=1)
    torch.save({"model": state}, tmp_path / "w.pth")
    loaded = PooledFeatures(load_network(recipe, tmp_path / "w.pth"), recipe.pooling).eval()
    images = torch.randn(1, 3, recipe.input_px, recipe.input_px)
    with torch.inference_mode():
        expected = PooledFeatures(network, recipe.pooling)(images)
        torch.testing.assert_close(loaded(images), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0


@pytest.mark.parametrize("name", SMALL)
def test_whole_files_of_small_encoders_load_by_name(name, tmp_path):
    torch.manual_seed(2)
    network = build_network(ENCODERS[name]).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone(name, str(tmp_path / "w.safetensors"))
    assert isinstance(backbone, Backbone)
    recipe = ENCODERS[name]
    assert (backbone.name, backbone.dim, backbone.input_px) == (name, recipe.dim, recipe.input_px)
    assert (backbone.mean, backbone.std) == (recipe.mean, recipe.std)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        tokens = network.forward_features(images)
        torch.testing.assert_close(backbone.module(images), tokens[:, 0])


@pytest.mark.parametrize("side", ["own", 224])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_tile_of_any_side_is_prepared_as_published(name, side):
    """As by the published transform: torchvision's Resize on a picture, CenterCrop, ToTensor, Normalize."""
    card = PUBLISHED[name]
    side = card.tile_px if side == "own" else side
    tile = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    transform = transforms.Compose([
        transforms.Resize(card.resize_px, transforms.InterpolationMode(card.interpolation)),
        transforms.CenterCrop(card.input_px),
        transforms.ToTensor(),
        transforms.Normalize(card.mean, card.std),
    ])  # fmt: skip
    backbone = Backbone(ENCODERS[name], nn.Identity(), "", "")
    published = transform(Image.fromarray(tile[0])).numpy()
    shown = preprocess(torch.from_numpy(tile), backbone).numpy()[0]
    np.testing.assert_allclose(shown, published, atol=1e-6)
    embedder = Embedder(replace_pooled(backbone), precision="fp32", device="cpu")
    np.testing.assert_allclose(embedder(tile, Clock())[0], published.mean((1, 2)), atol=1e-5)


def replace_pooled(backbone):
    """The same preparation, before a network that gives the mean of each channel."""
    return Backbone(backbone.recipe, MeanColour(), "", "")


@pytest.mark.parametrize("name", ENCODERS)
def test_the_row_of_an_encoder_is_its_card(name):
    card, recipe = PUBLISHED[name], ENCODERS[name]
    assert (recipe.mean, recipe.std) == (card.mean, card.std)
    assert (recipe.input_px, recipe.resized_px) == (card.input_px, card.resize_px)
    assert (recipe.interpolation, recipe.tile_px) == (card.interpolation, card.tile_px)
    assert recipe.table_side == card.table_side
    assert set(PUBLISHED) == set(ENCODERS)
    own = {key: tuple(value.shape) for key, value in published(name, on_meta(name)).items()}
    assert {key: own.get(key) for key in card.shapes} == card.shapes


def test_class_and_patch_tokens_are_pooled_without_registers():
    recipe = shallow("virchow2")
    recipe = replace(recipe, arguments={**recipe.arguments, "embed_dim": 32, "num_heads": 2})
    network = build_network(recipe).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        tokens = network.forward_features(images)
        features = PooledFeatures(network, "cls+mean")(images)
    assert tokens.shape == (1, 1 + 4 + 256, 32)
    torch.testing.assert_close(features, torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], dim=1))


def test_positions_are_resized_as_transformers_does():
    network = on_meta("midnight-12k")
    table = torch.randn(1, 1 + 37**2, 1536)
    assert fit_positions({"pos_embed": table}, network, 0)["pos_embed"] is table
    assert fit_positions({"pos_embed": table}, network, 24)["pos_embed"] is table
    fitted = fit_positions({"pos_embed": table}, network, 37)["pos_embed"]
    grid = table[:, 1:].reshape(1, 37, 37, 1536).permute(0, 3, 1, 2)
    small = nn.functional.interpolate(grid, size=(16, 16), mode="bicubic", align_corners=False)
    assert torch.equal(fitted[:, :1], table[:, :1])
    torch.testing.assert_close(fitted[:, 1:], small.permute(0, 2, 3, 1).reshape(1, 256, 1536))


def test_names_are_found_in_any_spelling_and_by_repository():
    assert find_encoder("UNI2-h").name == "uni2-h"
    assert find_encoder("hf-hub:MahmoodLab/UNI").name == "uni"
    assert find_encoder("hf_hub:mahmoodlab/uni").name == "uni"
    assert resolve_name("H_Optimus_0") == "h-optimus-0"
    assert find_encoder("resnet18") is None
    assert find_encoder("hf-hub:") is None


def lunit_like(tmp_path):
    """A transformer's file whose own mean is .703, under names that timm's ImageNet network has too."""
    torch.manual_seed(3)
    path = tmp_path / "lunit.safetensors"
    save_file(build_network(ENCODERS["lunit-dino-s16"]).state_dict(), path)
    return str(path)


def test_a_file_is_not_prepared_as_its_architecture_happens_to_be(tmp_path):
    path = lunit_like(tmp_path)
    with pytest.raises(BackboneError) as caught:
        load_backbone("vit_small_patch16_224", path)
    message = str(caught.value)
    for way in (
        "(mean=..., std=..., input_px=..., pooling=...)",
        "vit_small_patch16_224.",
        "lunit-dino-s16",
    ):
        assert way in message
    assert load_backbone("lunit-dino-s16", path).mean == pytest.approx(
        (0.703, 0.536, 0.661), abs=1e-3
    )
    stated = Stated(mean=(0.7, 0.5, 0.6), std=(0.2, 0.3, 0.2), input_px=224, pooling="cls")
    backbone = load_backbone("vit_small_patch16_224", path, stated=stated)
    assert (backbone.mean, backbone.std, backbone.recipe.pooling) == (
        stated.mean,
        stated.std,
        "cls",
    )


def test_a_file_of_another_side_is_not_resized_in_silence(tmp_path):
    recipe = replace(
        ENCODERS["h0-mini"],
        architecture="vit_small_patch14_reg4_dinov2",
        arguments={"img_size": 224},
    )
    path = str(tmp_path / "w.safetensors")
    save_file(build_network(recipe).state_dict(), path)
    with pytest.raises(BackboneError, match="does not follow from the architecture"):
        load_backbone("vit_small_patch14_reg4_dinov2", path)
    with pytest.raises(
        BackboneError, match=r"another side of the image \(positions 256 instead of 1369\)"
    ):
        load_backbone("vit_small_patch14_reg4_dinov2.lvd142m", path)
    stated = Stated(mean=(0.7,) * 3, std=(0.2,) * 3, input_px=224, pooling="cls")
    backbone = load_backbone("vit_small_patch14_reg4_dinov2", path, stated=stated)
    assert (backbone.input_px, backbone.dim) == (224, 384)


@pytest.mark.parametrize("name", [*SMALL, "ctranspath", "conch"])
def test_names_and_shapes_are_those_of_the_network(name):
    """Nothing is drawn for them, and what is built afterwards is drawn as ever."""
    real = build_network(ENCODERS[name])
    with names_and_shapes():
        bare = build_network(ENCODERS[name])
    assert all(value.is_meta for value in bare.state_dict().values())
    assert {key: (v.shape, v.dtype) for key, v in bare.state_dict().items()} == {
        key: (v.shape, v.dtype) for key, v in real.state_dict().items()
    }
    assert torch.nn.Linear(8, 8).weight.std() > 0


def test_a_file_of_another_family_is_refused_with_a_name_that_works(tmp_path):
    with names_and_shapes():
        shapes = build_network(ENCODERS["gigapath-flash"]).state_dict()
    path = tmp_path / "w.safetensors"
    save_file({key: torch.zeros(value.shape) for key, value in shapes.items()}, path)
    with pytest.raises(
        BackboneError, match=r"of lunit-dino-s8.*shapes of gigapath-flash: set backbone"
    ):
        load_backbone("lunit-dino-s8", str(path))
    assert load_backbone("gigapath-flash", str(path)).dim == 384


def made_file(path, shapes):
    """A file of weights of these shapes; all of the same storage, so that large ones are written fast."""
    save_file({key: torch.zeros(tuple(shape)) for key, shape in shapes.items()}, path)
    return str(path)


def shapes_of(name, **arguments):
    """The shapes of a network of timm, with its classifier."""
    with names_and_shapes():
        network = timm.create_model(name, **arguments)
    return {key: value.shape for key, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("network", "arguments", "encoder", "reason"),
    [
        # an ImageNet classifier of 224 px
        (
            "vit_small_patch16_224",
            {},
            "lunit-dino-s16",
            r"a classifier \(head.weight: \(1000, 384\)\)",
        ),
        ("vit_small_patch16_224", {"num_classes": 9}, "kaiko-vits16", r"head.weight: \(9, 384\)"),
        # without one, saved at another side
        (
            "vit_small_patch16_384",
            {"num_classes": 0},
            "kaiko-vits16",
            "positions 577 instead of 197",
        ),
        (
            "vit_small_patch8_224",
            {"num_classes": 0, "img_size": 112},
            "lunit-dino-s8",
            "positions 197",
        ),
        (
            "vit_base_patch16_224",
            {"num_classes": 0, "img_size": 96},
            "kaiko-vitb16",
            "positions 37",
        ),
        # of other patches at the same number of them
        (
            "vit_small_patch32_224",
            {"num_classes": 0, "img_size": 448},
            "kaiko-vits16",
            "other patches",
        ),
    ],
)
def test_a_transformer_of_another_kind_is_no_encoders(
    network, arguments, encoder, reason, tmp_path
):
    path = made_file(tmp_path / "w.safetensors", shapes_of(network, **arguments))
    with pytest.raises(BackboneError, match=rf"{reason}.* of {encoder}\. Set backbone to the arch"):
        load_backbone(encoder, path)
    with pytest.raises(BackboneError) as caught:
        load_backbone("vit_small_patch16_224", path)
    assert "names and shapes" not in str(caught.value)


@pytest.mark.parametrize(
    ("of", "named", "whose"),
    [
        ("phikon", "kaiko-vitb16", "transformers' ViTModel"),
        ("kaiko-vitb16", "phikon", "timm"),
        ("phikon-v2", "uni", "transformers' Dinov2Model"),
        ("mstar", "phikon-v2", "timm"),
    ],
)
def test_weights_under_another_librarys_names_are_another_encoders(of, named, whose, tmp_path):
    """The names tell apart what shapes do not: these pairs differ in mean, deviation or filter."""
    state = published(of, on_meta(of))
    shapes = {key: value.shape for key, value in state.items()}
    if shapes.keys() & {"mask_token"}:
        del shapes["mask_token"]
    recipe, own = ENCODERS[named], on_meta(named).state_dict()
    assert {k: v.shape for k, v in to_timm_names(state).items()} == {
        k: v.shape for k, v in own.items()
    }
    made = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    misfit = _fit(made, on_meta(named), recipe)[1]
    assert misfit == f"has the weight names of {whose}, which are not those"
    assert _fit(made, on_meta(of), ENCODERS[of])[1] == ""


def test_another_table_of_positions_is_not_resized_for_any_encoder():
    for name, recipe in ENCODERS.items():
        network = on_meta(name)
        state = published(name, network)
        key = next((k for k in state if re.search(r"pos_embed$|position_embedding", k)), None)
        if key is None:
            continue
        assert _fit(dict(state), network, recipe)[1] == ""
        table, side = state[key], 11
        extra = table.shape[-2] - int(table.shape[-2] ** 0.5) ** 2
        shape = (*table.shape[:-2], extra + side**2, table.shape[-1])
        state[key] = torch.empty(shape, device="meta")
        misfit = _fit(state, network, recipe)[1]
        assert "was saved at another side of the image (positions " in misfit, name


def test_quantised_weights_are_refused_in_one_line(tmp_path):
    with names_and_shapes():
        own = build_network(ENCODERS["kaiko-vits16"]).state_dict()
    state = {key: torch.zeros(value.shape) for key, value in own.items()}
    state["blocks.3.mlp.fc1.weight"] = state["blocks.3.mlp.fc1.weight"].to(torch.int8)
    save_file(state, tmp_path / "w.safetensors")
    for name in ("kaiko-vits16", "vit_small_patch16_224.dino"):
        with pytest.raises(
            BackboneError, match=r"holds 1 quantised weights .*fc1.weight: int8"
        ) as caught:
            load_backbone(name, str(tmp_path / "w.safetensors"))
        assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused_before_any_work(tmp_path):
    state = build_network(ENCODERS["lunit-dino-s16"]).state_dict()
    state["blocks.2.norm1.weight"] = torch.full_like(state["blocks.2.norm1.weight"], torch.inf)
    save_file(state, tmp_path / "w.safetensors")
    for name in ("lunit-dino-s16", "vit_small_patch16_224.dino"):
        with pytest.raises(BackboneError, match=r"not finite \(blocks\.2\.norm1\.weight\)"):
            load_backbone(name, str(tmp_path / "w.safetensors"))


def test_a_whole_network_is_refused_in_words(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    (tmp_path / "g.pth").write_bytes(b"nothing" * 40)
    for name, reason in (("w", "Python objects, which would run code"), ("g", "damaged")):
        with pytest.raises(
            BackboneError, match=rf"^{name}\.pth does not fit any network: it .*{reason}"
        ):
            load_backbone("kaiko-vits16", str(tmp_path / f"{name}.pth"))


def test_what_is_known_of_an_encoder_is_not_overridden():
    stated = Stated(mean=(0.5, 0.5, 0.5))
    assert load_backbone("kaiko-vits16", "random", stated=stated).mean == (0.5, 0.5, 0.5)
    with pytest.raises(BackboneError, match=r"lunit-dino-s16 takes mean \(0\.703.*Leave out mean"):
        load_backbone("lunit-dino-s16", "random", stated=stated)


@pytest.mark.parametrize(
    ("backbone", "side"),
    [("UNI", 256), ("conch", 512), ("hf-hub:prov-gigapath/prov-gigapath", 256), ("virchow2", 224),
     ("resnet18", 224), ("vit_base_patch16_384", 224)],
)  # fmt: skip
def test_tiles_have_the_side_that_an_encoder_was_trained_on(backbone, side):
    assert Recipe(backbone=backbone).tile == Recipe(backbone=backbone, tile=0).tile == side
    assert Recipe(backbone=backbone, tile=96).tile == 96
    assert replace(Recipe(backbone="resnet18"), backbone=backbone).tile == 224


def test_tiles_of_another_scale_are_remarked_on():
    def notes(backbone, **scale):
        return " ".join(scale_notes([Recipe(backbone=backbone, **scale)]))

    assert "uni is for tiles at 0.5 micrometres per pixel; these have 0.25" in notes(
        "uni", mpp=0.25
    )
    assert notes("uni", mpp=0.5) == notes("virchow2", mpp=1.0) == notes("resnet18", mpp=9) == ""
    assert "tiles of 512 px, resized to 448; these have 224" in notes("conch", mpp=0.5, tile=224)
    assert notes("conch", mpp=0.5) == ""
    assert notes("ctranspath", mpp=1.0) == notes("ctranspath", mpp=0.5) == ""
    assert "Use mpp=1 and tile=224, as in its training" in notes("ctranspath", mpp=0.25)
    for mpp, tile in ((0.25, 512), (0.5, 256)):  # as much tissue in as many pixels
        assert notes("gpfm", mpp=mpp, tile=tile) == notes("uni", mpp=mpp, tile=tile) == ""
    assert "Use mpp=0.25 and tile=512, as in its training" in notes("gpfm", mpp=0.5, tile=224)
