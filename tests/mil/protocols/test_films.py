"""The volumes of a study are read before anything is trained, and all that fail are named."""

import pytest

from features.progress import Silent
from features.volumes.listing import list_series, write_list
from mil.data.volumes import read_volume_table, rows_of
from mil.errors import FitError
from mil.finetune.distributed import ranks
from mil.protocols import rerun as module
from mil.protocols.films import Films
from mil.protocols.protocol import load_protocol, with_changes
from mil.protocols.rerun import Rerun
from tests.features.volumes.patients import patient

CHANGES = (
    "extract.weights=random", "volumes.tile=32", "arms.backbone=test_resnet", "split.folds=2",
    "split.repeats=1", "arms=ResNet50: T1;ResNet50: CT",
)  # fmt: skip


def table_of(folder, spoil):
    """Six patients with CT and T1, of whom some are spoilt."""
    labels = []
    for i in range(6):
        patient(folder / "patients" / f"p{i}", seed=i, modalities=("CT", "T1"), shape=(8, 24, 24))
        labels.append(f"p{i},{'lipoma' if i % 2 else 'WDLPS'}")
    write_list(folder / "volumes.csv", list_series(folder / "patients"))
    (folder / "cases.csv").write_text("\n".join(["case,label", *labels]) + "\n")
    spoil(folder)
    return read_volume_table(folder / "volumes.csv", cases=folder / "cases.csv")


def films_of(table, folder):
    return Films(table=table, folder=folder, progress=Silent(), notify=print)


def results_of(folder, table, changes=CHANGES):
    with ranks("cpu", 1) as process:
        rerun = Rerun(
            protocol=with_changes(load_protocol("yang-lipoma"), changes), rows=rows_of(table), jobs=(),
            out=folder / "run", ranks=process, progress=Silent(),
            films=films_of(table, folder / "run" / "arms" / "films"),
        )  # fmt: skip
        return list(rerun.results())


def without(folder, *rows):
    """Take modalities of patients out of the table."""
    path = folder / "volumes.csv"
    lines = [
        line for line in path.read_text().splitlines() if tuple(line.split(",")[:2]) not in rows
    ]
    path.write_text("\n".join(lines) + "\n")


def test_patients_without_a_modality_of_a_later_arm_are_all_named_before_any_film(tmp_path):
    table = table_of(tmp_path, lambda folder: without(folder, ("p1", "CT"), ("p4", "CT")))
    with pytest.raises(FitError) as caught:
        results_of(tmp_path, table)
    assert str(caught.value).startswith(
        "2 volumes cannot be used for CT, and nothing was trained. p1: There is no CT, only T1."
    )
    assert "p4: There is no CT" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_corrupt_file_of_a_later_arm_stops_before_the_first_arm(tmp_path, monkeypatch):
    def spoil(folder):
        path = folder / "patients" / "p2" / "CT_image.nii.gz"
        path.write_bytes(path.read_bytes()[:700])

    monkeypatch.setattr(module, "extract", lambda *_, **__: pytest.fail("embedded"))
    table = table_of(tmp_path, spoil)
    with pytest.raises(
        FitError, match=r"1 volume cannot be used for CT, and nothing was trained\. p2: "
    ):
        results_of(tmp_path, table)


def test_a_patient_that_the_question_leaves_out_stops_nothing(tmp_path):
    table = table_of(tmp_path, lambda folder: without(folder, ("p5", "CT"), ("p3", "T1")))
    rows = (tmp_path / "cases.csv").read_text()
    for name in ("p5", "p3"):
        rows = rows.replace(f"{name},lipoma", f"{name},GIST")
    (tmp_path / "cases.csv").write_text(rows)
    table = read_volume_table(tmp_path / "volumes.csv", cases=tmp_path / "cases.csv")
    question = (
        'questions.liposarcoma={liposarcoma=["WDLPS"], lipoma=["lipoma"], "left out"=["GIST"]}'
    )
    protocol = with_changes(load_protocol("yang-lipoma"), [*CHANGES, question])
    with ranks("cpu", 1) as process:
        rerun = Rerun(
            protocol=protocol, rows=rows_of(table), jobs=(), out=tmp_path / "run", ranks=process,
            progress=Silent(), films=films_of(table, tmp_path / "films"),
        )  # fmt: skip
        rerun.lay_out_films()
    assert {job.case for job in rerun.jobs_of(protocol.arms[0])} == {"p0", "p1", "p2", "p4"}
