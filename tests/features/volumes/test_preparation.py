"""Films of a cohort: listed, laid out, resumed; one bad volume stops nothing."""

import csv
import json
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from patients import cohort, patient, save

import features.extraction.films as module
from features.errors import VolumeError
from features.extraction.films import lay_out_films
from features.regions.annotations import read_annotations
from features.volumes.film import open_film
from features.volumes.jobs import SeriesFiles, VolumeJob
from features.volumes.listing import list_series, write_list
from features.volumes.recipe import VolumeRecipe
from features.volumes.series import read_volume
from tests import small_series
from tests.small_series import dataset, series

RECIPE = VolumeRecipe(channels=("CT", "T1", "PET"), tile=32)


def job_of(folder, *, mask="mask.nii.gz", roi="", name=None):
    files = {
        one: SeriesFiles(
            path=folder / f"{one}_image.nii.gz", mask=folder / mask if mask else None, roi=roi
        )
        for one in ("CT", "T1", "PET")
    }
    return VolumeJob(name=name or folder.name, case=folder.name, modalities=files)


def jobs_of(folder):
    return [job_of(one) for one in sorted(folder.iterdir())]


def statuses(outcomes):
    return [one.status for one in outcomes]


def test_a_second_run_does_what_is_left_and_again_what_has_changed(tmp_path):
    jobs = jobs_of(cohort(tmp_path / "in", 3))
    first = lay_out_films(jobs[:2], RECIPE, tmp_path / "films")
    assert statuses(first) == ["done", "done"]
    before = {one.path: one.path.read_bytes() for one in first}
    assert statuses(lay_out_films(jobs, RECIPE, tmp_path / "films")) == ["skipped"] * 2 + ["done"]
    assert {one.path: one.path.read_bytes() for one in first} == before
    patient(tmp_path / "in" / "p1", seed=9)
    again = lay_out_films(jobs, RECIPE, tmp_path / "films")
    assert statuses(again) == ["skipped", "done", "skipped"]
    other = VolumeRecipe(channels=("CT", "T1", "PET"), tile=32, margin_mm=2.0)
    written = {one.path: one.path.read_bytes() for one in again}
    with pytest.raises(VolumeError, match=r"laid out in another way \(.*: margin_mm 10.0 -> 2.0\)"):
        lay_out_films(jobs, other, tmp_path / "films")
    assert {one.path: one.path.read_bytes() for one in again} == written
    films = lay_out_films(jobs, other, tmp_path / "films", overwrite=True)
    assert statuses(films) == ["done"] * 3


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".nii.gz"])
def test_a_region_drawn_anew_is_seen_wherever_its_voxels_lie(tmp_path, suffix):
    """In the middle of a large file, or in a file beside the header."""
    folder = cohort(tmp_path / "in", 1, shape=(40, 256, 256)) / "p0"
    mask = np.zeros((40, 256, 256), np.uint8)
    mask[18:22, 120:140, 120:140] = 1
    save(folder / f"drawn{suffix}", mask)
    job = job_of(folder, mask=f"drawn{suffix}")
    recipe = VolumeRecipe(channels=("CT",), tile=32)
    [first] = lay_out_films([job], recipe, tmp_path / "films")
    mask[18:22, 120:130, 120:130] = 0
    save(folder / f"drawn{suffix}", mask)
    [again] = lay_out_films([job], recipe, tmp_path / "films")
    assert (first.status, again.status) == ("done", "done"), (first.reason, again.reason)
    assert again.facts.tumour_ml < first.facts.tumour_ml


def test_a_word_is_no_region_of_a_label_map(tmp_path):
    folder = cohort(tmp_path / "in", 1) / "p0"
    [film] = lay_out_films([job_of(folder, roi="GTV_edema")], RECIPE, tmp_path / "films")
    assert "in which regions are numbers" in film.reason
    for roi in ("1", "1.0", "1."):
        [film] = lay_out_films([job_of(folder, roi=roi)], RECIPE, tmp_path / "films")
        assert film.status == "done"
    for roi in ("1.5", "2.0", "-1", "1,0"):
        [film] = lay_out_films([job_of(folder, roi=roi)], RECIPE, tmp_path / "films")
        assert film.status == "failed"
    assert "has no label 2. It has 1" in lay_out_films(
        [job_of(folder, roi="2.0")], RECIPE, tmp_path / "films"
    )[0].reason  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [("PET", "PT has none"), ("FDG_PET", "PT has none"), ("CT-portal", "CT has none"), ("SUV", "PT has none"),
     ("Dose", "RTDOSE has none"), ("T1", ""), ("PETCT", "may be CT or PET"), ("ADC", ""),
     ("CT1", "may be MRI or CT"), ("T1ce", ""), ("SPECT", "NM has none")],
)  # fmt: skip
def test_n4_of_a_file_goes_by_the_name_of_its_modality(tmp_path, name, words):
    folder = tmp_path / "in"
    patient(folder, modalities=(name,))
    files = SeriesFiles(path=folder / f"{name}_image.nii.gz", mask=folder / "mask.nii.gz")
    job = VolumeJob(name="p", case="p", modalities={name: files})
    recipe = VolumeRecipe(channels=(name,), tile=32, n4=(name,))
    [film] = lay_out_films([job], recipe, tmp_path / "films")
    assert words in film.reason
    assert (film.status == "failed") == bool(words)


@pytest.mark.parametrize(
    ("name", "status"), [("CT2", "done"), ("FDGCT", "failed"), ("CT_SUV", "failed")]
)
def test_a_channel_is_one_modality(tmp_path, name, status):
    patient(tmp_path / "p", modalities=(name,))
    files = SeriesFiles(
        path=tmp_path / "p" / f"{name}_image.nii.gz", mask=tmp_path / "p" / "mask.nii.gz"
    )
    job = VolumeJob(name="p", case="p", modalities={name: files})
    [film] = lay_out_films([job], VolumeRecipe(channels=(name,), tile=32), tmp_path / "films")
    assert film.status == status
    [row] = list_series(tmp_path / "p")
    assert row.problems == (
        f"{name} may be several modalities: write the one that it is, as CT or T1CE",
    )


def test_files_without_a_frame_of_reference_are_noted_or_registered(tmp_path):
    folder = cohort(tmp_path / "in", 1) / "p0"
    [film] = lay_out_films([job_of(folder)], RECIPE, tmp_path / "films")
    notes = [note for note in film.notes if "names no frame of reference" in note]
    assert [note.partition(":")[0] for note in notes] == ["T1", "PET"]


def test_notes_of_films_that_were_laid_out_before_stay(tmp_path):
    jobs = jobs_of(cohort(tmp_path / "in", 2))
    first = lay_out_films(jobs, RECIPE, tmp_path / "films")
    table = (tmp_path / "films" / "films.csv").read_text()
    assert all(one.notes for one in first)
    for _ in range(2):
        again = lay_out_films(jobs, RECIPE, tmp_path / "films")
        assert statuses(again) == ["skipped"] * 2
        assert [one.notes for one in again] == [one.notes for one in first]
    assert (tmp_path / "films" / "films.csv").read_text() == table.replace(",done,", ",skipped,")


def test_a_film_without_its_outline_is_laid_out_again(tmp_path, monkeypatch):
    """Whether the outline was removed, or the run ended between the two."""
    jobs = jobs_of(cohort(tmp_path / "in", 1))
    [first] = lay_out_films(jobs, RECIPE, tmp_path / "films")
    outline = tmp_path / "films" / "p0.geojson"
    drawn = outline.read_bytes()
    outline.unlink()
    assert statuses(lay_out_films(jobs, RECIPE, tmp_path / "films")) == ["done"]
    assert outline.read_bytes() == drawn
    written = []
    monkeypatch.setattr(module, "write_atomic", lambda path, _text: written.append(path))
    monkeypatch.setattr(module, "write_film", lambda path, *_: written.append(path))
    lay_out_films(jobs, RECIPE, tmp_path / "films", overwrite=True)
    assert written == [outline, first.path]


def test_a_cut_off_film_is_laid_out_again(tmp_path):
    jobs = jobs_of(cohort(tmp_path / "in", 1))
    [first] = lay_out_films(jobs, RECIPE, tmp_path / "films")
    whole = first.path.read_bytes()
    first.path.write_bytes(b"")
    [again] = lay_out_films(jobs, RECIPE, tmp_path / "films")
    assert again.status == "done"
    assert first.path.read_bytes() == whole


def broken(path):
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "T1_image.nii.gz").unlink(), "no such file"),
        (lambda folder: broken(folder / "T1_image.nii.gz"), "T1_image.nii.gz"),
        (lambda folder: (folder / "mask.nii.gz").unlink(), "no such file"),
        (lambda folder: save(folder / "mask.nii.gz", np.zeros((14, 48, 40), np.uint8)), "is empty"),
        (
            lambda folder: save(
                folder / "mask.nii.gz", np.ones((14, 48, 40), np.uint8), origin=(999, 0, 0)
            ),
            "mask.nii.gz",
        ),
    ],
)
def test_a_bad_volume_is_named_and_the_others_are_laid_out(tmp_path, spoil, words):
    folder = cohort(tmp_path / "in", 3)
    spoil(folder / "p1")
    outcomes = lay_out_films(jobs_of(folder), RECIPE, tmp_path / "films")
    assert statuses(outcomes) == ["done", "failed", "done"]
    assert outcomes[1].reason.startswith("p1: ")
    assert words.lower() in outcomes[1].reason.lower()
    rows = list(csv.DictReader((tmp_path / "films" / "films.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert rows[1]["reason"] == outcomes[1].reason


def test_an_unforeseen_error_is_one_volumes_too(tmp_path, monkeypatch):
    make, calls = module.make_cells, []

    def fails_once(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("surprise")
        return make(*arguments)

    monkeypatch.setattr(module, "make_cells", fails_once)
    outcomes = lay_out_films(jobs_of(cohort(tmp_path / "in", 2)), RECIPE, tmp_path / "films")
    assert statuses(outcomes) == ["failed", "done"]
    assert outcomes[0].reason == "p0: RuntimeError: surprise"
    assert "fails_once" in outcomes[0].details


def test_the_outline_on_the_film_covers_what_the_cells_say(tmp_path):
    [film] = lay_out_films(jobs_of(cohort(tmp_path / "in", 1)), RECIPE, tmp_path / "films")
    drawing = read_annotations(film.path.with_name("p0.geojson"))
    area = drawing.union(("Tumor",)).area
    assert area == pytest.approx(sum(film.facts.coverage) * 32**2)
    assert len(open_film(film.path).grid) == len(film.facts)


def test_a_volume_without_a_region_is_laid_out_whole_or_refused(tmp_path):
    folder = cohort(tmp_path / "in", 1) / "p0"
    [refused] = lay_out_films([job_of(folder, mask="")], RECIPE, tmp_path / "films")
    assert "set slices to all" in refused.reason
    recipe = VolumeRecipe(channels=("CT",), slices="all", show="whole", pixel_mm=1.0, tile=64)
    [film] = lay_out_films([job_of(folder, mask="")], recipe, tmp_path / "films")
    assert (film.status, len(film.facts)) == ("done", 14)
    assert np.isnan(film.facts.tumour_ml)


def test_two_examinations_need_two_names(tmp_path):
    folder = cohort(tmp_path / "in", 2)
    jobs = [job_of(folder / "p0", name="x"), job_of(folder / "p1", name="X")]
    with pytest.raises(VolumeError, match="Give each examination a time point"):
        lay_out_films(jobs, RECIPE, tmp_path / "films")


@pytest.mark.parametrize("turn", [(0,), (1, 2), (0, 1, 2)])
def test_the_order_in_which_a_file_stores_its_voxels_changes_nothing(tmp_path, turn):
    """A file may store slices from head to foot, or RAS: the same places in another order."""
    folder = cohort(tmp_path / "in", 1) / "p0"
    [first] = lay_out_films([job_of(folder)], RECIPE, tmp_path / "a")
    for path in folder.glob("*.nii.gz"):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(sitk.Flip(image, [axis in turn for axis in (2, 1, 0)]), str(path))
    [again] = lay_out_films([job_of(folder)], RECIPE, tmp_path / "b")
    assert np.array_equal(open_film(first.path).pixels, open_film(again.path).pixels)
    assert again.facts.positions_mm == first.facts.positions_mm
    assert again.facts.sources == first.facts.sources


def test_patients_are_listed_with_the_mask_that_belongs_to_each_image(tmp_path):
    folder = cohort(tmp_path / "in", 2)
    inside = patient(folder / "p1")
    save(folder / "p1" / "T1_mask.nii.gz", inside.astype(np.uint8))
    rows = list_series(folder)
    assert [(row.case, row.modality) for row in rows] == [
        (case, modality) for case in ("p0", "p1") for modality in ("CT", "PET", "T1")
    ]
    masks = {(row.case, row.modality): row.mask and row.mask.name for row in rows}
    assert masks["p0", "T1"] == "mask.nii.gz"
    assert masks["p1", "T1"] == "T1_mask.nii.gz"
    write_list(tmp_path / "t.csv", rows)
    written = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert written[0]["path"] == "in/p0/CT_image.nii.gz"


@pytest.mark.parametrize("name", ["T1_image", "MR_T1_image", "mri-T1", "image_T1"])
def test_a_file_is_named_as_the_series_of_dicom_would_be(tmp_path, name):
    save(tmp_path / "p" / f"{name}.nii.gz", np.zeros((4, 8, 8), np.float32))
    assert [row.modality for row in list_series(tmp_path)] == ["T1"]


def test_a_folder_of_one_patient_is_listed_as_one(tmp_path):
    patient(tmp_path / "p7")
    assert {row.case for row in list_series(tmp_path / "p7")} == {"p7"}


@pytest.mark.parametrize("files", [[], ["notes.txt"]])
def test_a_folder_without_series_is_refused(tmp_path, files):
    (tmp_path / "in" / "p").mkdir(parents=True)
    for name in files:
        (tmp_path / "in" / "p" / name).write_text("x")
    with pytest.raises(VolumeError, match="holds no series"):
        list_series(tmp_path / "in")


@pytest.mark.realdata
def test_dicom_and_nifti_of_one_series_give_one_film(realdata, tmp_path):
    """The structure sets and the reference masks of two sarcomas, on three modalities of two grids."""
    jobs = {"dicom": [], "nifti": []}
    for case in ("STS_025", "STS_008"):
        at = realdata / "volumes"
        nifti = {
            name: SeriesFiles(path=at / "sts-nifti" / case / f"{name}_image.nii.gz",
                              mask=at / "sts-nifti" / case / f"{name}_mask.nii.gz")
            for name in ("CT", "MR_T1", "PET")
        }  # fmt: skip
        dicom = {
            name: SeriesFiles(
                path=at / "sts" / case / name, mask=at / "sts" / case / f"{name}-RTSTRUCT.dcm"
            )
            for name in ("CT", "MR_T1", "PET")
        }
        jobs["nifti"].append(VolumeJob(name=case, case=case, modalities=nifti))
        jobs["dicom"].append(VolumeJob(name=case, case=case, modalities=dicom))
    recipe = VolumeRecipe(channels=("CT", "MR_T1", "PET"), windows=("CT=-160:240",))
    films = {
        kind: lay_out_films(of_kind, recipe, tmp_path / kind) for kind, of_kind in jobs.items()
    }
    for first, second in zip(films["dicom"], films["nifti"], strict=True):
        assert (first.status, second.status) == ("done", "done"), (first.reason, second.reason)
        assert np.array_equal(open_film(first.path).pixels, open_film(second.path).pixels)
        # The NIfTI of PET has other last bits than slope times stored value.
        assert first.facts.sources[:2] == second.facts.sources[:2]
        assert np.allclose(first.facts.positions_mm, second.facts.positions_mm, atol=0.01)
    scan = films["dicom"][0].facts.scan["CT"]
    assert (scan["manufacturer"], scan["slice_spacing_mm"]) == ("GE MEDICAL SYSTEMS", 3.27)
    written = (tmp_path / "dicom" / "STS_025.film.tiff").read_bytes()
    header = json.dumps(films["dicom"][0].facts.scan)
    for word in ("STS_025", "PatientName", "19"):  # names and birth dates of the headers
        assert word not in header
    assert b"STS_025" not in written


def listed(folder):
    return {row.modality: row for row in list_series(folder)}


def test_a_table_beside_the_patients_does_not_make_them_one(tmp_path):
    folder = cohort(tmp_path / "in", 3)
    (folder / "clinical.csv").write_text("case,age")
    assert {row.case for row in list_series(folder)} == {"p0", "p1", "p2"}
    image = np.zeros((4, 8, 8), np.float32)
    save(folder / "scan.nii.gz", image)
    rows = list_series(folder)
    assert {row.case for row in rows} == {"in"}
    assert "scan.nii.gz lies beside 3 folders, and they are read as one" in rows[0].problems[-1]
    for name in ("A7_T1", "A7_T2", "B2_T1", "B2_T2"):
        save(tmp_path / "flat" / f"{name}.nii.gz", image)
    [*_, last] = list_series(tmp_path / "flat")
    assert "4 images lie in one folder, and they are read as one patient" in "".join(last.problems)


def test_files_of_bids_have_their_modality_session_slices_and_own_mask(tmp_path):
    image = np.zeros((5, 8, 8), np.float32)
    for name in ("T1w", "T2w", "T1w_mask"):
        for session in ("1", "2"):
            save(tmp_path / "sub-04" / f"sub-04_ses-{session}_{name}.nii.gz", image, (1, 1, 4.5))
    rows = list_series(tmp_path)
    assert [(row.modality, row.timepoint) for row in rows] == [
        ("T1", "1"), ("T2", "1"), ("T1", "2"), ("T2", "2")
    ]  # fmt: skip
    assert {(row.slices, row.spacing_mm) for row in rows} == {(5, 4.5)}
    masks = [row.mask and row.mask.name for row in rows]
    assert masks == [
        "sub-04_ses-1_T1w_mask.nii.gz", None, "sub-04_ses-2_T1w_mask.nii.gz", None
    ]  # fmt: skip
    assert not any(row.problems for row in rows)


def test_a_mask_of_another_image_and_a_damaged_image_are_seen(tmp_path):
    image = np.zeros((5, 8, 8), np.float32)
    for name in ("CT", "T1", "CT_mask"):
        save(tmp_path / "p" / f"{name}.nii.gz", image)
    (tmp_path / "p" / "T1.nii.gz").write_bytes(b"junk")
    rows = listed(tmp_path)
    assert rows["CT"].mask.name == "CT_mask.nii.gz"
    assert rows["T1"].mask is None
    assert "T1.nii.gz is an Analyze file, not NIfTI" in rows["T1"].problems[0]


SLICES = np.zeros((3, 4, 5), np.int16)


@pytest.mark.parametrize(
    ("description", "modality"),
    [
        ("ax T2* gre", "T2star"),
        ("T2_FLAIR fs", "FLAIR"),
        ("t1_tse_cor", "T1"),
        ("T1w_gd", "T1CE"),
        ("T1 +C fs", "T1CEFS"),
        ("ep2d DWI b800", "DWI"),
        ("T10 scout", "MR"),
    ],
)
def test_a_sequence_has_its_own_name(tmp_path, description, modality):
    series(tmp_path / "p" / "s", SLICES, SeriesDescription=description)
    assert [row.modality for row in list_series(tmp_path)] == [modality]


def test_echoes_of_one_series_are_rows_that_are_read_apart(tmp_path):
    for echo in (12.0, 95.0):

        def change(file, index, echo=echo):
            file.EchoTime, file.RepetitionTime = echo, 2500
            file.filename = str(tmp_path / "p" / f"{echo:.0f}-{index}.dcm")

        series(tmp_path / "p", SLICES + int(echo), change=change)
    rows = list_series(tmp_path)
    assert [row.details for row in rows] == [
        "repetition time 2500 ms, echo time 12.0 ms", "repetition time 2500 ms, echo time 95.0 ms"
    ]  # fmt: skip
    assert {row.number for row in rows} == {"4"}
    for row, value in zip(rows, (12, 95), strict=True):
        assert (read_volume(row.path, row.series).values == value).all()
    write_list(tmp_path / "t.csv", rows)
    assert "T1 tra" not in (tmp_path / "t.csv").read_text()


def test_visits_are_time_points_and_a_segmentation_is_named(tmp_path):
    for kind, date, uid in (
        ("T1", "20200511", "1.5"),
        ("T1", "20180302", "1.3"),
        ("T2", "20200512", "1.7"),
    ):
        series(
            tmp_path / "p" / uid, SLICES, SeriesDescription=kind, StudyDate=date, StudyInstanceUID=uid,
            SeriesInstanceUID=f"{uid}.1",
        )  # fmt: skip
    file = dataset(tmp_path / "p" / "seg.dcm", "SEG")
    small_series.save(file)
    rows = list_series(tmp_path)
    assert {(row.path.name, row.timepoint) for row in rows} == {
        ("1.5", "2"),
        ("1.3", "1"),
        ("1.7", "2"),
    }
    assert "seg.dcm is a segmentation of DICOM (SEG)" in rows[0].problems[0]
    assert "no region" in rows[0].problems[1]


@pytest.mark.parametrize(
    "folder_of", [lambda i: i % 3, lambda i: i // 3], ids=["in turn", "in parts"]
)
def test_a_series_in_several_folders_is_listed_and_read_whole(tmp_path, folder_of):
    values = np.arange(9 * 4 * 5, dtype=np.int16).reshape(9, 4, 5)

    def change(file, index):
        file.filename = str(tmp_path / "in" / "p" / f"D{folder_of(index)}" / f"{index}.dcm")

    for part in range(3):
        (tmp_path / "in" / "p" / f"D{part}").mkdir(parents=True)
    series(tmp_path / "x", values, change=change)
    [row] = list_series(tmp_path / "in")
    assert (row.path.name, row.series, row.slices) == ("p", "", 9)
    assert np.array_equal(read_volume(row.path).values, values)
    small = np.full((5, 3, 4), 7, np.int16)
    series(
        tmp_path / "in" / "p" / "D1" / "t2", small, SeriesInstanceUID="1.9", SeriesDescription="T2"
    )
    series(tmp_path / "in" / "p" / "ct", small, SeriesInstanceUID="1.8", modality="CT")
    rows = listed(tmp_path / "in")
    assert [rows[name].path.name for name in ("T1", "T2", "CT")] == ["p", "t2", "ct"]
    assert [bool(rows[name].series) for name in ("T1", "T2", "CT")] == [True, False, False]
    assert np.array_equal(read_volume(rows["T1"].path, rows["T1"].series).values, values)


def test_a_series_beside_a_part_of_another_is_named_by_its_uid(tmp_path):
    def change(file, index):
        file.filename = str(tmp_path / "p" / f"D{index % 2}" / f"{index}.dcm")

    (tmp_path / "p" / "D1").mkdir(parents=True)
    series(tmp_path / "p" / "D0", np.zeros((6, 4, 5), np.int16), change=change)
    series(
        tmp_path / "p" / "D0", np.ones((3, 4, 5), np.int16), SeriesInstanceUID="1.7", modality="CT"
    )
    row = listed(tmp_path)["CT"]
    assert (row.path.name, row.series) == ("D0", "1.7")
    assert (read_volume(row.path, row.series).values == 1).all()


def test_two_slices_of_one_name_are_named_with_their_folders(tmp_path):
    for name in ("a", "b"):
        series(tmp_path / "p" / name, SLICES)
    [row] = list_series(tmp_path)
    assert "a/000.dcm and b/000.dcm both lie" in row.problems[0]


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (["gtv_pre", "gtv_post"], "no region is chosen among gtv_post.nii.gz, gtv_pre.nii.gz, as"),
        (["ses-3_seg"], "among ses-3_seg.nii.gz, as no name fits an image: name it in mask"),
        ([], "no region: there is no structure set and no label map for any image"),
    ],
)
def test_label_maps_that_fit_no_image_alone_are_named(tmp_path, masks, words):
    for name in ("T1", "CT", *masks):
        save(tmp_path / "p" / f"{name}.nii.gz", np.zeros((4, 8, 8), np.float32))
    rows = list_series(tmp_path)
    assert len(rows) == 2
    assert all(words in row.problems[-1] for row in rows)


def test_a_label_map_that_is_cut_off_is_a_problem_of_its_image(tmp_path):
    for name in ("T1", "T1_mask"):
        save(tmp_path / "p" / f"{name}.nii", np.zeros((4, 8, 8), np.float32))
    assert listed(tmp_path)["T1"].problems == ()
    path = tmp_path / "p" / "T1_mask.nii"
    path.write_bytes(path.read_bytes()[:-256])
    row = listed(tmp_path)["T1"]
    assert row.mask == path
    assert row.problems[0].startswith("T1_mask.nii is cut off")


def test_layouts_of_challenges(tmp_path):
    """BraTS names files by the patient's folder; nnU-Net lays all patients side by side."""
    image = np.zeros((4, 8, 8), np.float32)
    for case in ("BraTS2021_00071", "BraTS-GLI-00012-000", "tumour_3"):
        mark = "-" if "GLI" in case else "_"
        for name in ("flair", "t1ce", "seg"):
            save(tmp_path / "brats" / case / f"{case}{mark}{name}.nii.gz", image)
    rows = list_series(tmp_path / "brats")
    assert [row.modality for row in rows] == ["flair", "t1ce"] * 3
    assert all(row.mask and row.mask.name.endswith("seg.nii.gz") for row in rows)
    for name in ("imagesTr/sts_001_0000", "imagesTr/sts_001_0001", "labelsTr/sts_001"):
        save(tmp_path / "Dataset9" / f"{name}.nii.gz", image)
    for folder in (tmp_path / "Dataset9", tmp_path / "Dataset9" / "imagesTr"):
        for row in list_series(folder):
            assert "as of nnU-Net" in row.problems[-1 - (len(row.problems) > 2)]


@pytest.mark.parametrize("package", ["pydicom", "SimpleITK"])
def test_a_missing_package_is_said_at_once_and_not_of_every_file(tmp_path, monkeypatch, package):
    """Read one by one, all series would be passed over as damaged, and the list be empty or short."""
    folder = cohort(tmp_path / "in", 2)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(VolumeError, match=rf"need the package {package}.*sarcomil\[volumes\]"):
        list_series(folder)
    with pytest.raises(VolumeError, match=rf"need the package {package}"):
        lay_out_films(jobs_of(folder), RECIPE, tmp_path / "films")


@pytest.mark.parametrize("damage", ["", "half", "[]", "fewer", "gone"])
def test_a_film_whose_outline_is_empty_cut_or_changed_is_laid_out_again(tmp_path, damage):
    jobs = jobs_of(cohort(tmp_path / "in", 1))
    [film] = lay_out_films(jobs, RECIPE, tmp_path / "films")
    outline = tmp_path / "films" / "p0.geojson"
    whole = outline.read_bytes()
    stored = json.loads(whole)
    texts = {"half": whole[: len(whole) // 2], "[]": b"[]", "": b""}
    stored["features"] = stored["features"][1:]
    if damage == "gone":
        outline.unlink()
    else:
        outline.write_bytes(texts.get(damage, json.dumps(stored).encode()))
    assert statuses(lay_out_films(jobs, RECIPE, tmp_path / "films")) == ["done"]
    assert outline.read_bytes() == whole
    assert statuses(lay_out_films(jobs, RECIPE, tmp_path / "films")) == ["skipped"]
    film.path.write_bytes(film.path.read_bytes()[:-200])
    assert statuses(lay_out_films(jobs, RECIPE, tmp_path / "films")) == ["done"]


@pytest.mark.parametrize("change", ["empty", "elsewhere", "above", "part"])
def test_an_outline_that_became_empty_or_left_the_slices_leaves_no_old_film(tmp_path, change):
    def written(z_mm):
        square = np.array([(-8, 22, z_mm), (-4, 22, z_mm), (-4, 26, z_mm), (-8, 26, z_mm)])
        return small_series.structure_set(tmp_path / "rs.dcm", {"GTV": [square]})

    values = np.random.default_rng(1).integers(0, 900, (6, 12, 12), np.int16)
    series(tmp_path / "T1", values)
    files = SeriesFiles(path=tmp_path / "T1", mask=written(8.0))
    job = VolumeJob(name="p", case="p", modalities={"T1": files})
    recipe = VolumeRecipe(channels=("T1",), tile=32)
    [first] = lay_out_films([job], recipe, tmp_path / "films")
    assert first.status == "done"
    if change == "empty":
        small_series.structure_set(tmp_path / "rs.dcm", {"GTV": []})
    else:
        written({"elsewhere": 900.0, "above": 23.5, "part": 11.0}[change])
    [second] = lay_out_films([job], recipe, tmp_path / "films")
    if change == "part":
        assert second.status == "done"
        assert second.facts.positions_mm != first.facts.positions_mm
        return
    assert (second.status, second.outdated) == ("failed", True)
    assert second.reason.endswith("What was laid out of its earlier files is removed.")
    assert not first.path.exists()
    assert not (tmp_path / "films" / "p.geojson").exists()
    written(8.0)
    assert statuses(lay_out_films([job], recipe, tmp_path / "films")) == ["done"]


def test_a_film_stays_while_its_files_are_out_of_reach(tmp_path):
    jobs = jobs_of(cohort(tmp_path / "in", 1))
    [film] = lay_out_films(jobs, RECIPE, tmp_path / "films")
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    [lost] = lay_out_films(jobs, RECIPE, tmp_path / "films")
    assert (lost.status, lost.outdated) == ("failed", False)
    assert film.path.is_file()
