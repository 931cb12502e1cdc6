"""The store of CT and MRI series: its bags are those of the regions that are drawn now."""

import numpy as np
import SimpleITK as sitk

from features.bags.bag import read_bag
from features.recipe import Recipe
from features.volumes.recipe import VolumeRecipe
from mil.data.volumes import extract_volumes

VOLUMES = VolumeRecipe(channels=("T2",), tile=32, margin_mm=2.0)
RECIPE = Recipe(backbone="test_resnet", weights="random")


def save(path, values, spacing_mm=(1.0, 1.0, 4.0)):
    picture = sitk.GetImageFromArray(values)
    picture.SetSpacing(spacing_mm)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(picture, str(path))


def test_a_bag_follows_its_region_and_goes_with_it(tmp_path):
    rng = np.random.default_rng(5)
    region = np.zeros((7, 30, 30), np.uint8)
    region[2:5, 10:20, 8:16] = 1
    lines = ["case,modality,path,mask"]
    for case in ("a", "b"):
        save(tmp_path / case / "T2.nii.gz", rng.normal(100, 9, region.shape).astype(np.float32))
        save(tmp_path / case / "mask.nii.gz", region)
        lines.append(f"{case},T2,{case}/T2.nii.gz,{case}/mask.nii.gz")
    (tmp_path / "t.csv").write_text("\n".join(lines))

    def extract():
        return extract_volumes(tmp_path / "t.csv", tmp_path / "s", volumes=VOLUMES, recipe=RECIPE)

    extract()
    before = {case: len(read_bag(tmp_path / "s" / f"{case}.h5")) for case in ("a", "b")}
    assert before == {"a": 3, "b": 3}
    region[1, 4:9, 4:9] = 1
    save(tmp_path / "a" / "mask.nii.gz", region)
    extract()
    assert len(read_bag(tmp_path / "s" / "a.h5")) == 4
    save(tmp_path / "a" / "mask.nii.gz", 0 * region)
    done = extract()
    assert [film.status for film in done.films] == ["failed", "skipped"]
    assert not (tmp_path / "s" / "a.h5").exists()
    assert len(read_bag(tmp_path / "s" / "b.h5")) == 3
    assert "\na," not in done.cohort.read_text()


def test_micro_ct_becomes_bags_with_the_volume_of_its_region(tmp_path):
    spacing_mm = (0.0055, 0.0055, 0.008)
    region = np.zeros((9, 40, 40), np.uint8)
    region[2:7, 10:30, 8:33] = 1
    values = np.random.default_rng(1).normal(100, 9, region.shape).astype(np.float32)
    save(tmp_path / "a" / "CT.nii.gz", values, spacing_mm)
    save(tmp_path / "a" / "mask.nii.gz", region, spacing_mm)
    (tmp_path / "t.csv").write_text("case,modality,path,mask\na,CT,a/CT.nii.gz,a/mask.nii.gz\n")
    volumes = VolumeRecipe(channels=("CT",), tile=64, margin_mm=0.02)
    done = extract_volumes(tmp_path / "t.csv", tmp_path / "s", volumes=volumes, recipe=RECIPE)
    assert len(read_bag(tmp_path / "s" / "a.h5")) == 5
    size_ml = 5 * 20 * 25 * 0.0055**2 * 0.008 / 1000
    assert done.cohort.read_text().splitlines()[1] == f"a,a,{size_ml:.3g}"
