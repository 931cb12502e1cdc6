"""Which cases and slides of a project are chosen, and what its table says of them."""

import csv
import re
from collections import Counter

import numpy as np
import pytest

import mil
from mil.data.outcomes import with_outcomes
from mil.data.table import read_table
from mil.errors import FetchError
from mil.fetch import gdc
from mil.fetch.barcode import parse_barcode
from mil.fetch.choice import choose, draw
from mil.fetch.gdc import CaseFacts, SlideFile
from mil.fetch.settings import Selection
from mil.fetch.subtypes import SARCOMA_SPELLINGS, SUBTYPE_OF, plain_spelling
from tests.features.making import write_tiff
from tests.mil.fetch.made_services import md5, patient, slide


def rows_of(cohort):
    with cohort.table.open(newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def slides_of(cohort):
    return Counter(file.case for file in cohort.files)


@pytest.mark.parametrize(
    ("name", "kind", "is_tumour", "number"),
    [
        ("TCGA-DX-AB2Z-01Z-00-DX4.8EB9A511.svs", "DX", True, "4"),
        ("TCGA-DX-AB2Z-01A-01-TSA.3165063B.svs", "TS", True, "A"),
        ("TCGA-DX-A6BK-11A-02-TS2.00.svs", "TS", False, "2"),
        ("TCGA-DX-A6BK-11A-00-DX1.00.svs", "DX", False, "1"),
        ("TCGA-TS-A7P7-06A-01-BS1", "BS", True, "1"),
        ("TCGA-QQ-A8VB-02A-11-MS1.0.svs", "MS", True, "1"),
        ("TCGA-QQ-A8VB-20A-11-DX1.0.svs", "DX", False, "1"),
    ],
)
def test_a_barcode_is_read_by_its_positions(name, kind, is_tumour, number):
    barcode = parse_barcode(name)
    assert (barcode.kind, barcode.is_tumour, barcode.number) == (kind, is_tumour, number)
    assert barcode.case == name[:12]
    assert barcode.site == name[5:7]


@pytest.mark.parametrize(
    "name", ["C3L-00001-21.svs", "TCGA-DX-AB2Z.svs", "TCGA-DX-AB2Z-01Z-00-DXX-1.svs", "DX1.svs"]
)
def test_another_name_is_no_barcode(name):
    assert parse_barcode(name) is None


def test_slides_of_a_case_are_ordered_by_sample_and_number():
    names = ["02A-01-DX1", "01Z-00-DX10", "01Z-00-DX2", "01Z-00-DXA", "01Z-00-DX1"]
    order = sorted(names, key=lambda name: parse_barcode(f"TCGA-DX-A001-{name}").order)
    assert [name[-4:].strip("-") for name in order] == ["DX1", "DX2", "DX10", "DXA", "DX1"]


def test_every_spelling_has_one_subtype():
    spellings = [plain_spelling(name) for own in SARCOMA_SPELLINGS.values() for name in own]
    assert len(spellings) == len(set(spellings))


def test_one_diagnostic_slide_of_tumour_per_case_and_spellings_are_merged(fetch):
    cohort = fetch(dry_run=True)
    sizes = {part.name: part.n_cases for part in cohort.parts}
    assert sizes == {"LMS": 4, "DDLPS": 3, "UPS": 3, "SS": 3, "MFS": 2, "MPNST": 2, "DF": 1}
    assert set(slides_of(cohort).values()) == {1}
    assert all(re.search(r"-01Z-00-DX1\.", file.place) for file in cohort.files)
    assert cohort.spellings["Synovial Sarcoma - Biphasic"] == ("SS", 1)
    assert cohort.spellings["Chordoma"] == ("", 1)


def test_what_is_left_out_is_counted(fetch):
    assert fetch(dry_run=True, subtypes=["LMS", "ss"]).left_out == {
        "slides of normal tissue or controls": 3,
        "frozen sections and other slides that are not diagnostic": 18,
        "slides of several cases": 1,
        "cases without a diagnostic slide": 2,
        "cases without a label": 2,
        "cases of other subtypes": 11,
    }


def test_a_case_of_normal_tissue_alone_has_no_row(fetch):
    cases = {file.case for file in fetch(dry_run=True, slides_per_case=50).files}
    assert "TCGA-DX-A900" not in cases
    assert not any("-11A-" in file.place for file in fetch(dry_run=True, slides_per_case=50).files)


def test_of_thirty_slides_so_many_are_taken_by_number(fetch):
    cohort = fetch(dry_run=True, slides_per_case=11, subtypes=["LMS"])
    own = [file.place for file in cohort.files if file.case == "TCGA-DX-A001"]
    assert [re.search(r"DX(\d+)\.", place)[1] for place in own] == [str(n) for n in range(1, 12)]
    assert slides_of(cohort)["TCGA-3B-A901"] == 2  # the primary tumour, then the recurrence
    recurrence = [file.place for file in cohort.files if file.case == "TCGA-3B-A901"]
    assert ["-01Z-" in place for place in recurrence] == [True, False]


def test_the_draw_depends_on_the_seed_alone_and_fewer_are_among_more(network, fetch):
    def cases(**options):
        return {file.case for file in fetch(dry_run=True, subtypes="LMS", **options).files}

    first = cases(max_per_subtype=2)
    network.files.reverse(), network.cases.reverse()
    assert cases(max_per_subtype=2) == first < cases(max_per_subtype=3)
    assert {frozenset(cases(max_per_subtype=2, seed=seed)) for seed in range(8)} > {
        frozenset(first)
    }
    assert draw("abc", None, 0) == ["a", "b", "c"]


def test_the_table_says_what_is_known_of_a_case(network, fetch):
    network.cases[0] |= {
        "demographic": {"sex_at_birth": "male", "vital_status": "Alive", "age_at_index": 44},
        "diagnoses": [
            {"primary_diagnosis": "Carcinoma, NOS", "diagnosis_is_primary_disease": "false"},
            {"primary_diagnosis": "Leiomyosarcoma, NOS", "diagnosis_is_primary_disease": "true"},
        ],
        "follow_ups": [{"days_to_follow_up": 30}, {"days_to_follow_up": 700}, {}],
    }
    network.cases[1]["demographic"] |= {"vital_status": "Dead", "days_to_death": None}
    network.cases[4]["diagnoses"][0]["days_to_last_follow_up"] = -3
    rows = rows_of(fetch())
    assert rows["TCGA-DX-A001"] | {"slide": ""} == {
        "case": "TCGA-DX-A001", "slide": "", "label": "LMS", "site": "DX", "age": "44", "sex": "male",
        "time": "700", "event": "0", "mpp": "",
    }  # fmt: skip
    assert rows["TCGA-DX-A003"]["time"] + rows["TCGA-DX-A003"]["event"] == "1031"
    assert rows["TCGA-DX-A003"]["age"] == "60.0"
    assert rows["TCGA-3B-A002"]["time"] == rows["TCGA-3B-A002"]["event"] == ""  # dead, no date
    assert (
        rows["TCGA-DX-A005"]["time"] + rows["TCGA-DX-A005"]["event"] == ""
    )  # before the diagnosis
    assert rows["TCGA-3B-A901"]["time"] == ""  # vital status not known


def test_the_table_is_read_by_other_verbs(fetch):
    cohort = fetch()
    rows = read_table(cohort.table)
    assert Counter(row.label for row in rows)["LMS"] == 4
    labelled = with_outcomes(rows, "time", "event")
    assert sum(row.time is not None for row in labelled) == 17
    assert {row.site for row in rows} == {"DX", "3B"}


def test_the_scale_of_a_slide_that_states_one_is_in_the_table(network, fetch, tmp_path):
    write_tiff(tmp_path / "a.tiff", [np.full((64, 64, 3), 200, np.uint8)], mpp=0.5)
    data = (tmp_path / "a.tiff").read_bytes()
    [file] = [f for f in network.files if "A001-01Z-00-DX1." in f["file_name"]]
    file |= {"file_size": len(data), "md5sum": md5(data)}
    network.contents[file["file_id"]] = data
    rows = rows_of(fetch(subtypes=["LMS"]))
    assert rows["TCGA-DX-A001"]["mpp"] == "0.5"
    assert rows["TCGA-3B-A002"]["mpp"] == ""


def test_all_pages_of_an_answer_are_read(network, fetch, monkeypatch):
    whole = fetch(dry_run=True)
    network.page = 7
    monkeypatch.setattr(gdc, "PAGE", 9)
    assert fetch(dry_run=True).files == whole.files


def test_a_list_that_ends_early_is_said(network, fetch):
    network.ends_after = 9
    with pytest.raises(FetchError, match=r"lists 9 of \d+ hits"):
        fetch()


def test_the_field_of_the_label_can_be_another(network, fetch):
    network.cases[2]["disease_type"] = "SOFT tissue  tumours"  # the commonest form is taken
    cohort = fetch(dry_run=True, label_field="cases.disease_type", max_per_subtype=3)
    assert [(part.name, part.n_available, part.n_cases) for part in cohort.parts] == [
        ("Soft tissue tumours", 20, 3)
    ]


def test_slides_without_a_barcode_are_judged_by_the_services_words(network, fetch):
    kinds = [
        ("C3L-1-21", "Primary Tumor", "Diagnostic Slide"),
        ("C3L-2-21", "Solid Tissue Normal", "Diagnostic Slide"),
        ("C3L-3-21", "Primary Tumor", "Tissue Slide"),
        ("C3L-4-21", "Metastatic", "Diagnostic Slide"),
    ]
    network.files = [
        slide(name, case=name[:5], sample_type=sample, strategy=strategy, project="CPTAC-9")
        for name, sample, strategy in kinds
    ]
    network.cases = [patient(name[:5], "Liposarcoma", project="CPTAC-9") for name, *_ in kinds]
    assert {file.case for file in fetch("CPTAC-9", dry_run=True).files} == {"C3L-1", "C3L-4"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"project": "TCGA-SARK"}, "There is no project 'TCGA-SARK'. Did you mean 'TCGA-SARC'"),
        ({"project": "TCGA-LUAD", "subtypes": ["LMS"]}, "No subtype 'LMS'"),
        ({"subtypes": ["LMS", "DDLP"]}, "No subtype 'DDLP'. Did you mean 'DDLPS'"),
        (
            {"subtypes": ["wdlps", "SS", "PLPS"]},
            "There is no case of WDLPS or PLPS here with a diagnostic",
        ),
        ({"subtypes": ["WDLP"]}, "No subtype 'WDLP'. Did you mean 'WDLPS'"),
        ({"label_field": "diagnoses.grade"}, "No case of TCGA-SARC has a single value"),
        ({"max_per_subtype": 0}, "max_per_subtype must be at least 1; got 0"),
        ({"slides_per_case": -1}, "slides_per_case must be at least 1; got -1"),
        ({"parallel": 0}, "parallel must be at least 1; got 0"),
        ({"timeout_s": 0.0}, "timeout_s must be above 0; got 0"),
        ({"server": "ftp://nowhere"}, "an address that begins with https://"),
    ],
)
def test_what_cannot_be_fetched_is_said(fetch, options, message):
    with pytest.raises(FetchError, match=re.escape(message)):
        fetch(**options)
    assert not fetch.out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_name": "../../etc/cron.d/x.svs"}, "is no name of a file"),
        ({"file_name": ".hidden.svs"}, "is no name of a file"),
        ({"file_id": "../cases"}, "is no name of a file"),
        ({"md5sum": "x"}, "as the md5"),
        ({"file_size": "many"}, "answers otherwise than expected"),
    ],
)
def test_a_list_that_cannot_be_is_refused(network, fetch, change, message):
    network.files[5] |= change
    with pytest.raises(FetchError, match=message):
        fetch()
    assert not fetch.out.exists()


@pytest.mark.parametrize("endpoint", ["/files", "/cases", "/projects"])
def test_a_login_page_is_no_answer(network, fetch, endpoint):
    network.faults[endpoint].append("login")
    with pytest.raises(
        FetchError, match=f"{endpoint} answers otherwise .*<html>Please.*login page"
    ):
        fetch("TCGA-NONE" if endpoint == "/projects" else "TCGA-SARC")


def test_a_dry_run_writes_nothing_and_counts_every_byte(network, fetch):
    cohort = fetch(dry_run=True, max_per_subtype=2)
    assert cohort.n_bytes == sum(file.size for file in cohort.files) > 0
    assert not fetch.out.exists()
    assert network.bytes_sent() == 0


@pytest.mark.realdata
def test_the_real_list_of_tcga_sarc_has_its_254_cases(realdata):
    with (realdata / "tables" / "tcga-sarc-slides.tsv").open(newline="") as file:
        listed = list(csv.DictReader(file, delimiter="\t"))
    slides = []
    for row in listed:
        barcode = parse_barcode(row["filename"])
        assert barcode.case == row["case"]
        slides.append(
            SlideFile(
                id=row["id"], name=row["filename"], size=int(row["size"]), md5=row["md5"],
                cases=(row["case"],), is_diagnostic=barcode.kind == "DX", is_tumour=barcode.is_tumour,
                site=barcode.site, order=barcode.order,
            )
        )  # fmt: skip
    with (realdata / "tables" / "tcga-sarc-outcome.csv").open(newline="") as file:
        cases = {
            row["bcr_patient_barcode"]: CaseFacts(
                name=row["bcr_patient_barcode"], spelling=row["histological_type"], site="", sex="", age="",
                time=row["OS.time"], event=row["OS"],
            )
            for row in csv.DictReader(file)
        }  # fmt: skip
    choice = choose(
        slides,
        cases,
        Selection(),
        lambda spelling: SUBTYPE_OF.get(plain_spelling(spelling), ""),
        (*SARCOMA_SPELLINGS,),
    )
    assert {group.label: group.n_cases for group in choice.groups} == {
        "LMS": 100, "DDLPS": 58, "UPS": 51, "MFS": 24, "SS": 10, "MPNST": 9, "DF": 2,
    }  # fmt: skip
    assert sum(group.n_slides for group in choice.groups) == 600
    assert len(choice.spellings) == 11
    assert choice.left_out["slides of normal tissue or controls"] == 25
    assert choice.left_out["frozen sections and other slides that are not diagnostic"] == 265
    assert choice.left_out["cases without a diagnostic slide"] == 7
    numbers = {
        parse_barcode(s.name).number for g in choice.groups for c in g.chosen for s in c.slides
    }
    assert numbers == {"1"}


def test_the_public_name_checks_its_arguments(fetch):
    with pytest.raises(mil.SarcomilError, match="seed must be a whole number"):
        mil.fetch_gdc("TCGA-SARC", fetch.out, seed="one")
    with pytest.raises(mil.SarcomilError, match="no option 'mirror'"):
        mil.fetch_gdc("TCGA-SARC", fetch.out, mirror="http://x")
