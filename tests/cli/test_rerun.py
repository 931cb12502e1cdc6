"""`mil protocol` on small slides, with tiny budgets."""

import csv
import functools
import io
import json
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import pytest

from cli import protocol as module
from cli.flags import use_flags, with_flags
from cli.options import UsageError
from features.bags.bag import read_bag
from features.volumes.listing import list_series, write_list
from mil.errors import CohortError, LeakageError
from mil.evaluation.predictions import read_predictions
from mil.protocols import run as library
from mil.protocols.protocol import load_protocol, protocol_names
from tests.features.volumes.patients import patient
from tests.small_slides import write_small_cohort

pytestmark = pytest.mark.slow

TINY = (
    "extract.weights=random", "extract.tile=64", "extract.max_tiles=6", "arms.backbone=test_resnet",
)  # fmt: skip
VOLUMES = ("extract.weights=random", "volumes.tile=32", "arms.backbone=test_resnet")
FROZEN = ("fit.epochs=2", "split.folds=2", "arms=ResNet50V2;VGG19")
TUNED = (
    "finetune.epochs=1", "finetune.tiles_per_slide=4", "finetune.hidden=[8]", "finetune.batch_tiles=16",
)  # fmt: skip
BUDGET = {
    "usta-phase1": (*TINY, *FROZEN),
    "usta-phase2": (*TINY, *TUNED, "finetune.hold_out_tiles=2", "split.folds=2"),
    "usta-phase4": (*TINY, *TUNED, "finetune.hold_out_tiles=2", "split.folds=2"),
    "foersch-subtypes": (*TINY, *TUNED),
    "thiesen-sampler": (
        *TINY,
        "split.folds=2",
        "arms=RMS: UNI;RMS: UNI, two scales;Ewing: UNI, two scales",
        'questions.rms={RMS=["lms"], NRSTS=["*"]}',
        'questions.ewing={Ewing=["SS"], "other NRSTS"=["*"]}',
    ),
    "piffer-metastasis": (
        *VOLUMES, *TUNED, "split.folds=2", "finetune.patience=1", "finetune.early_stopping=always",
        "arms=1: CT, Dose, T1w;5: CT, T1w, T2w;8: Dose, T1w, T2w",
        'questions.metastasis={metastasis=["LMS"], free=["*"]}',
    ),
    "navarro-grading": (
        *VOLUMES, *TUNED, "split.folds=2", "split.repeats=2", "finetune.early_stopping=never",
        "finetune.patience=0", "volumes.slice_mm=0", "arms=T1FSGd",
        'questions.grade={high=["LMS"], low=["SS"]}',
    ),
    "yang-lipoma": (
        *VOLUMES, "split.folds=2", "split.repeats=2",
        "arms=ResNet50: CT;ResNet50: T1+T2;ResNet50: CT+T1+T2",
        'questions.liposarcoma={liposarcoma=["LMS"], lipoma=["*"]}',
    ),
}  # fmt: skip
SERIES = ("CT", "Dose", "T1", "T2", "T1CEFS")  # of studies on volumes


def is_of_volumes(name):
    return any(arm.shows for arm in load_protocol(name).arms)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Twelve patients with five modalities; a third of them stand for another hospital's."""
    folder = tmp_path_factory.mktemp("series")
    for i in range(12):
        patient(folder / "patients" / f"p{i}", seed=i, modalities=SERIES, shape=(10, 32, 32))
    write_list(folder / "volumes.csv", list_series(folder / "patients"))
    rows = [f"p{i},{'LMS' if i % 2 else 'SS'},{'test' if i >= 8 else 'train'}" for i in range(12)]
    (folder / "cases.csv").write_text("\n".join(["case,label,split", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Eight small slides of two subtypes; half of the cases stand for another hospital's."""
    folder = tmp_path_factory.mktemp("protocol")
    table = write_small_cohort(folder, cases_per_class=4, labels=("LMS", "SS"))
    head, *lines = table.read_text().splitlines()
    seen, rows = Counter(), [f"{head},split"]
    for line in lines:
        label = line.split(",")[head.split(",").index("label")]
        rows.append(f"{line},{'test' if seen[label] >= 2 else 'train'}")
        seen[label] += 1
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return folder


def options(study, out, name, *more):
    return module.RunOptions(
        name=name,
        cohort=study / "cohort.csv",
        slides=study / "slides",
        annotations=study / "annotations",
        out=out,
        set=(*BUDGET[name], *more),
    )


@pytest.fixture(scope="module")
def rerun(study, series, tmp_path_factory):
    """rerun(name) -> the folder, the output and the errors of a study; each is run once."""

    @functools.cache
    def run(name):
        folder, out, err = tmp_path_factory.mktemp(name) / "out", io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            settings = options(study, folder, name)
            if is_of_volumes(name):
                table, cases = series / "volumes.csv", series / "cases.csv"
                settings = replace(
                    settings, cohort=table, cases=cases, slides=None, annotations=None
                )
            module.run(settings)
        return folder, out.getvalue(), err.getvalue()

    return run


def rows_of(out):
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_study_is_rerun_here_but_that_of_segmenters():
    assert set(protocol_names()) - set(BUDGET) == {"usta-phase3"}  # test_segmentation_protocol.py


@pytest.mark.parametrize("name", BUDGET)
def test_a_study_is_rerun_and_its_figures_stand_beside_ours(rerun, name):
    folder, out, err = rerun(name)
    assert "The data differ" in err
    assert "Changed from the study: extract.weights=random" in err
    assert ("is the best of 3 arms" in err) == (name in ("piffer-metastasis", "yang-lipoma"))
    assert "printed" in out
    embedded = [line for line in out.splitlines() if "embedded at" in line]
    assert embedded
    assert all(("slices/s" in line) == is_of_volumes(name) for line in embedded)
    assert ", here test_resnet" in out
    rows = rows_of(folder)
    assert {row["backbone"] for row in rows} == {"test_resnet"}
    published = [float(row["published"]) for row in rows if row["published"]]
    assert published
    assert all(0 <= float(row["measured"]) <= 1 for row in rows if row["measured"])
    assert json.loads((folder / "run.json").read_text())["complete"]
    same_cases = [row for row in rows if "held-out tiles" in row["arm"]]
    assert not [row for row in same_cases if row["measure"].startswith("case")]
    tested = 8 if name in ("piffer-metastasis", "yang-lipoma") else 4
    files = sorted(folder.glob("predictions*.csv"))
    assert len(files) == (2 if name == "thiesen-sampler" else 1)
    for file in files:
        predictions = read_predictions(file)
        assert predictions.table.groupby("model")["case"].nunique().eq(tested).all()
    comparison = json.loads((folder / "comparison.json").read_text())
    compared = {
        "usta-phase4": [("40x", "16x")],
        "yang-lipoma": [("ResNet50: CT+T1+T2", "ResNet50: T1+T2")],
    }
    pairs = [tuple(sorted((c["first"], c["second"]))) for c in comparison]
    assert pairs == [tuple(sorted(pair)) for pair in compared.get(name, [])]


def test_arms_of_one_scale_share_its_bags_and_two_scales_are_joined(rerun):
    folder, out, _ = rerun("thiesen-sampler")
    arms = folder / "arms"
    made = {str(path.parent.relative_to(arms)) for path in arms.rglob("case-01-s1.h5")}
    assert made == {
        "RMS--UNI/store",  # which the arms of two scales read too
        "RMS--UNI--two-scales/store/mpp-1",
        "RMS--UNI--two-scales/joined",
        "Ewing--UNI--two-scales/joined",
    }
    one = read_bag(arms / "RMS--UNI" / "store" / "case-01-s1.h5")
    both = read_bag(arms / "Ewing--UNI--two-scales" / "joined" / "case-01-s1.h5")
    assert (both.dim, both.recipe["joined"]) == (2 * one.dim, "tile")
    assert {row["measure"] for row in rows_of(folder)} == {"case_accuracy", "case_auc"}
    assert "over cases" in out
    assert read_predictions(folder / "predictions-ewing.csv").classes == ("Ewing", "other NRSTS")


def test_a_run_cut_off_is_taken_up_and_says_the_same(study, rerun, tmp_path, monkeypatch):
    describe = library._describe_arm

    def cut(result):
        raise KeyboardInterrupt

    monkeypatch.setattr(library, "_describe_arm", cut)
    with pytest.raises(KeyboardInterrupt):
        module.run(options(study, tmp_path / "cut", "usta-phase2"))
    monkeypatch.setattr(library, "_describe_arm", describe)
    weights = sorted((tmp_path / "cut").rglob("weights.safetensors"))
    stamps = [path.stat().st_mtime_ns for path in weights]
    assert len(weights) == 2
    module.run(options(study, tmp_path / "cut", "usta-phase2"))
    assert [path.stat().st_mtime_ns for path in weights] == stamps
    assert rows_of(tmp_path / "cut") == rows_of(rerun("usta-phase2")[0])


def test_weights_that_have_seen_the_tested_cases_are_refused(study, rerun, tmp_path):
    [seen] = (rerun("usta-phase2")[0] / "arms" / "held-out-tiles").rglob("weights.safetensors")
    for name in ("usta-phase1", "usta-phase2"):
        with pytest.raises(LeakageError, match=r"have seen|trained on"):
            module.run(options(study, tmp_path / name, name, f"extract.weights={seen}"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ("split.folds=site", CohortError, "have no site|one site only"),
        ("arms.backbone=no_such_network", UsageError, "no_such_network"),
    ],
)
def test_what_cannot_be_is_refused_before_the_folder_is_begun(
    study, tmp_path, change, error, words
):
    with pytest.raises(error, match=words):
        module.run(options(study, tmp_path / "x", "usta-phase1", change))
    assert not (tmp_path / "x").exists()


def test_show_separates_settings_of_the_source_from_ours(mil):
    output = mil("protocol", "show", "usta-phase1").stdout
    stated, ours = output.split("Chosen here")
    assert "extract.min_coverage = 0.6: only tiles with at least 60 % tumour are taken" in stated
    assert "extract.tile = 224: no size is given" in ours
    assert "0.49" in stated


def test_list_names_them_all(mil):
    output = mil("protocol", "list").stdout
    assert all(name in output for name in protocol_names())


def test_a_finished_run_is_not_replaced_unasked(mil, study, tmp_path):
    done = mil("protocol", "run", "usta-phase9", study / "cohort.csv", "--slides", study / "slides",
               "--out", tmp_path / "x", check=False)  # fmt: skip
    assert done.returncode == 2
    assert "No protocol 'usta-phase9'" in done.stderr


def test_a_stain_that_a_tested_case_gave_is_refused(study, tmp_path):
    stain = ("extract.stain=reinhard", "extract.stain_reference=case-01-s1")
    with pytest.raises(LeakageError, match="case-01"):
        module.run(options(study, tmp_path / "x", "usta-phase1", *stain))


def test_messages_of_a_study_name_its_settings_as_set_changes_them():
    use_flags(module._setting_flags(load_protocol("piffer-metastasis")))
    message = with_flags("Fewer cases: give early_stopping='never', or set batch_tiles lower.")
    assert message == (
        "Fewer cases: give --set finetune.early_stopping=never, or set --set finetune.batch_tiles lower."
    )
    use_flags({})
