"""The commands of the manual's two real cases, on made files of the same names and form."""

import shlex

import numpy as np
import pytest
from PIL import Image

from tests.features.volumes.patients import cohort as write_patients
from tests.manual import DOCS, commands

pytestmark = pytest.mark.slow
PATIENTS = ("Case-3-A", "Case-4-C", "Case-48-P5-C", "P9-B")


def write_fields(folder):
    """A field of each of two blocks of four patients, one of them viable, and the table of blocks."""
    (folder / "fields").mkdir()
    rng = np.random.default_rng(0)
    rows = ["case,slide,label,site"]
    for patient in PATIENTS:
        for number in (12, 13):
            block, viable = f"{patient}{number}", number % 2
            pixels = rng.normal((190, 120 + 30 * viable, 180), 25, (448, 448, 3)).clip(0, 255)
            name = f"{'Viable' if viable else 'Non-Tumor'}___{block}-1024-2048_7.jpg"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "fields" / name)
            label = "viable" if viable else "not viable"
            rows.append(f"{block},{block},{label},{patient.rpartition('-')[0]}")
    (folder / "blocks.csv").write_text("\n".join(rows) + "\n")


def write_sarcomas(folder):
    """T1 of ten patients, and their table."""
    write_patients(folder / "sarcomas", 10, modalities=("T1",), shape=(8, 32, 32))
    rows = [
        f"p{i},{'metastases' if i % 2 else 'free'},{40 + i * i % 7},Male,High" for i in range(10)
    ]
    (folder / "cases.csv").write_text("\n".join(["case,label,age,sex,grade", *rows]) + "\n")


@pytest.mark.parametrize(
    ("page", "write"),
    [("bone-sarcoma.md", write_fields), ("soft-tissue-mri.md", write_sarcomas)],
)
def test_every_command_of_a_real_case_runs(page, write, mil, tmp_path):
    write(tmp_path)
    done = [mil(*shlex.split(line)[1:], cwd=tmp_path) for line in commands([DOCS / page])]
    assert len(done) > 3
    assert any("Run folder" in run.stdout for run in done)
