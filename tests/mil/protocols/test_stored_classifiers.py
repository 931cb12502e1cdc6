"""A classifier that a rerun has kept is taken for the same request only."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from features.bags.bag import read_bag, write_bag
from mil.data.case import Row
from mil.errors import FitError, LeakageError
from mil.finetune.distributed import Ranks
from mil.protocols.protocol import load_protocol, with_changes
from mil.protocols.rerun import Rerun
from tests.mil.made import made_bag

ROWS = [Row(line=i, case=f"c{i}", slide=f"s{i}", label="ab"[i % 2]) for i in range(8)]
CHANGES = ("arms=ResNet50V2", "split.folds=2", "fit.epochs=2", "fit.seeds=1", "fit.width=4")


@pytest.fixture
def rerun(tmp_path):
    """A frozen arm whose bags are there already."""
    store = tmp_path / "out" / "arms" / "ResNet50V2" / "store"
    rng = np.random.default_rng(0)
    for row in ROWS:
        features = rng.normal(size=(4, 5)).astype(np.float32)
        write_bag(store / f"{row.slide}.h5", made_bag(row.slide, features))
    return with_settings(tmp_path / "out")


def with_settings(out, *more):
    return Rerun(
        protocol=with_changes(load_protocol("usta-phase1"), [*CHANGES, *more]),
        rows=ROWS,
        jobs=[],
        out=out,
        ranks=Ranks(0, 1, torch.device("cpu"), workers=1),
        progress=None,
    )


def tiles_of(rerun):
    [arm] = rerun.protocol.arms
    return [tiles for split in rerun.splits(arm) for tiles in rerun._predict_tiles(arm, split)]


def test_a_stored_classifier_predicts_the_same(rerun):
    first, again = tiles_of(rerun), tiles_of(rerun)
    assert len(list((rerun.out / "arms").rglob("classifier-*.safetensors"))) == 2
    assert all(np.array_equal(a.p, b.p) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("change", "error"),
    [("split.seed=7", LeakageError), ("fit.epochs=1", FitError), ("fit.width=5", FitError)],
)
def test_a_classifier_of_another_request_is_refused(rerun, change, error):
    tiles_of(rerun)
    with pytest.raises(
        error, match=r"was trained on .* which would be tested|the stored fit .* is another one"
    ):
        tiles_of(with_settings(rerun.out, change))


def test_a_classifier_of_fewer_training_cases_is_refused(rerun):
    tiles_of(rerun)
    [arm] = rerun.protocol.arms
    split = rerun.splits(arm)[0]
    wider = replace(split, train=(*split.train, split.test[0]), test=split.test[1:])
    with pytest.raises(FitError, match="its training cases differ"):
        rerun._frozen_classifier(arm, wider)


def test_every_repeat_has_classifiers_of_its_own(rerun):
    repeated = with_settings(rerun.out, "split.repeats=2")
    tiles = tiles_of(repeated)
    names = sorted(path.name for path in (rerun.out / "arms").rglob("classifier-*.safetensors"))
    assert names == [f"classifier-r{r}-f{f}.safetensors" for r in (0, 1) for f in (0, 1)]
    assert {(t.split.repeat, t.case) for t in tiles} == {
        (r, row.case) for r in (0, 1) for row in ROWS
    }
    bag = read_bag(next((rerun.out / "arms").rglob("s0.h5")))
    of_case = [t.p for t in tiles if t.case == "c0"]
    assert len(of_case) == 2
    assert len(of_case[0]) == len(bag)
    assert not np.array_equal(of_case[0], of_case[1])


def test_rows_kept_for_testing_are_in_no_arm_that_makes_its_own_folds(rerun):
    """They have no bag, and one of them a class of its own."""
    kept = [
        Row(line=20 + i, case=f"kept {i}", slide=f"k{i}", label="abz"[i], split="Test")
        for i in range(3)
    ]
    wider = replace(rerun, rows=[*ROWS, *kept])
    tiles = tiles_of(wider)
    assert {t.case for t in tiles} == {row.case for row in ROWS}
    [arm] = wider.protocol.arms
    assert wider.classes(arm) == ("a", "b")
    on_tiles = replace(arm, test="tiles")
    assert set(wider.splits(on_tiles)[0].train) == {row.case for row in ROWS}
    assert wider.rows_of(replace(arm, test="external")) == tuple(wider.rows)


def test_bags_of_a_frozen_arm_are_made_once_for_all_splits(rerun, monkeypatch):
    filled = []
    monkeypatch.setattr(Rerun, "_embed", lambda *call: filled.append(call))
    monkeypatch.setattr(Rerun, "_embedding_seconds", lambda *_: 0.0)
    assert len(list(with_settings(rerun.out, "split.repeats=3").results())) == 1
    assert len(list((rerun.out / "arms").rglob("classifier-*.safetensors"))) == 6
    assert len(filled) == 1
