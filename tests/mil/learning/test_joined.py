"""Learning from joined bags: what only two scales tell together, one vector a case, and leaks."""

from dataclasses import replace

import numpy as np
import pytest

from features.bags.bag import read_bag, write_bag
from features.bags.convert import convert
from features.bags.join import join
from mil.data.cohort import load_cohort
from mil.data.splits import split_cases
from mil.errors import CohortError, FitError, LeakageError
from mil.evaluation.judge import evaluate
from mil.heads.registry import check_rows
from mil.learning.crossval import cross_validate
from mil.settings import FitSettings, SplitSettings
from tests.mil.made import QUICK, made_bag

FOLDS = SplitSettings(folds="4")
N_FINE = 24


def write_study(folder, n_cases=24, seed=0):
    """Which neighbourhood a kind of tile lies in tells the class; neither scale by itself knows it."""
    rng = np.random.default_rng(seed)
    lines = ["case,slide,label"]
    for number in range(n_cases):
        slide, label = f"s{number:02d}", number % 2
        kind = rng.permutation(N_FINE) % 2
        around = np.repeat(rng.permutation(4) % 2, N_FINE // 4)
        if label:
            kind = np.concatenate(
                [rng.permutation(6) < (5 if place else 1) for place in around[::6]]
            )
        else:
            kind = np.concatenate(
                [rng.permutation(6) < (1 if place else 5) for place in around[::6]]
            )
        fine = np.where(kind, 1, -1)[:, None] + 0.3 * rng.normal(size=(N_FINE, 3))
        coarse = np.where(around[::6], 1, -1)[:, None] + 0.3 * rng.normal(size=(4, 2))
        place = np.stack([np.arange(N_FINE) * 100, np.zeros(N_FINE)], axis=1).astype(np.int64)
        facts = {"size_l0": (2400, 600), "source_sha256": f"file {slide}"}
        write_bag(
            folder / "fine" / f"{slide}.h5",
            made_bag(
                slide, fine.astype(np.float32), coords_l0=place, side_l0=(100.0, 100.0), **facts
            ),
        )
        write_bag(
            folder / "coarse" / f"{slide}.h5",
            made_bag(
                slide,
                coarse.astype(np.float32),
                coords_l0=place[::6],
                side_l0=(600.0, 600.0),
                **facts,
            ),
        )
        lines.append(f"c{number:02d},{slide},{'AB'[label]}")
    (folder / "cohort.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = write_study(tmp_path_factory.mktemp("study"))
    join([folder / "fine", folder / "coarse"], folder / "joined")
    return folder


def write_cases(table, cases):
    rows = [f"{case},{case},{'AB'[i % 2]}" for i, case in enumerate(cases)]
    table.write_text("\n".join(["case,slide,label", *rows]))


def auc(folder, store, model="abmil"):
    cohort = load_cohort(folder / "cohort.csv", folder / store)
    folds = split_cases(cohort.names, cohort.labels, [""] * len(cohort.cases), FOLDS)
    settings = FitSettings(seeds=1, epochs=15, width=16, learning_rate=1e-2)
    predictions = cross_validate(cohort, folds, [model], settings, seed=0, workers=1)
    return evaluate(predictions)[model].metrics["auc"].value


def test_a_signal_of_two_scales_together_is_found_on_the_joined_bags_only(study):
    assert auc(study, "joined") > 0.95
    assert max(auc(study, "fine"), auc(study, "coarse")) < 0.75


def test_vectors_are_for_models_that_pool(study):
    join([study / "fine", study / "coarse"], study / "vectors", by="slide")
    recipe = read_bag(study / "vectors" / "s00.h5").recipe
    with pytest.raises(
        FitError, match=r"abmil compares the tiles .* one vector. Use one of .*mean"
    ):
        check_rows(["mean", "abmil"], recipe)
    with pytest.raises(FitError, match="tile-vote compares"):
        check_rows(["tile-vote"], recipe)
    with pytest.raises(FitError, match="dsmil compares"):
        auc(study, "vectors", "dsmil")
    assert 0 <= auc(study, "vectors", "pooled-logistic") <= 1


def test_vectors_of_slide_encoders_become_bags(study, tmp_path):
    import h5py

    rng = np.random.default_rng(3)
    for name in ("s00", "s01", "s02"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"] = rng.normal(size=16).astype(np.float32)
            file["features"].attrs["encoder"] = "titan"
            file["coords"] = np.zeros((50, 2), np.int64)  # of the tiles behind the vector
    with h5py.File(tmp_path / "s03.h5", "w") as file:
        file["features"] = rng.normal(size=(1, 16)).astype(np.float32)
        file["features"].attrs["encoder"] = "titan"
    result = convert(tmp_path, tmp_path / "out")
    assert (result.n_done, result.dims, result.failures) == (4, {16}, [])
    bag = read_bag(tmp_path / "out" / "s01.h5")
    assert (len(bag), bag.recipe["backbone"], bag.recipe["region"]) == (1, "titan", "vector")
    assert "for models that pool" in next(iter(result.notes))


def changed(folder, target, **changes):
    for path in sorted((folder / "coarse").glob("*.h5")):
        write_bag(folder / target / path.name, replace(read_bag(path), **changes))
    return folder / target


@pytest.mark.parametrize("by", ["tile", "slide", "case"])
def test_what_one_part_has_seen_is_refused(study, tmp_path, by):
    cases = {f"s{i:02d}": f"c{i:02d}" for i in range(24)}
    table = study / "cohort.csv"
    if by == "case":
        table = tmp_path / "cases.csv"
        table.write_text(
            "case,slide,label\n"
            + "\n".join(f"{c},{c},{'AB'[i % 2]}" for i, c in enumerate(cases.values()))
        )
    stain = {"slides": ["elsewhere"], "cases": ["x"], "sources": ["file s05"]}
    for seen, reason in (
        ({"trained_on": ("c07",)}, "trained on 1 cases that would be tested, e.g. c07"),
        ({"trained_on": ("renamed",), "trained_on_slides": ("file s09",)}, "e.g. c09"),
        ({"recipe": {"backbone": "toy", "stain_reference": stain}}, "normalised to slides of c05"),
    ):
        other = changed(study, f"seen-{by}-{reason[-3:]}", **seen)
        out = tmp_path / f"out-{reason[-3:]}"
        assert not join([study / "fine", other], out, by=by, cases=cases).failures
        cohort = load_cohort(table, out)
        folds = split_cases(cohort.names, cohort.labels, [""] * 24, FOLDS)
        with pytest.raises(LeakageError, match=reason):
            cross_validate(cohort, folds, ["mean"], QUICK, seed=0, workers=1)


def test_two_cases_that_share_a_slide_are_one(study, tmp_path):
    cases = {f"s{i:02d}": f"c{i:02d}" for i in range(24)}
    join([study / "fine", study / "coarse"], tmp_path / "out", by="case", cases=cases)
    bag = read_bag(tmp_path / "out" / "c03.h5")
    shared = replace(
        bag, features=bag.features + 1, source_sha256="new", merged_sources=("file s08",)
    )
    write_bag(tmp_path / "out" / "c03.h5", shared)
    table = tmp_path / "cases.csv"
    table.write_text(
        "case,slide,label\n"
        + "\n".join(f"{c},{c},{'AB'[i % 2]}" for i, c in enumerate(cases.values()))
    )
    with pytest.raises(CohortError, match=r"'c03'.*'c08'.*are the same"):
        load_cohort(table, tmp_path / "out")
