"""Every row of the table joins its bag, or is listed with the reason."""

import re
from dataclasses import replace

import h5py
import numpy as np
import pytest

from features.bags.bag import write_bag
from mil.data.case import Row
from mil.data.cohort import assemble, load_cohort
from mil.data.table import read_table
from mil.errors import CohortError
from tests.mil.made import RECIPE, made_bag, made_cohort


@pytest.fixture
def table(tmp_path):
    def write(text, name="cohort.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_a_table_without_labels_is_told_so(table, tmp_path):
    with pytest.raises(CohortError, match="has no labels"):
        assemble(read_table(table("case,slide\nc1,s1\n")), tmp_path, allow_missing=True)


def test_the_columns_that_could_hold_the_labels_are_named(table, tmp_path):
    rows = read_table(table("case;slide;Befund;Alter\nc1;s1;LMS;61\nc2;s2;SS;34\n"))
    with pytest.raises(CohortError, match=r"or rename the one that has it: Befund, Alter\.$"):
        assemble(rows, tmp_path)


@pytest.mark.parametrize("twin", ["features", "source"])
def test_one_slide_under_two_cases_is_refused(table, tmp_path, twin):
    bags = [made_bag("s1"), made_bag("s2")]
    if twin == "features":
        bags[1] = replace(bags[1], features=bags[0].features)
    else:
        bags = [replace(bag, source_sha256="same file") for bag in bags]
    for bag in bags:
        write_bag(tmp_path / "store" / f"{bag.slide}.h5", bag)
    rows = read_table(table("case,slide,label\nc1,s1,a\nc2,s2,b\n"))
    with pytest.raises(
        CohortError, match=r"'s1' .case 'c1'. and 's2' .case 'c2'. are the same slide"
    ):
        assemble(rows, tmp_path / "store")


def test_identical_bags_are_used_where_that_is_allowed_and_counted(table, tmp_path):
    bags = [made_bag(f"s{number}") for number in range(1, 6)]
    for number in (1, 3):
        bags[number] = replace(bags[number], features=bags[0].features, coords_l0=bags[0].coords_l0)
    for bag in bags:
        write_bag(tmp_path / "store" / f"{bag.slide}.h5", bag)
    lines = [f"c{number},s{number},{'ab'[number % 2]}" for number in range(1, 6)]
    path = table("\n".join(["case,slide,label", *lines]))
    notes = []
    with pytest.raises(CohortError, match=r"and so are 1 more pairs.*set allow_duplicates"):
        load_cohort(path, tmp_path / "store")
    cohort = load_cohort(path, tmp_path / "store", allow_duplicates=True, notify=notes.append)
    assert cohort.duplicates == (("s1", "s2"), ("s1", "s4"))
    assert len(cohort.cases) == 5
    assert notes[-1].startswith("2 slides have the same bag as another one, e.g. s2 as s1")


def test_bags_of_which_all_tiles_are_one_are_named(table, tmp_path):
    features = {"s2": np.zeros((7, 5), np.float32), "s4": np.ones((4, 5), np.float32)}
    for number in range(1, 6):
        bag = made_bag(f"s{number}", features.get(f"s{number}"))
        write_bag(tmp_path / "store" / f"{bag.slide}.h5", bag)
    lines = [f"c{number},s{number},{'ab'[number % 2]}" for number in range(1, 6)]
    path, notes = table("\n".join(["case,slide,label", *lines])), []
    load_cohort(path, tmp_path / "store", notify=notes.append)
    [note] = notes
    assert note.startswith(
        "All tiles of s2, s4 have the same features: whatever made them saw nothing"
    )


def test_what_cannot_be_asked_for_is_no_remedy(tmp_path):
    """As in a protocol, which has no option for it."""
    bags = [made_bag("x"), replace(made_bag("y"), features=made_bag("x").features)]
    for bag in bags:
        write_bag(tmp_path / f"{bag.slide}.h5", replace(bag, coords_l0=bags[0].coords_l0))
    rows = rows_of([("c", "x", "a"), ("d", "y", "b")])
    with pytest.raises(CohortError, match=r"are the same slide\. Keep one of them in the table\.$"):
        assemble(rows, tmp_path, allow_duplicates=None)
    with pytest.raises(CohortError, match=r"Correct them, or remove their rows\.$"):
        assemble([*rows, *rows_of([("e", "z", "b")])], tmp_path, allow_missing=None)


def test_the_order_of_rows_changes_nothing(table, tmp_path):
    for slide in ("s1", "s2", "s3"):
        write_bag(tmp_path / "store" / f"{slide}.h5", made_bag(slide))
    lines = ["c2,s2,b", "c1,s3,a", "c1,s1,a"]
    first, second = (
        assemble(read_table(table("\n".join(["case,slide,label", *order]))), tmp_path / "store")
        for order in (lines, lines[::-1])
    )
    shown = [[(c.name, [bag.slide for bag in c.bags]) for c in x.cases] for x in (first, second)]
    assert shown[0] == shown[1] == [("c1", ["s1", "s3"]), ("c2", ["s2"])]


def test_bags_of_different_width_are_refused(table, tmp_path):
    for slide, dim in (("s1", 5), ("s2", 7)):
        write_bag(tmp_path / "store" / f"{slide}.h5", made_bag(slide, dim=dim))
    with pytest.raises(CohortError, match="hold 5 and 7 features per tile"):
        assemble(read_table(table("case,slide,label\nc1,s1,a\nc2,s2,b\n")), tmp_path / "store")


def test_a_bag_whose_data_were_changed_is_not_used(table, tmp_path):
    for slide in ("s1", "s2"):
        write_bag(tmp_path / "store" / f"{slide}.h5", made_bag(slide))
    with h5py.File(tmp_path / "store" / "s1.h5", "r+") as file:
        file["features"][0, 0] += 1
    with pytest.raises(CohortError, match="have changed since it was written"):
        assemble(read_table(table("case,slide,label\nc1,s1,a\nc2,s2,b\n")), tmp_path / "store")


ROWS = [
    ("c1", "s1", "a"),
    ("c2", "s2", "b"),
    ("c1", "s3", "a"),
    ("c3", "s4", "b"),
]


@pytest.fixture
def store(tmp_path):
    """Bags of all rows."""
    for case, slide, _ in ROWS:
        write_bag(tmp_path / "store" / f"{slide}.h5", made_bag(slide, case=case))
    return tmp_path / "store"


def rows_of(rows=ROWS):
    return [Row(line=i, case=c, slide=s, label=k) for i, (c, s, k) in enumerate(rows, start=2)]


def test_bags_join_their_case_in_the_order_of_the_table(store):
    cohort = assemble(rows_of(), store)
    assert [(case.name, case.label, [bag.slide for bag in case.bags]) for case in cohort.cases] == [
        ("c1", "a", ["s1", "s3"]),
        ("c2", "b", ["s2"]),
        ("c3", "b", ["s4"]),
    ]


def test_case_without_a_known_owner_of_its_bag_is_taken(store):
    write_bag(store / "s1.h5", made_bag("s1", case=""))
    assert len(assemble(rows_of(), store).cases) == 3


def test_classes_are_sorted(store):
    rows = [(case, slide, {"a": "z", "b": "m"}[label]) for case, slide, label in ROWS]
    assert assemble(rows_of(rows), store).classes == ("m", "z")


def test_facts_of_the_bags_are_those_of_the_cohort(store):
    cohort = assemble(rows_of(), store)
    assert (cohort.recipe, cohort.dim) == (RECIPE, 5)
    assert cohort.recipe_sha256 == made_bag("s1").recipe_sha256


def test_site_and_further_columns_go_to_the_case(store):
    rows = [
        Row(line=2, case="c1", slide="s1", label="a", site="x", other={"age": "61"}),
        Row(line=3, case="c2", slide="s2", label="b", site="y"),
    ]
    first = assemble(rows, store).cases[0]
    assert (first.site, first.other) == ("x", {"age": "61"})


@pytest.fixture
def gappy(store):
    """A store in which one slide has no bag and one is cut off, and rows of which one lacks a label."""
    (store / "s4.h5").unlink()
    broken = store / "s3.h5"
    broken.write_bytes(broken.read_bytes()[:200])
    for slide in ("s5", "s6"):
        write_bag(store / f"{slide}.h5", made_bag(slide))
    return [*rows_of(), *rows_of([("c5", "s5", ""), ("c6", "s6", "b")])]


def test_rows_that_cannot_be_used_are_refused_with_their_reasons(gappy, store):
    with pytest.raises(CohortError) as caught:
        assemble(gappy, store, source="my table")
    message = str(caught.value)
    assert message.startswith("3 of 6 rows of my table cannot be used: ")
    for reason in (
        r"s3 \(.*cannot be read",
        r"s4 \(.*no such bag",
        r"s5 \(no label\)",
        "set allow_missing",
    ):
        assert re.search(reason, message)


def test_a_bag_that_is_spelt_otherwise_is_offered(tmp_path):
    for slide in ("Scan-07", "Scan-08"):
        write_bag(tmp_path / f"{slide}.h5", made_bag(slide))
    rows = rows_of([("c", "scan_7", "a"), ("d", "Scan-09", "b"), ("e", "Scan-08", "b")])
    with pytest.raises(CohortError) as caught:
        assemble(rows, tmp_path)
    first, second = re.findall(r"[Ss]can.\w+ \([^)]*\)", str(caught.value))
    assert first.endswith("Extract the slide first. Did you mean 'Scan-07'?)")
    assert "Did you mean" not in second


def test_every_row_is_used_or_excluded_with_a_reason(gappy, store):
    cohort = assemble(gappy, store, allow_missing=True)
    used = [bag.slide for case in cohort.cases for bag in case.bags]
    left = [slide for slide, _ in cohort.excluded]
    assert used == ["s1", "s2", "s6"]
    assert left == ["s3", "s4", "s5"]
    assert all(reason for _, reason in cohort.excluded)


def test_long_list_of_unusable_rows_says_how_many_more(store):
    with pytest.raises(CohortError, match=r"8 of 8 rows .* and 3 more"):
        assemble(rows_of([(f"x{i}", f"x{i}", "a") for i in range(8)]), store)


def test_nothing_to_use_is_refused_even_if_gaps_are_allowed(store):
    with pytest.raises(CohortError, match="No row of the table has a bag"):
        assemble(rows_of([("x", "x", "a")]), store, allow_missing=True)


def test_store_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CohortError, match="no such bag store"):
        assemble(rows_of(), tmp_path / "absent", allow_missing=True)


def test_one_class_is_no_diagnosis(store):
    with pytest.raises(CohortError, match="only one class, 'a'"):
        assemble(rows_of([(case, slide, "a") for case, slide, _ in ROWS]), store)


def test_class_that_gaps_have_emptied_is_noticed(store):
    (store / "s2.h5").unlink()
    (store / "s4.h5").unlink()
    with pytest.raises(CohortError, match="only one class, 'a'"):
        assemble(rows_of(), store, allow_missing=True)


def test_a_case_is_called_as_the_table_calls_it(store):
    rows = [("new 1", "s1", "a"), ("c2", "s2", "b"), ("new 1", "s3", "a"), ("c2", "s4", "b")]
    cohort = assemble(rows_of(rows), store)  # c1 renamed, c3 joined to c2
    assert cohort.names == ["c2", "new 1"]
    assert {bag.case for bag in cohort.bags} == {"c2", "new 1"}


@pytest.mark.parametrize("allow_missing", [False, True])
def test_slides_of_one_case_are_not_divided(store, allow_missing):
    rows = [("c1", "s1", "a"), ("c2", "s2", "b"), ("other", "s3", "a"), ("c3", "s4", "b")]
    with pytest.raises(
        CohortError, match=r"'s1' and 's3' .* for one case, 'c1', but .* to 'c1' and 'other'"
    ):
        assemble(rows_of(rows), store, allow_missing=allow_missing)


def test_bag_of_another_slide_is_refused(store):
    write_bag(store / "s2.h5", made_bag("s4"))
    with pytest.raises(CohortError, match=r"s2\.h5 is the bag of slide 's4'"):
        assemble(rows_of(), store)


@pytest.mark.parametrize(
    "recipe",
    [RECIPE | {"mpp": 0.25}, {k: v for k, v in RECIPE.items() if k != "mpp"}],
    ids=["changed", "lacking"],
)
def test_bags_of_different_recipes_are_refused_with_what_differs(store, recipe):
    write_bag(store / "s2.h5", made_bag("s2", recipe=recipe))
    with pytest.raises(CohortError, match=r"Bags of s1 and s2 were made differently \(mpp\)"):
        assemble(rows_of(), store)


def test_key_that_only_the_second_recipe_has_is_named(store):
    write_bag(store / "s2.h5", made_bag("s2", recipe=RECIPE | {"stain": "macenko"}))
    with pytest.raises(CohortError, match=r"\(stain\)"):
        assemble(rows_of(), store)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_features_of_the_file_come_unchanged(store, dtype):
    bag = made_bag("s1", np.random.default_rng(0).normal(size=(4, 5)).astype(dtype))
    write_bag(store / "s1.h5", bag)
    features = assemble(rows_of(), store).cases[0].bags[0].features
    assert features.dtype == dtype
    np.testing.assert_array_equal(features, bag.features)


def test_named_cases_come_in_the_order_of_the_cohort():
    cohort = made_cohort((2, 2))
    assert [case.name for case in cohort.named(["b1", "a0"])] == ["a0", "b1"]


def test_name_that_is_no_case_is_refused():
    with pytest.raises(CohortError, match=r"1 cases are not in the cohort, e.g. 'z9'"):
        made_cohort().named(["a0", "z9"])
