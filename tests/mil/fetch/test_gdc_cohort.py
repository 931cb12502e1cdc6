"""Which cases and slides of a project are chosen, and what its table says of them."""

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import mil
from mil.data.outcomes import with_outcomes
from mil.data.table import read_table
from mil.errors import FetchError
from mil.fetch import gdc
from mil.fetch.barcode import parse_barcode
from mil.fetch.choice import draw
from mil.fetch.entries import case_facts
from mil.fetch.gdc import LABEL_FIELD
from mil.fetch.subtypes import SARCOMA_SPELLINGS, SUBTYPE_OF, plain_spelling
from tests.features.making import write_tiff
from tests.mil.fetch.made_services import md5, patient, real_sarcomas, slide


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


@pytest.mark.parametrize(
    "spelling",
    [
        "synovial\u00a0Sarcoma \u2013  biphasic",
        "Pleomorphic \u2018MFH\u2019 / Undifferentiated pleomorphic SARCOMA",
    ],
)
def test_a_spelling_has_its_label_however_it_is_typed(spelling):
    assert SUBTYPE_OF[plain_spelling(spelling)] in ("SS", "UPS")


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
        "cases without a label": 1,
        "cases with several diagnoses": 1,
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
    ("sample", "reason"),
    [
        ({"tissue_type": "Tumor"}, ""),
        ({"sample_type": None, "tissue_type": "Tumor"}, ""),
        ({"sample_type": "Not Reported", "tissue_type": "Tumor"}, ""),
        ({"sample_type": "Metastatic", "tissue_type": "Tumor"}, ""),
        ({"tissue_type": "Normal"}, "slides of normal tissue or controls"),
        ({"tissue_type": "Peritumoral"}, "slides of normal tissue or controls"),
        ({"tissue_type": "Unknown"}, "slides of which nothing says whether they show tumour"),
        ({}, "slides of which nothing says whether they show tumour"),
    ],
)
def test_newer_entries_call_the_sample_a_tissue(network, fetch, sample, reason):
    names = ("HCM-1-21", "HCM-2-21")
    network.files = [
        slide(name, case=name[:5], strategy="Diagnostic Slide", project="HCMI-7") for name in names
    ]
    network.files[0]["cases"][0]["samples"] = [sample]
    network.cases = [patient(name[:5], "Liposarcoma", project="HCMI-7") for name in names]
    cohort = fetch("HCMI-7", dry_run=True)
    assert {file.case for file in cohort.files} == ({"HCM-2"} if reason else {"HCM-1", "HCM-2"})
    assert cohort.left_out.get(reason, 0) == bool(reason)


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
        ({"label_field": "diagnoses.grade"}, "No case of TCGA-SARC has a value in"),
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


DAMAGED = "slides whose entry is damaged or contradicts itself"


def second_lms(network):
    """The first diagnostic slide of a leiomyosarcoma."""
    [file] = [f for f in network.files if f["file_name"].startswith("TCGA-3B-A002-01Z-00-DX1")]
    return file


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file_name": "../../etc/cron.d/x.svs"}, "x.svs (no name of a file"),
        ({"file_name": ".hidden.svs"}, ".hidden.svs (no name of a file"),
        ({"file_name": "TCGA-3B-A002-01Z-00-DX1.a#2.svs"}, "a#2.svs (no name of a file"),
        ({"file_name": "TCGA-3B-A002-01Z-00-DX1.o'b.svs"}, "o'b.svs (no name of a file"),
        ({"file_name": None}, "(no name of a file"),
        ({"file_id": "../cases"}, "(id '../cases')"),
        ({"file_name": "a" * 201}, "aa (no name of a file)"),
        ({"md5sum": "0" * 31}, "(md5 '000"),
        ({"md5sum": None}, "(md5 None)"),
        ({"file_size": None}, "(size None)"),
        ({"file_size": "many"}, "(size 'many')"),
        ({"file_size": -7}, "(size -7)"),
        ({"file_size": True}, "(size True)"),
        ({"cases": [None, {"project": {"project_id": "TCGA-SARC"}}, "x"]}, "(no case)"),
    ],
)
def test_an_odd_entry_is_left_out_and_named_and_stops_no_other(network, fetch, change, words):
    before = {part.name: part.n_cases for part in fetch(dry_run=True).parts}
    second_lms(network).update(change)
    cohort = fetch()
    assert not cohort.failed
    assert {part.name: part.n_cases for part in cohort.parts} == before
    assert [f.place[-40:-4] for f in cohort.files if f.case == "TCGA-3B-A002"] != []  # its DX2
    assert cohort.left_out[DAMAGED] == 1
    [note] = [note for note in fetch.notes if words in note]
    assert note.startswith("Slide ")


def test_an_odd_entry_of_a_slide_that_is_not_diagnostic_is_no_matter(network, fetch):
    [frozen] = [f for f in network.files if f["file_name"].startswith("TCGA-3B-A002-01A-01-TSA")]
    frozen |= {"md5sum": None, "file_size": None}
    assert DAMAGED not in fetch(dry_run=True).left_out
    assert fetch.notes == []


@pytest.mark.parametrize("samples", [None, [None], [], [{"sample_type": None}], "x"])
def test_a_barcode_needs_no_sample_type(network, fetch, samples):
    before = fetch(dry_run=True).files
    second_lms(network)["cases"][0]["samples"] = samples
    assert fetch(dry_run=True).files == before


def test_a_list_of_nothing_but_odd_entries_is_of_another_service(network, fetch):
    for file in network.files:
        file["md5sum"] = "none"
    with pytest.raises(FetchError, match=r"answers otherwise than expected .*md5 'none'"):
        fetch()
    assert not fetch.out.exists()


@pytest.mark.parametrize("diagnoses", [None, [None], [], "x", {"primary_diagnosis": "Chordoma"}])
@pytest.mark.parametrize("demographic", [None, [], "female"])
def test_a_case_without_diagnosis_has_no_label_and_stops_no_other(
    network, fetch, diagnoses, demographic
):
    network.cases[1] |= {"diagnoses": diagnoses, "demographic": demographic}
    cohort = fetch(dry_run=True)
    assert cohort.left_out["cases without a label"] == 2
    assert sum(part.n_cases for part in cohort.parts) == 17


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("TCGA-3B-A002-01Z-00-DX1", {"sample_type": "Solid Tissue Normal"}, "sample 01 of the"),
        ("TCGA-DX-A001-11A-00-DX1", {"sample_type": "Metastatic"}, "sample 11 of the barcode"),
        ("TCGA-3B-A002-01Z-00-DX1", {"case": "TCGA-DX-A003"}, "another case than TCGA-DX-A003"),
    ],
)
def test_a_barcode_that_contradicts_the_entry_is_left_out(network, fetch, name, change, words):
    [file] = [f for f in network.files if f["file_name"].startswith(name)]
    if "case" in change:
        file["cases"][0]["submitter_id"] = change["case"]
    else:
        file["cases"][0]["samples"] = [change]
    cohort = fetch(dry_run=True, slides_per_case=99)
    assert cohort.left_out[DAMAGED] == 1
    assert not any(file["file_name"] in one.place for one in cohort.files)
    assert any(file["file_name"] in note and words in note for note in fetch.notes)


def test_spellings_of_one_subtype_are_one_diagnosis(network, fetch):
    two = ["Leiomyosarcoma, NOS", "Epithelioid leiomyosarcoma", None, "leiomyosarcoma,  nos"]
    network.cases[1]["diagnoses"] = [{"primary_diagnosis": one} for one in two]
    cohort = fetch(dry_run=True)
    assert {part.name: part.n_cases for part in cohort.parts}["LMS"] == 4
    joined = "Leiomyosarcoma, NOS + Epithelioid leiomyosarcoma + leiomyosarcoma,  nos"
    assert cohort.spellings[joined] == ("LMS", 1)
    assert cohort.spellings["Leiomyosarcoma, NOS + Carcinoma, NOS"] == ("", 1)
    assert cohort.left_out["cases with several diagnoses"] == 1


def test_capitals_of_one_word_are_one_label_of_any_project(network, fetch):
    network.cases = [patient("TCGA-XX-0001", ["Adeno, NOS", "ADENO,  nos"], project="TCGA-LUAD")]
    [part] = fetch("TCGA-LUAD", dry_run=True).parts
    assert (part.name, part.n_cases) == ("ADENO,  nos", 1)


def test_a_case_that_is_listed_twice_and_differently_is_left_out(network, fetch):
    network.cases.append(dict(network.cases[1]))  # the same again
    network.cases.append(network.cases[4] | {"demographic": {"vital_status": "Alive"}})
    cohort = fetch(dry_run=True)
    name = network.cases[4]["submitter_id"]
    assert sum(part.n_cases for part in cohort.parts) == 17
    assert not any(file.case == name for file in cohort.files)
    assert cohort.left_out["cases whose entry is damaged or contradicts itself"] == 1
    assert any(f"{name} (listed twice, and differently)" in note for note in fetch.notes)


@pytest.mark.parametrize(
    ("days", "years", "age", "remark"),
    [
        (21_915, None, "60.0", ""),
        ("18262", None, "50.0", ""),
        (None, "47", "47", ""),
        (21_915, 59, "60.0", ""),
        (47, 47, "", "contradicts"),
        (21_915, 30, "", "contradicts"),
        (-47, 47, "", "cannot be"),
        (80_000, None, "", "cannot be"),
        ("old", 47, "", "cannot be"),
        (None, 470, "", "cannot be"),
        ("not reported", 47, "47", ""),
    ],
)
def test_an_age_that_cannot_be_is_left_empty_and_said(days, years, age, remark):
    facts = case_facts(
        {
            "submitter_id": "a",
            "demographic": {"age_at_index": years},
            "diagnoses": [{"primary_diagnosis": "x", "age_at_diagnosis": days}],
        },
        LABEL_FIELD,
    )
    assert facts.age == age
    assert [remark in one for one in facts.remarks] == [True] * bool(remark)


@pytest.mark.parametrize(
    ("status", "death", "follow_up", "expected", "remark"),
    [
        ("Dead", "300", 500, ("300", "1"), ""),
        ("Dead", None, 500, ("", ""), ""),
        ("Dead", "soon", 500, ("", ""), "no number"),
        ("Dead", -4, 500, ("", ""), "before the diagnosis"),
        ("Alive", None, " 41.5", ("41.5", "0"), ""),
        ("Alive", 800, 500, ("", ""), "days to death of a case that is alive"),
        ("Alive", None, "1_0", ("", ""), "no number"),
        ("Alive", None, -4, ("", ""), "before the diagnosis"),
        ("Alive", "unknown", 0, ("0", "0"), ""),
        ("Unknown", 3, 5, ("", ""), ""),
    ],
)
def test_an_outcome_that_cannot_be_is_left_empty_and_said(
    status, death, follow_up, expected, remark
):
    facts = case_facts(
        {
            "submitter_id": "a",
            "demographic": {"vital_status": status, "days_to_death": death},
            "diagnoses": [{"primary_diagnosis": "x", "days_to_last_follow_up": follow_up}],
        },
        LABEL_FIELD,
    )
    assert (facts.time, facts.event) == expected
    assert [remark in one for one in facts.remarks] == [True] * bool(remark)


def test_facts_that_are_left_empty_are_said_of_the_cases_that_are_fetched(network, fetch):
    for case in network.cases[:5]:
        case["demographic"] |= {"vital_status": "Alive", "days_to_death": 5}
    fetch(subtypes=["DDLPS"], dry_run=True)
    [note] = fetch.notes
    assert note == (
        "TCGA-3B-A004, TCGA-DX-A005: days to death of a case that is alive. It is left empty."
    )


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
def test_the_real_list_of_tcga_sarc_is_chosen_from_as_the_service_would_send_it(
    network, fetch, realdata
):
    network.files, network.cases = real_sarcomas(realdata / "tables")
    cohort = fetch(dry_run=True)
    assert {part.name: part.n_available for part in cohort.parts} == {
        "LMS": 100, "DDLPS": 58, "UPS": 51, "MFS": 24, "SS": 10, "MPNST": 9, "DF": 2,
    }  # fmt: skip
    assert len(cohort.spellings) == 11
    assert cohort.left_out == {
        "slides of normal tissue or controls": 25,
        "frozen sections and other slides that are not diagnostic": 265,
        "cases without a diagnostic slide": 7,
    }
    assert {parse_barcode(Path(file.place).name).number for file in cohort.files} == {"1"}
    most = fetch(dry_run=True, slides_per_case=30)
    assert len(most.files) == 600
    assert max(Counter(file.case for file in most.files).values()) == 30
    few = fetch(dry_run=True, subtypes=["DDLPS", "LMS", "SS", "MPNST"], max_per_subtype=5)
    assert [part.n_files for part in few.parts] == [5] * 4
    sizes = {file["file_id"]: file["file_size"] for file in network.files}
    assert few.n_bytes == sum(sizes[file.id] for file in few.files)
    assert network.bytes_sent() == 0


def test_the_public_name_checks_its_arguments(fetch):
    with pytest.raises(mil.SarcomilError, match="seed must be a whole number"):
        mil.fetch_gdc("TCGA-SARC", fetch.out, seed="one")
    with pytest.raises(mil.SarcomilError, match="no option 'mirror'"):
        mil.fetch_gdc("TCGA-SARC", fetch.out, mirror="http://x")
