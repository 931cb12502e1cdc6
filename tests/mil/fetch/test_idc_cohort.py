"""Series of a collection: which are fetched, where they lie, and that other verbs read them."""

import csv
import json
import random
import sys
import uuid

import numpy as np
import pydicom
import pytest

import mil
from features.slides.find import find_slides
from features.slides.slide import open_slide
from features.volumes.listing import list_series, write_list
from mil.data.table import read_table
from mil.errors import FetchError
from mil.fetch.idc import COLUMNS, find_series
from mil.fetch.idc_cohort import fetch_idc, safe_name, years
from tests.mil.fetch.made_services import md5, tag_of_parts
from tests.small_series import dataset, save, series, structure_set

SQUARE = [(-8, 22, 8), (-4, 22, 8), (-4, 28, 8), (-8, 28, 8)]


class Collection:
    """Series that the server has, and the index that lists them."""

    def __init__(self, network, folder):
        self.network, self.folder, self.rows = network, folder, []

    def add(
        self, case, modality, files, *, collection="made_sarcoma", analysis="", tags=(), **facts
    ):
        """A series of (name, bytes); returns its UUID."""
        own = str(
            uuid.UUID(int=random.Random(f"{case} {modality} {len(self.rows)}").getrandbits(128))
        )
        for name, data in files:
            self.network.objects[f"{own}/{name}"] = data
        self.network.etags |= {f"{own}/{name}": tag for name, tag in tags}
        size = sum(len(data) for _, data in files)
        row = {
            "collection_id": collection, "analysis_result_id": analysis, "PatientID": case,
            "SeriesInstanceUID": f"1.2.{len(self.rows)}", "PatientAge": "046M", "PatientSex": "F",
            "Modality": modality, "SeriesDescription": "FFPE HE", "instanceCount": len(files),
            "license_short_name": "CC BY 3.0", "source_DOI": "10.7937/made", "aws_bucket": "bucket",
            "crdc_series_uuid": own,
            "series_size_MB": size / 1e6,
        }  # fmt: skip
        self.rows.append(row | facts)
        self.write()
        return own

    def write(self):
        with (self.folder / "index.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)


@pytest.fixture
def collection(network, tmp_path):
    return Collection(network, tmp_path)


def files_of(folder):
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


def random_files(n, seed):
    own = random.Random(seed)
    return [(f"{own.getrandbits(64):016x}.dcm", own.randbytes(900 + i)) for i in range(n)]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """CT with a structure set, and MR, of two patients as DICOM files."""
    folder = tmp_path_factory.mktemp("studies")
    values = np.arange(3 * 12 * 10, dtype=np.int16).reshape(3, 12, 10)
    for case in ("STS_001", "STS_002"):
        for number, modality in enumerate(("CT", "MR")):
            uid = f"1.2.3.{number}"
            options = {"SeriesInstanceUID": uid, "modality": modality}
            series(folder / case / modality, values, **options)
        (folder / case / "RTSTRUCT").mkdir()
        structure_set(
            folder / case / "RTSTRUCT" / "rs.dcm", {"GTV": [SQUARE]}, series_uid="1.2.3.0"
        )
    return folder


def test_series_are_laid_out_as_patients_and_listed(collection, studies, fetch_series, tmp_path):
    for case in ("STS_001", "STS_002"):
        for modality in ("CT", "MR", "RTSTRUCT"):
            collection.add(case, modality, files_of(studies / case / modality))
    cohort = fetch_series("made_sarcoma")
    assert not cohort.failed
    rows = list_series(tmp_path / "out" / "volumes")
    assert [(row.case, row.modality, row.slices) for row in rows] == [
        (case, modality, 3) for case in ("STS_001", "STS_002") for modality in ("CT", "T1")
    ]
    assert {row.roi for row in rows} == {"GTV"}
    write_list(tmp_path / "volumes.csv", rows)
    cases = (tmp_path / "out" / "cases.csv").read_text().splitlines()
    assert cases == ["case,age,sex", "STS_001,3.833,female", "STS_002,3.833,female"]
    assert cohort.table is None
    assert cohort.licence == "CC BY 3.0, doi 10.7937/made"


def write_slide(folder, n_files):
    folder.mkdir(parents=True)
    for number in range(n_files):
        save(
            dataset(
                folder / f"level-{number}.dcm", "SM", SeriesInstanceUID=f"1.9.{ord(folder.name)}"
            )
        )
    return folder


def test_slides_are_named_in_the_table_as_they_are_found(collection, fetch_series, tmp_path):
    for name, n_files in (("a", 3), ("b", 1), ("c", 2)):
        collection.add(f"RMS-{name[0]}", "SM", files_of(write_slide(tmp_path / name, n_files)))
    cohort = fetch_series("made-sarcoma")
    rows = read_table(cohort.table)
    slides = find_slides(tmp_path / "out" / "slides")
    assert len(rows) == 3
    assert {row.slide for row in rows} <= slides.keys()
    assert all(row.slide.startswith(f"{row.case}-") for row in rows)
    assert not (tmp_path / "out" / "volumes").exists()


@pytest.mark.realdata
def test_a_real_dicom_slide_opens_after_it_was_fetched(
    realdata, collection, fetch_series, tmp_path
):
    collection.add("one", "SM", [("x.dcm", (realdata / "slides" / "blank.dcm").read_bytes())])
    [row] = read_table(fetch_series("made_sarcoma").table)
    with open_slide(find_slides(tmp_path / "out" / "slides")[row.slide]) as slide:
        assert slide.mpp[0] == pytest.approx(0.499, abs=0.001)


@pytest.mark.realdata
def test_a_real_patient_is_listed_as_where_it_came_from(
    realdata, collection, fetch_series, tmp_path
):
    origin = realdata / "volumes" / "sts" / "STS_025"
    for folder in sorted({path.parent for path in origin.rglob("*.dcm")}):
        kinds = {}
        for path in sorted(folder.glob("*.dcm")):
            header = pydicom.dcmread(
                path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "Modality"]
            )
            kinds.setdefault((header.Modality, header.SeriesInstanceUID), []).append(path)
            place = tmp_path / "origin" / "STS_025" / path.relative_to(origin)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path)
        for (modality, _), paths in kinds.items():
            collection.add("STS_025", modality, [(path.name, path.read_bytes()) for path in paths])
    assert not fetch_series("made_sarcoma").failed
    facts = [
        [
            (row.case, row.modality, row.slices, row.spacing_mm, row.roi, row.mask.name)
            for row in list_series(place)
        ]
        for place in (tmp_path / "origin", tmp_path / "out" / "volumes")
    ]
    assert sorted(facts[0]) == sorted(facts[1])
    assert len(facts[0]) == 3


def test_series_of_two_buckets_are_fetched(network, collection, fetch_series):
    collection.add("p1", "CT", random_files(2, 1))
    own = collection.add("p2", "CT", random_files(2, 2), aws_bucket="bucket-two")
    assert len(fetch_series("made_sarcoma").downloads.new) == 4
    paths = {path for _, path, _ in network.requests if own in path and "list-type" not in path}
    assert all(path.startswith(f"/bucket-two/{own}/") for path in paths)
    assert len(paths) == 2


def test_what_others_computed_and_cannot_be_read_is_left_out(collection, fetch_series):
    collection.add("p1", "CT", random_files(2, 1))
    collection.add("p1", "SEG", random_files(1, 2))
    collection.add("p1", "SM", random_files(1, 3), analysis="made_by_others")
    cohort = fetch_series("made_sarcoma", dry_run=True)
    assert [(part.name, part.n_files) for part in cohort.parts] == [("CT", 1)]
    assert cohort.left_out == {
        "series computed from the images by others": 1,
        "series of SEG": 1,
    }


def test_a_dry_run_counts_what_is_there_and_begun(collection, fetch_series, tmp_path):
    for case, modality, n in (("p1", "CT", 3), ("p2", "MR", 2), ("p3", "SM", 1), ("p3", "SM", 2)):
        collection.add(case, modality, random_files(n, f"{case} {modality} {n}"))
    assert fetch_series("made_sarcoma", out=tmp_path / "there", dry_run=True).bytes_there == 0
    done = fetch_series("made_sarcoma", out=tmp_path / "there")
    planned = fetch_series("made_sarcoma", out=tmp_path / "there", dry_run=True)
    assert planned.bytes_there == pytest.approx(planned.n_bytes, abs=2)
    half, gone = sorted(done.files, key=lambda file: file.place)[:2]
    path = done.out / half.place
    path.rename(half.part(done.out))
    (done.out / gone.place).unlink()
    again = fetch_series("made_sarcoma", out=tmp_path / "there", dry_run=True)
    assert again.bytes_there == pytest.approx(planned.bytes_there - gone.size, abs=2)


def test_slides_of_normal_tissue_and_frozen_sections_are_left_out(collection, fetch_series):
    descriptions = {
        "p1": [
            "FFPE HE TP DX10",
            "FFPE HE TP DX2",
            "Frozen HE TP TSA",
            "FFPE HE NT DX1",
            "FFPE HE TP DXA",
        ],
        "p2": ["HE normal", "HE  tumor", "Frozen HE NT TSB"],
        "p3": ["HE Normal"],
    }
    for case, own in descriptions.items():
        for text in own:
            collection.add(case, "SM", random_files(1, text), SeriesDescription=text)
    cohort = fetch_series("made_sarcoma")
    assert cohort.left_out == {"slides of normal tissue": 4, "frozen sections": 1}
    with cohort.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    specimens = sorted((row["case"], row["specimen"]) for row in rows)
    assert specimens == [
        ("p1", "FFPE HE TP DX10"), ("p1", "FFPE HE TP DX2"), ("p1", "FFPE HE TP DXA"), ("p2", "HE tumor"),
    ]  # fmt: skip
    first = fetch_series("made_sarcoma", slides_per_case=2)
    with first.table.open(newline="") as file:
        taken = {row["specimen"] for row in csv.DictReader(file)}
    assert taken == {"FFPE HE TP DX2", "FFPE HE TP DX10", "HE tumor"}


def test_modalities_have_other_names_too(collection, fetch_series):
    for modality in ("CT", "MR", "PT", "SEG"):
        collection.add("p1", modality, random_files(2, modality))
    parts = fetch_series("made_sarcoma", modality=["mri", "PET", "SEG"], dry_run=True).parts
    assert [part.name for part in parts] == ["MR", "PT", "SEG"]
    with pytest.raises(FetchError, match=r"No modality 'SM'. .*Known: CT, MR, PT, SEG"):
        fetch_series("made_sarcoma", modality="SM", dry_run=True)


def test_cases_are_drawn_by_the_seed_and_only_those_with_an_image(collection, fetch_series):
    for number in range(6):
        collection.add(f"p{number}", "RTSTRUCT", random_files(1, number))
        if number < 5:
            collection.add(f"p{number}", "CT", random_files(2, number + 10))

    def cases(n, seed=0):
        cohort = fetch_series("made_sarcoma", max_cases=n, seed=seed, out="nowhere", dry_run=True)
        return {part.name: part.n_cases for part in cohort.parts}, cohort.n_bytes

    assert cases(2)[0] == {"CT": 2, "RTSTRUCT": 2}
    assert cases(None)[0] == {"CT": 5, "RTSTRUCT": 5}
    assert cases(2) == cases(2)


def test_cases_are_drawn_among_those_with_the_outlines_that_are_asked_for(collection, fetch_series):
    for number in range(8):
        collection.add(f"p{number}", "MR", random_files(1, number))
        if number % 4 == 1:
            collection.add(f"p{number}", "RTSTRUCT", random_files(1, number + 10))

    def cases(**options):
        cohort = fetch_series("made_sarcoma", out="nowhere", dry_run=True, **options)
        return {part.name: part.n_cases for part in cohort.parts}

    both = {"modality": ["MR", "RTSTRUCT"]}
    for seed in range(5):
        assert cases(max_cases=2, seed=seed, **both) == {"MR": 2, "RTSTRUCT": 2}
    assert cases(max_cases=7, **both) == {"MR": 2, "RTSTRUCT": 2}
    assert cases(**both) == {"MR": 8, "RTSTRUCT": 2}
    assert cases(max_cases=7)["MR"] == 7  # outlines were not asked for


def test_files_come_once_and_are_continued(network, collection, fetch_series, tmp_path):
    network.page = 3
    own = collection.add("p1", "CT", random_files(8, 1))
    first = sorted(key for key in network.objects)[0]
    network.faults[f"/bucket/{first}"].extend(["cut 500", "503", "wrong"])
    cohort = fetch_series("made_sarcoma")
    placed = sorted((tmp_path / "out" / "volumes").rglob("*.dcm"))
    assert {path.name: path.read_bytes() for path in placed} == {
        key.partition("/")[2]: data for key, data in network.objects.items()
    }
    assert [path.parent.name for path in placed] == [f"CT-{own[:8]}"] * 8
    sent = network.bytes_sent()
    again = fetch_series("made_sarcoma")
    assert network.bytes_sent() == sent
    assert len(again.downloads.present) == len(cohort.files) == 8


def test_a_tag_of_several_parts_is_no_checksum_and_its_change_is_noticed(
    network, collection, fetch_series
):
    files = random_files(2, 1)
    collection.add("p1", "CT", files, tags=[(files[0][0], "0123456789abcdef0123456789abcdef-3")])
    cohort = fetch_series("made_sarcoma")
    assert not cohort.failed
    assert sorted(bool(file.md5) for file in cohort.files) == [False, True]
    [key] = network.etags
    network.etags[key] = "ffffffffffffffffffffffffffffffff-3"
    again = fetch_series("made_sarcoma")
    assert [place.rpartition("/")[2] for place in again.downloads.new] == [files[0][0]]


def test_a_part_without_a_checksum_is_not_continued_by_a_later_call(
    network, collection, fetch_series, tmp_path
):
    [(name, data)] = random_files(1, 1)
    tag = "0123456789abcdef0123456789abcdef-3"
    own = collection.add("p1", "CT", [(name, data)], tags=[(name, tag)])
    place = tmp_path / "out" / "volumes" / "p1" / f"CT-{own[:8]}"
    place.mkdir(parents=True)
    (tmp_path / "out" / "fetch.json").write_text(
        json.dumps({"source": "made_sarcoma", "settings": {}, "versions": {}, "tables": {}})
    )
    (place / f"{name}.{tag[:12]}.part").write_bytes(bytes(500))  # as a power cut may leave it
    fetch_series("made_sarcoma")
    assert [path.read_bytes() for path in place.iterdir()] == [data]


def large(collection, mib, n_bytes=(3 << 20) + 77, tag_mib=None):
    """A slide that the bucket took in parts; its place in the bucket, bytes and name there."""
    data = random.Random(mib).randbytes(n_bytes)
    tag = tag_of_parts(data, tag_mib or mib)
    own = collection.add("p1", "SM", [("s.dcm", data)], tags=[("s.dcm", tag)])
    return f"/bucket/{own}/s.dcm", data, f"{own}/s.dcm"


@pytest.mark.parametrize("mib", [1, 2, 3, 5])
def test_a_tag_of_parts_is_computed_again_whatever_their_length(
    network, collection, fetch_series, mib
):
    path, data, _ = large(collection, mib)
    network.faults[path].append("wrong")  # arrives damaged, and is fetched again
    notes = []
    cohort = fetch_series("made_sarcoma", notify=notes.append)
    placed = cohort.out / cohort.files[0].place
    assert placed.read_bytes() == data
    assert (cohort.downloads.unverified, notes) == ([], [])
    assert network.sent[path] == 2 * len(data)
    assert cohort.downloads.md5s == {cohort.files[0].place: md5(data)}
    assert md5(data) in (cohort.out / "manifest.csv").read_text()
    for forget in (False, True):  # by its checksum; by its tag alone
        placed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        if forget:
            placed.write_bytes(data)
            state = cohort.out / "fetch.json"
            state.write_text(json.dumps(json.loads(state.read_text()) | {"md5s": {}}))
        again = fetch_series("made_sarcoma", verify=True)
        assert again.downloads.new == ([] if forget else [cohort.files[0].place])
        assert (placed.read_bytes(), again.downloads.unverified) == (data, [])


def test_a_large_file_is_continued_after_a_kill_and_compared(network, collection, fetch_series):
    path, data, _ = large(collection, 2)
    network.faults[path].extend(["cut 2500000", *["503"] * 9])
    cohort = fetch_series("made_sarcoma", retries=2)
    assert len(cohort.failed) == 1
    network.faults.clear()
    cohort = fetch_series("made_sarcoma")
    assert (cohort.out / cohort.files[0].place).read_bytes() == data
    assert network.sent[path] == len(data)


@pytest.mark.parametrize("own_tag", [f"{7:032x}-2", f"{7:032x}", "nginx-7"])
def test_a_large_file_that_is_replaced_while_it_arrives_is_not_mixed(
    network, collection, fetch_series, own_tag
):
    path, _, key = large(collection, 2)
    network.faults[path].extend(["cut 2500000", *["503"] * 9])
    fetch_series("made_sarcoma", retries=2)
    network.faults.clear()
    newer = random.Random(9).randbytes(len(network.objects[key]))
    older, network.objects[key] = network.objects[key], newer
    network.etags[key] = own_tag
    network.listed_etags[key] = tag_of_parts(older, 2)
    sent = network.sent[path]
    cohort = fetch_series("made_sarcoma")
    place = cohort.out / cohort.files[0].place
    if own_tag.startswith("nginx"):  # a mirror that has no tags of content
        assert place.read_bytes() == newer
        assert network.sent[path] == sent + 2 * len(newer)  # all, and once more to compare
        return
    [reason] = cohort.failed
    assert f"another file (tag {own_tag}) than it lists" in reason
    assert not place.exists()
    del network.listed_etags[key]
    network.etags[key] = tag_of_parts(newer, 2)
    assert not fetch_series("made_sarcoma").failed
    assert place.read_bytes() == newer


def test_a_tag_that_cannot_be_computed_again_is_said_and_costs_one_more_file_at_most(
    network, collection, fetch_series
):
    paths = []
    for n in range(3):
        data = random.Random(n).randbytes((2 << 20) + 1 + n)
        name = f"{n}.dcm"
        own = collection.add(f"p{n}", "SM", [(name, data)], tags=[(name, f"{n:032x}-3")])
        paths.append((f"/bucket/{own}/{name}", len(data)))
    notes = []
    cohort = fetch_series("made_sarcoma", notify=notes.append, parallel=1)
    assert not cohort.failed
    assert [network.sent[path] / size for path, size in paths] == [2, 1, 1]
    assert len(cohort.downloads.unverified) == 3
    assert "the size alone was compared" in notes[-1]
    place = cohort.out / cohort.files[2].place
    place.write_bytes(bytes(place.stat().st_size))
    assert fetch_series("made_sarcoma", verify=True).downloads.new == [cohort.files[2].place]


def test_a_series_that_is_not_whole_is_said(network, collection, fetch_series, tmp_path):
    collection.add("p1", "SM", random_files(2, 1))
    collection.add("p2", "SM", random_files(2, 2))
    first = sorted(key for key in network.objects)[0]
    network.faults[f"/bucket/{first}"].append("404")
    cohort = fetch_series("made_sarcoma")
    assert len(cohort.failed) == 1
    assert len(read_table(cohort.table)) == 1  # of the whole slide


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instanceCount": 3}, "the bucket has 2 files, and the index says 3"),
        ({"crdc_series_uuid": "../etc"}, "are no names"),
        ({"aws_bucket": "evil/../x"}, "are no names"),
        ({"instanceCount": "many"}, "cannot be read"),
    ],
)
def test_an_index_that_does_not_fit_is_said(collection, fetch_series, change, message):
    collection.add("p1", "CT", random_files(2, 1))
    collection.rows[0] |= change
    collection.write()
    with pytest.raises(FetchError, match=message):
        fetch_series("made_sarcoma")


@pytest.mark.parametrize("name", ["../x.dcm", "a/b.dcm", ".hidden"])
def test_a_bucket_whose_files_have_other_places_is_refused(network, collection, fetch_series, name):
    own = collection.add("p1", "CT", random_files(1, 1))
    network.objects = {f"{own}/{name}": b"x"}
    with pytest.raises(FetchError, match="the bucket answers otherwise"):
        fetch_series("made_sarcoma")


def test_a_bucket_that_answers_with_a_page_is_refused(network, collection, fetch_series):
    collection.add("p1", "CT", random_files(1, 1))
    network.faults["/bucket/?list-type"].append("login")
    with pytest.raises(FetchError, match="login page"):
        fetch_series("made_sarcoma")


def test_names_that_cannot_be_are_said(collection, fetch_series, tmp_path):
    collection.add("p1", "CT", random_files(1, 1))
    with pytest.raises(
        FetchError, match=r"no collection 'made_sarkoma'\. Did you mean 'made_sarcoma'"
    ):
        fetch_series("Made Sarkoma")
    with pytest.raises(FetchError, match="max_cases must be at least 1; got 0"):
        fetch_series("made_sarcoma", max_cases=0)
    with pytest.raises(FetchError, match="slides_per_case must be at least 1; got -1"):
        fetch_series("made_sarcoma", slides_per_case=-1)
    with pytest.raises(FetchError, match="cannot be read"):
        fetch_idc("made_sarcoma", tmp_path, index=tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("STS_001", "STS_001"),
        ("a/b", "a%2Fb"),
        ("..", "%2E."),
        (".x", "%2Ex"),
        ("a%2Fb", "a%252Fb"),
    ],
)
def test_a_patients_name_is_a_safe_folder(name, folder):
    assert safe_name(name) == folder


@pytest.mark.parametrize(
    ("age", "expected"),
    [("046M", "3.833"), ("012Y", "12"), ("000D", "0"), ("052W", "0.9966"), ("", ""), ("12", "")],
)
def test_ages_of_dicom_are_years(age, expected):
    assert years(age) == expected


def test_the_packaged_index_has_the_public_sarcomas_and_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("SARCOMIL_IDC_SERVER", "http://127.0.0.1:9")
    cohort = mil.fetch_idc("soft_tissue_sarcoma", tmp_path / "sts", max_cases=2, dry_run=True)
    parts = {part.name: part.n_cases for part in cohort.parts}
    assert parts == {"CT": 2, "MR": 2, "PT": 2, "RTSTRUCT": 2}
    assert 100e6 < cohort.n_bytes < 2e9
    assert "CC BY 3.0" in cohort.licence
    assert not (tmp_path / "sts").exists()


def test_a_missing_package_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FetchError, match=r"needs the package pyarrow.*sarcomil\[fetch\]"):
        find_series("soft_tissue_sarcoma")
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(FetchError, match=r"needs the package httpx2.*sarcomil\[fetch\]"):
        mil.fetch_gdc("TCGA-SARC", tmp_path)
