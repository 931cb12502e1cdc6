"""`mil crossval --combine`: two further models in the table, for classes and for survival."""

import json

import pytest

from cli.learn import CrossvalOptions, crossval
from cli.options import UsageError
from cli.report import ReportOptions, run_report
from features.bags.bag import write_bag
from tests.mil.learning.test_combined import two_classes


@pytest.fixture
def study(tmp_path):
    lines = ["case,slide,label,age,arm,time,event"]
    for i, case in enumerate(two_classes(24).cases):
        write_bag(tmp_path / "store" / f"{case.bags[0].slide}.h5", case.bags[0])
        facts = [
            case.name,
            case.bags[0].slide,
            case.label,
            *case.other.values(),
            100 - 3 * i,
            i % 2,
        ]
        lines.append(",".join(map(str, facts)))
    (tmp_path / "cohort.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def asked(study, **given):
    told = {
        "cohort": study / "cohort.csv", "store": study / "store", "out": study / "run", "folds": "3",
        "models": ("majority",), "combine": "pooled-logistic", "clinical": ("age", "arm"),
    }  # fmt: skip
    return CrossvalOptions(**(told | given))


@pytest.mark.parametrize("task", ["diagnosis", "survival"])
def test_combined_models_stand_in_the_table(study, task, capsys):
    crossval(asked(study, task=task))
    found = json.loads((study / "run" / "metrics.json").read_text())["models"]
    names = ["majority", "clinical-selected", "pooled-logistic+clinical"]
    assert [each["model"] for each in found] == names
    assert "The clinical model reads age, arm" in "".join(capsys.readouterr())
    if task == "diagnosis":
        run_report(ReportOptions(run=study / "run"))
        assert "pooled-logistic+clinical" in (study / "run" / "report.html").read_text()


@pytest.mark.parametrize("task", ["diagnosis", "survival"])
def test_unknown_model_is_refused_before_the_run(study, task):
    with pytest.raises(UsageError, match=r"No model 'abmli'\. Did you mean 'abmil'"):
        crossval(asked(study, task=task, combine="abmli"))
    assert not (study / "run").exists()
