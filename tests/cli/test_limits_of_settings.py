"""Numbers that no fit can carry are refused by name, not by what breaks on them."""

import pytest

from cli.learn import CrossvalOptions, TrainOptions
from cli.options import UsageError
from mil.errors import CohortError, FitError
from mil.settings import SEEDS, FitSettings, SplitSettings
from mil.tasks.names import TASKS
from mil.tasks.registry import task_class


@pytest.mark.parametrize("folds", ["²", "①", "-2", "2.0", ""])
def test_folds_that_are_no_number_are_refused(folds):
    with pytest.raises(CohortError, match="folds must be at least 2"):
        SplitSettings(folds=folds)


@pytest.mark.parametrize("seed", [-1, SEEDS, 99999999999999999999999])
def test_a_seed_that_no_generator_takes_is_refused(tmp_path, seed):
    with pytest.raises(CohortError, match="seed is from 0 to 4294967295"):
        SplitSettings(seed=seed)
    with pytest.raises(FitError, match="seed is from 0 to 4294967295"):
        TrainOptions(cohort=tmp_path, store=tmp_path, out=tmp_path, seed=seed)
    assert SplitSettings(seed=SEEDS - 1).seed == SEEDS - 1


def test_a_width_that_no_memory_holds_is_refused():
    with pytest.raises(FitError, match="width must be at most 65536"):
        FitSettings(width=100_000_000_000)


@pytest.mark.parametrize("models", [("",), ("mean", "")])
def test_an_empty_name_of_a_model_is_refused(tmp_path, models):
    with pytest.raises(UsageError, match="models has an empty name"):
        CrossvalOptions(cohort=tmp_path, store=tmp_path, out=tmp_path, models=models)


def test_no_name_of_a_model_leaves_the_choice_to_the_task(tmp_path):
    assert CrossvalOptions(cohort=tmp_path, store=tmp_path, out=tmp_path).models == ()
    assert all(task_class(name).default_models for name in TASKS)
