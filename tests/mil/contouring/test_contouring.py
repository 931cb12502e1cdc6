"""Contours of CT and MRI: learnt from shape, judged by patient in millimetres, and no way round the folds."""

import csv
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from features.bags.bag import read_bag
from features.recipe import Recipe
from features.volumes.image_files import read_image_file
from features.volumes.listing import list_series, write_list
from features.volumes.predicted import MaskCard
from features.volumes.recipe import VolumeRecipe
from features.volumes.surfaces import dice
from mil.contouring.application import apply_contours
from mil.contouring.baselines import best_window, usual_place
from mil.contouring.cases import read_cases
from mil.contouring.evaluation import ContourEvaluation, evaluation_tables, mean_distance, verdict
from mil.contouring.network import confidence_of, train_network
from mil.contouring.run import contour_volumes, read_table_for
from mil.contouring.scores import METHODS, UNET, WINDOW, ContourScores, score
from mil.contouring.settings import ContourSettings
from mil.contouring.stored import load_contours, save_contours
from mil.data.cohort import load_cohort
from mil.data.splits import SplitSettings, split_cases
from mil.data.volumes import extract_volumes, read_volume_table
from mil.errors import CohortError, FitError, LeakageError
from mil.learning.crossval import check_seen
from mil.runs.record import NewRun
from tests.features.volumes.patients import patient_with_bars, save

SMALL = ContourSettings(modality="CT", field_mm=48, width=6, steps=90, batch=6, rate=0.01)


def write_table(folder, n):
    """Patients p0, p1, ... whose ball is as bright as the bars through it, as a table."""
    for i in range(n):
        patient_with_bars(folder / "patients" / f"p{i}", seed=i)
    write_list(folder / "volumes.csv", list_series(folder / "patients"))
    return folder / "volumes.csv"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Six drawn patients, one that is not, and one of a kept row whose files are garbage."""
    folder = tmp_path_factory.mktemp("contours")
    table = write_table(folder, 8)
    lines = list(csv.reader(table.read_text().splitlines()))
    mask = lines[0].index("mask")
    lines[7][mask] = ""
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [[*lines[0], "label", "split"]]
            + [[*line, "ab"[i % 2], "test" if i == 7 else ""] for i, line in enumerate(lines[1:])]
        )
    for path in (folder / "patients" / "p7").iterdir():
        path.write_bytes(b"nothing")
    notes = []
    done = contour_volumes(
        NewRun(path=folder / "run", settings={"modality": "CT"}), read_table_for(table, "CT"), SMALL,
        n_folds=2, notify=notes.append,
    )  # fmt: skip
    return folder, done, notes


def test_the_network_beats_a_window_of_values_where_shape_tells_and_brightness_does_not(study):
    _, done, _ = study
    figures = {m: done.evaluation.estimate(m, "dice").value for m in METHODS}
    assert figures[UNET] > 0.8
    assert figures[WINDOW] < 0.7
    [pair] = [p for p in done.evaluation.comparisons("dice") if p.second == WINDOW]
    assert (pair.better, pair.cases) == (6, 6)
    assert pair.low > 0
    [pair] = [p for p in done.evaluation.comparisons("hausdorff95_mm") if p.second == WINDOW]
    assert (pair.better, pair.cases) == (6, 6)
    assert pair.high < 0


def test_a_kept_row_is_not_read_and_an_undrawn_volume_is_contoured_and_not_judged(study):
    folder, done, notes = study
    assert notes == ["1 case with split=test: kept for external validation."]
    assert done.undrawn == ("p6",)
    assert {one.volume for one in done.evaluation.scores} == {f"p{i}" for i in range(6)}
    rows = list(csv.DictReader((folder / "run" / "volumes.csv").read_text().splitlines()))
    assert [row["case"] for row in rows] == [f"p{i}" for i in range(7)]
    assert rows[6]["mask"] == "masks/p6.nii.gz"


@pytest.fixture(scope="module")
def new_patients(study, tmp_path_factory):
    """A table of two new patients, one of them drawn, one of the study, and its image under another name."""
    folder = tmp_path_factory.mktemp("new")
    for i in (20, 21):
        patient_with_bars(folder / "patients" / f"n{i}", seed=i)
    shutil.copytree(study[0] / "patients" / "p2", folder / "patients" / "p2")
    shutil.copytree(study[0] / "patients" / "p3", folder / "patients" / "renamed")
    write_list(folder / "volumes.csv", list_series(folder / "patients"))
    lines = list(csv.reader((folder / "volumes.csv").read_text().splitlines()))
    lines[2][lines[0].index("mask")] = ""
    with (folder / "volumes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder


def test_the_network_of_a_run_contours_new_patients_and_is_judged_by_those_it_has_not_seen(
    study, new_patients, tmp_path
):
    folder, _, _ = study
    contours = load_contours(folder / "run")
    assert contours.settings == SMALL
    applied = apply_contours(
        NewRun(path=tmp_path / "out", settings={}),
        read_table_for(new_patients / "volumes.csv", "CT"), contours, modality="CT",
    )  # fmt: skip
    assert applied.drawn == ("n20", "n21", "p2", "renamed")
    assert applied.seen == ("p2", "renamed")
    assert [one.volume for one in applied.evaluation.scores] == ["n20"]
    assert applied.evaluation.scores[0].dice > 0.7
    [table] = evaluation_tables(applied.evaluation)
    assert len(table.rows) == 1
    rows = list(csv.DictReader((tmp_path / "out" / "outcomes.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["judged", "contoured", "contoured", "contoured"]
    [undrawn] = [
        j for j in read_volume_table(folder / "run" / "volumes.csv").jobs if j.name == "p6"
    ]
    of_run = read_image_file(undrawn.modalities["CT"].mask)
    again = apply_contours(  # as the run itself has contoured the volume that nobody drew
        NewRun(path=tmp_path / "again", settings={}),
        only(read_table_for(folder / "volumes.csv", "CT"), "p6"), contours, modality="CT",
    )  # fmt: skip
    assert again.drawn == ("p6",)
    mine = read_image_file(tmp_path / "again" / "masks" / "p6.nii.gz")
    np.testing.assert_array_equal(mine.values, of_run.values)
    assert mine.values.any()


def test_a_region_beyond_the_field_of_an_applied_network_is_said(study, new_patients, tmp_path):
    contours = load_contours(study[0] / "run")
    narrow = replace(contours, settings=replace(SMALL, field_mm=16))
    table, notes = only(read_table_for(new_patients / "volumes.csv", "CT"), "n20"), []
    apply_contours(
        NewRun(path=tmp_path / "out", settings={}),
        table,
        narrow,
        modality="CT",
        notify=notes.append,
    )
    [note] = [note for note in notes if "beyond the field of 16 mm" in note]
    assert note.startswith("n20: ")
    assert note.endswith("Crop the image as those were that it has learnt from.")


def only(table, name):
    return replace(table, jobs=tuple(job for job in table.jobs if job.name == name))


def test_masks_of_an_applied_network_remember_whom_it_has_seen(study, new_patients, tmp_path):
    contours = load_contours(study[0] / "run" / "network.safetensors")
    table = read_table_for(new_patients / "volumes.csv", "CT")
    apply_contours(NewRun(path=tmp_path / "out", settings={}), table, contours, modality="CT")
    cards = {
        name: json.loads((tmp_path / "out" / "masks" / f"{name}.trained.json").read_text())
        for name in ("n20", "p2")
    }
    assert cards["n20"] == cards["p2"]
    assert cards["n20"]["trained_on"] == [f"p{i}" for i in range(6)]
    back = read_table_for(tmp_path / "out" / "volumes.csv", "CT")
    with pytest.raises(LeakageError, match="n20: its mask was drawn by a network"):
        contour_volumes(NewRun(path=tmp_path / "loop", settings={}), back, SMALL, n_folds=2)


def test_a_file_that_is_no_network_is_named(study, tmp_path):
    with pytest.raises(FitError, match=r"network\.safetensors: no network that draws contours"):
        load_contours(tmp_path)
    path = tmp_path / "network.safetensors"
    path.write_bytes((study[0] / "run" / "network.safetensors").read_bytes()[:-40])
    with pytest.raises(FitError, match="no network that draws contours"):
        load_contours(path)
    card = MaskCard(trained_on=(), trained_on_slides=(), facts={"modality": "CT", "width": 4})
    save_contours(path, replace(load_contours(study[0] / "run"), card=card))
    with pytest.raises(FitError, match="no network that draws contours"):
        load_contours(path)  # weights of another width


def test_the_run_says_which_masks_were_trained_on(study):
    folder, done, _ = study
    assert done.regions == (("mask.nii.gz, label 1", 6),)
    info = json.loads((folder / "run" / "run.json").read_text())
    assert info["masks"]["p0"]["region"] == "mask.nii.gz, label 1"
    assert "p6" not in info["masks"]
    assert info["complete"]


def test_no_network_has_seen_the_patient_that_it_contours(study):
    folder, _, _ = study
    for i in range(6):
        card = json.loads((folder / "run" / "masks" / f"p{i}.trained.json").read_text())
        assert f"p{i}" not in card["trained_on"]
        assert len(card["trained_on"]) == 3
    card = json.loads((folder / "run" / "masks" / "p6.trained.json").read_text())
    assert card["trained_on"] == [f"p{i}" for i in range(6)]


def test_masks_come_back_through_the_table_and_agree_with_the_scores(study):
    folder, done, _ = study
    table = read_volume_table(folder / "run" / "volumes.csv")
    recipe = VolumeRecipe(channels=("CT",))
    dice_of = {one.volume: one.dice for one in done.evaluation.scores if one.method == UNET}
    for job in table.jobs[:2]:
        _, mask = job.read(recipe)
        drawn = read_image_file(folder / "patients" / job.case / "mask.nii.gz").values > 0
        assert dice(mask.values, drawn) == pytest.approx(dice_of[job.name], abs=1e-12)
        confidence = read_image_file(folder / "run" / "confidence" / f"{job.name}.nii.gz")
        assert np.array_equal(confidence.values >= 0.5, mask.values)


def test_bags_of_these_masks_are_refused_where_a_seen_patient_would_be_tested(study):
    folder, _, _ = study
    done = extract_volumes(
        folder / "run" / "volumes.csv", folder / "store",
        volumes=VolumeRecipe(channels=("CT",), tile=32),
        recipe=Recipe(backbone="test_resnet", weights="random"),
    )  # fmt: skip
    assert not done.failed
    bag = read_bag(folder / "store" / "p0.h5")
    assert "p0" not in bag.trained_on
    assert len(bag.trained_on) == 3
    sources = read_bag(folder / "store" / f"{bag.trained_on[0]}.h5").sources
    assert not sources.isdisjoint(
        bag.trained_on_slides
    )  # a patient under another name is recognised
    cohort = load_cohort(done.cohort, folder / "store")
    folds = split_cases(
        cohort.names, cohort.labels, [""] * len(cohort.names), SplitSettings(folds="2")
    )
    with pytest.raises(
        LeakageError, match="network that drew the masks of these bags was trained on 6"
    ):
        check_seen(cohort, folds)


def test_a_mask_that_a_network_has_drawn_is_no_reference(study):
    folder, _, _ = study
    table = read_volume_table(folder / "run" / "volumes.csv")
    with pytest.raises(LeakageError, match="p0: its mask was drawn by a network, trained on p"):
        read_cases(table.jobs, SMALL)


def test_the_same_seed_gives_the_same_masks(study, tmp_path):
    folder, _, _ = study
    table = read_table_for(folder / "volumes.csv", "CT")
    few = replace(SMALL, steps=3)
    for name in ("a", "b"):
        contour_volumes(NewRun(path=tmp_path / name), table, few, n_folds=2)
    for name in ("scores.csv", "masks/p2.nii.gz", "masks/p6.trained.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("steps", [1, 2, 4, 9])
def test_few_steps_are_enough_to_run(study, steps):
    folder, _, _ = study
    cases = read_cases(read_table_for(folder / "volumes.csv", "CT").jobs[:1], SMALL).cases
    network = train_network(cases, replace(SMALL, steps=steps, width=2))
    assert 0 < confidence_of(network, cases[0]).max() < 1


def test_other_methods_know_training_patients_only(study):
    folder, _, _ = study
    cases = read_cases(read_table_for(folder / "volumes.csv", "CT").jobs[:4], SMALL).cases
    changed = [*cases[:3], replace(cases[3], region=~cases[3].region, pixels=-cases[3].pixels)]
    assert best_window(cases[:3]) == best_window(changed[:3])
    share = usual_place(cases[:3]).share
    assert share.max() <= 1
    assert np.array_equal(np.unique(np.round(share * 3)), np.round(np.unique(share * 3)))


def test_the_best_window_is_that_of_a_search_over_all_pairs(study):
    folder, _, _ = study
    cases = read_cases(read_table_for(folder / "volumes.csv", "CT").jobs[:2], SMALL).cases
    values = np.concatenate([case.pixels[case.inside] for case in cases])
    edges = np.unique(np.quantile(values, np.linspace(0, 1, 65)))
    best = -1.0
    for i, low in enumerate(edges[:-1]):
        for high in edges[i + 1 :]:
            masks = [(c.pixels >= low) & (c.pixels <= high) & c.inside for c in cases]
            best = max(
                best, np.mean([dice(m, c.region) for m, c in zip(masks, cases, strict=True)])
            )
    window = best_window(cases)
    mean = np.mean([dice(window.mask(case), case.region) for case in cases])
    assert mean == pytest.approx(best, abs=2e-3)


def test_an_empty_contour_or_drawing_is_undefined_and_counted(study):
    folder, _, _ = study
    case = read_cases(read_table_for(folder / "volumes.csv", "CT").jobs[:1], SMALL).cases[0]
    nothing = np.zeros(case.image_grid.shape, np.float32)
    missed = score(case, UNET, nothing)
    assert missed.dice == 0
    assert math.isnan(missed.hausdorff_mm)
    assert math.isnan(missed.hausdorff95_mm)
    absent = score(replace(case, drawn=nothing > 0), UNET, nothing + 1)
    assert all(math.isnan(v) for v in (absent.dice, absent.continuous_dice, absent.hausdorff_mm))
    evaluation = ContourEvaluation([missed, replace(absent, volume="q", case="q")])
    assert evaluation.undefined(UNET, "hausdorff95_mm") == ["p0", "q"]
    assert evaluation.estimate(UNET, "hausdorff95_mm").value is None
    [table, *_] = evaluation_tables(evaluation)
    assert "No distance for U-Net of three slices: p0, q." in table.notes
    assert table.rows[0][-1] == "2"


def test_patients_count_once_however_many_volumes_they_have():
    def one(case, volume, value):
        return ContourScores(
            volume=volume, case=case, method=UNET, dice=value, continuous_dice=value, hausdorff_mm=1,
            hausdorff95_mm=1, drawn_ml=1, called_ml=1,
        )  # fmt: skip

    scores = [one("a", "a-1", 0.2), one("a", "a-2", 0.4), one("b", "b", 0.9)]
    evaluation = ContourEvaluation(scores)
    assert evaluation.by_case(UNET, "dice") == {"a": pytest.approx(0.3), "b": 0.9}
    assert evaluation.estimate(UNET, "dice").value == pytest.approx(0.6)


def test_what_the_network_does_not_beat_is_named():
    def scores(method, values):
        return [
            ContourScores(
                volume=f"p{i}", case=f"p{i}", method=method, dice=value, continuous_dice=value,
                hausdorff_mm=1, hausdorff95_mm=1, drawn_ml=1, called_ml=1,
            )
            for i, value in enumerate(values)
        ]  # fmt: skip

    network, place = scores(UNET, [0.5, 0.6, 0.7]), scores("place", [0.6, 0.5, 0.7])
    assert verdict(ContourEvaluation([*network, *place])) == [
        "The network is no better than usual place alone on these patients, as far as they can show: images "
        "cropped round the region show where it lies."
    ]
    window = scores(WINDOW, [0.1, 0.2, 0.3])
    assert verdict(ContourEvaluation([*network, *window])) == []


def test_limits_of_a_mean_distance_are_above_0_and_hold_their_level():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        values = rng.lognormal(2, 0.6, 24)
        estimate = mean_distance(values)
        hits += estimate.low <= np.exp(2 + 0.18) <= estimate.high
    assert 0.91 <= hits / 400 <= 0.98
    assert mean_distance(np.array([0.1, 30.0])).low > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": ""}, "modality is empty"),
        ({"window": "5"}, "Write it as -160:240"),
        ({"window": "5:5"}, "first number must be below the second"),
        ({"pixel_mm": 0}, "pixel_mm is 0. It must be above 0"),
        ({"slice_mm": -1}, "slice_mm is -1"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(FitError, match=message):
        replace(SMALL, **change)


def test_a_table_without_the_modality_names_those_it_has(study):
    folder, _, _ = study
    with pytest.raises(CohortError, match="has no modality 'T1', only CT"):
        read_table_for(folder / "volumes.csv", "T1")


def test_a_region_beyond_the_field_is_said(tmp_path):
    patient_with_bars(tmp_path / "patients" / "p0", seed=0)
    patient_with_bars(tmp_path / "patients" / "p1", seed=1)
    for name in ("p0", "p1"):
        path = tmp_path / "patients" / name / "CT_image.nii.gz"
        values = read_image_file(path).values
        values[0, 0, :2] = np.nan
        save(path, values)
    wide = np.zeros((12, 48, 48), np.uint8)
    wide[4:8, 2:46, 2:46] = 1
    save(tmp_path / "patients" / "p1" / "mask.nii.gz", wide)
    write_list(tmp_path / "volumes.csv", list_series(tmp_path / "patients"))
    notes = []
    contour_volumes(
        NewRun(path=tmp_path / "run"), read_table_for(tmp_path / "volumes.csv", "CT"),
        replace(SMALL, steps=1, field_mm=32), n_folds=2, notify=notes.append,
    )  # fmt: skip
    assert notes[0] == "p0, p1: 2 voxels that are no numbers are 0"
    assert notes[-1] == (
        "p1: 47% of the region lies beyond the field and counts as missed. Set field_mm wider."
    )


def made(folder, n, change):
    """n patients, changed, as a table: what contouring them gives, and what it says."""
    for i in range(n):
        patient_with_bars(folder / "patients" / f"q{i}", seed=10 + i)
    write_list(folder / "volumes.csv", list_series(folder / "patients"))
    change(folder / "patients")
    notes = []
    settings = replace(SMALL, steps=1, width=2)
    done = contour_volumes(
        NewRun(path=folder / "run"), read_table_for(folder / "volumes.csv", "CT"), settings, n_folds=2,
        notify=notes.append,
    )  # fmt: skip
    return done, notes


def test_an_empty_mask_is_a_volume_without_a_region_whose_dice_is_undefined(tmp_path):
    def empty(patients):
        save(patients / "q1" / "mask.nii.gz", np.zeros((12, 48, 48), np.uint8))

    done, notes = made(tmp_path, 4, empty)
    own = [one for one in done.evaluation.scores if one.volume == "q1"]
    assert {one.method for one in own} == set(METHODS)
    assert all(math.isnan(v) for one in own for v in (one.dice, one.hausdorff_mm))
    assert all(one.drawn_ml == 0 for one in own)
    assert "q1" not in done.evaluation.by_case(UNET, "dice")
    assert any(
        note.startswith("q1: its mask is empty: it is learnt from as a volume") for note in notes
    )
    assert done.regions == (("mask.nii.gz, label 1", 3),)


def test_a_volume_that_cannot_be_read_fails_alone_with_its_reason(tmp_path):
    def spoil(patients):
        path = patients / "q2" / "CT_image.nii.gz"
        path.write_bytes(path.read_bytes()[:900])
        (patients / "q3" / "mask.nii.gz").unlink()

    done, _ = made(tmp_path, 5, spoil)
    assert set(done.failed) == {"q2", "q3"}
    assert {one.volume for one in done.evaluation.scores} == {"q0", "q1", "q4"}
    rows = {
        r["volume"]: r
        for r in csv.DictReader((tmp_path / "run/outcomes.csv").read_text().splitlines())
    }
    assert [rows[f"q{i}"]["status"] for i in range(5)] == [
        "judged",
        "judged",
        "failed",
        "failed",
        "judged",
    ]
    assert "mask.nii.gz" in rows["q3"]["reason"]
    assert rows["q2"]["reason"]
    masks = csv.DictReader((tmp_path / "run/volumes.csv").read_text().splitlines())
    assert [row["mask"] for row in masks] == [
        f"masks/q{i}.nii.gz" if i not in (2, 3) else "" for i in range(5)
    ]
    assert set(json.loads((tmp_path / "run/run.json").read_text())["failed"]) == {"q2", "q3"}


def test_too_few_patients_to_judge_are_refused_with_what_could_not_be_read(tmp_path):
    def spoil(patients):
        (patients / "q1" / "mask.nii.gz").unlink()

    with pytest.raises(
        CohortError, match=r"takes two at least\. 1 volume cannot be read\. q1: No such file"
    ):
        made(tmp_path, 2, spoil)


@pytest.mark.parametrize("drawn", [True, False])
def test_one_image_under_two_patients_is_refused(tmp_path, drawn):
    """Also where nobody has drawn on the copy, and where it is stored the other way round."""

    def copy(patients):
        values = read_image_file(patients / "q0" / "CT_image.nii.gz").values
        save(
            patients / "q2" / "CT_image.nii.gz",
            np.ascontiguousarray(values),
            origin=(5.0, 6.0, 7.0),
        )
        if not drawn:
            table = patients.parent / "volumes.csv"
            rows = list(csv.reader(table.read_text().splitlines()))
            rows[3][rows[0].index("mask")] = ""
            table.write_text("\n".join(map(",".join, rows)) + "\n")
        else:
            save(
                patients / "q2" / "mask.nii.gz",
                np.ones(values.shape, np.uint8),
                origin=(5.0, 6.0, 7.0),
            )

    with pytest.raises(LeakageError, match=r"q0 \(case q0\) and q2 \(case q2\) are the same image"):
        made(tmp_path, 3, copy)


def test_a_window_that_shows_nothing_is_noted(study):
    folder, _, _ = study
    jobs = read_table_for(folder / "volumes.csv", "CT").jobs[:1]
    for window, noted in (("1000:2000", True), ("-900:-800", True), ("60:200", False)):
        [case] = read_cases(jobs, replace(SMALL, window=window)).cases
        assert any("is black or white; check its window" in note for note in case.notes) == noted
