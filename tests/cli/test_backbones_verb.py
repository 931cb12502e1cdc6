"""`mil backbones`: the list, one file for another machine, and which real weights a machine has."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cli.doctor import NO_WEIGHTS, DoctorOptions, doctor
from cli.main import app
from features.backbones import packaged
from features.backbones.pathology import ENCODERS
from features.backbones.registry import load_backbone
from features.errors import BackboneError


def run(*arguments):
    app(list(arguments), prog_name="mil", standalone_mode=False)


@pytest.mark.parametrize("verb", [(), ("list",)])
def test_backbones_are_listed_with_scale_licence_and_place(capsys, verb):
    run("backbones", *verb)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert lines.keys() >= set(ENCODERS)
    assert lines["uni"].split()[1:4] == ["1024", "224", "0.5"]
    assert "CC-BY-NC-ND-4.0, gated" in lines["uni"]
    assert lines["uni"].endswith("huggingface.co/MahmoodLab/UNI")
    assert "at hand" in lines["efficientnet-lite0"]


def test_one_file_is_written_for_another_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("backbones", "get", "efficientnet-lite0", "--out", "lite0.safetensors")
    assert "--backbone efficientnet-lite0 --weights lite0.safetensors" in capsys.readouterr().out
    assert load_backbone("efficientnet-lite0", "lite0.safetensors").dim == 1280
    Path("mine.safetensors").write_bytes(b"mine")
    get = ["backbones", "get", "efficientnet-lite0", "--out", "mine.safetensors"]
    with pytest.raises(BackboneError, match=r"out is mine\.safetensors, which exists\. Name"):
        run(*get)
    assert Path("mine.safetensors").read_bytes() == b"mine"
    run(*get, "--overwrite")
    first, second = (load_file(f"{name}.safetensors") for name in ("lite0", "mine"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_machine_without_real_weights_is_told_so(roomy_disk, monkeypatch, tmp_path, capsys):
    doctor(DoctorOptions(folder=tmp_path))
    assert "No problem found." in capsys.readouterr().out
    monkeypatch.setattr(packaged, "PACKAGED", {})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("features.backbones.catalogue.packaged_file", lambda name: None)
    doctor(DoctorOptions(folder=tmp_path))
    assert NO_WEIGHTS in " ".join(capsys.readouterr().out.split())
