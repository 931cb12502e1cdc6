"""How the figures of studies on CT and MRI are made of predictions."""

import numpy as np
import pytest

from features.progress import Silent
from features.volumes.listing import list_series, write_list
from features.volumes.recipe import VolumeRecipe
from mil.audit.consistency import check_published
from mil.audit.published import read_published
from mil.data.volumes import read_volume_table
from mil.evaluation.classification.predictions import PREFIX
from mil.evaluation.comparison import compare
from mil.protocols.arm import Arm
from mil.protocols.best import describe_best, rank_p
from mil.protocols.films import Films
from mil.protocols.measures import (
    Split,
    TilePredictions,
    combine_networks,
    join_predictions,
    over_repeats,
    summarise_arm,
)
from mil.protocols.protocol import load_protocol, protocol_names
from tests.features.volumes.patients import cohort

CLASSES = ("high", "low")
STUDIES = ("navarro-grading", "piffer-metastasis", "yang-lipoma")


def test_what_was_assumed_of_volumes_is_said_once_for_all_arms(tmp_path):
    cohort(tmp_path / "in", 2)
    write_list(tmp_path / "t.csv", list_series(tmp_path / "in"))
    notes = []
    films = Films(
        table=read_volume_table(tmp_path / "t.csv"), folder=tmp_path / "films", progress=Silent(),
        notify=notes.append,
    )  # fmt: skip
    for channels in (("CT", "T1", "PET"), ("CT", "PET", "T1"), ("CT", "T1", "PET")):
        films.lay_out(VolumeRecipe(channels=channels, tile=32), {"p0", "p1"})
    assert len(notes) == len(set(notes)) > 0
    assert all(line.startswith("p0, p1: ") for line in notes)


def told(split, case, label, logits):
    return TilePredictions(split, case, f"{case}-s", label, np.asarray(logits, float), len(logits))


def networks(n=15, n_cases=6, seed=0):
    """What n networks say of every slice of each case: (network, case) -> (slices, 2) logits."""
    rng = np.random.default_rng(seed)
    slices = rng.integers(3, 9, n_cases)
    return [
        told(
            Split(k % 5, ("x",), ("t",), k // 5),
            f"c{i}",
            CLASSES[i % 2],
            rng.normal(0, 3, (slices[i], 2)),
        )
        for k in range(n)
        for i in range(n_cases)
    ]


def test_networks_are_read_together_by_the_mean_of_logits_over_networks_and_slices_then_softmax():
    predictions = networks()
    for combined in combine_networks(predictions):
        total, count = np.zeros(2), 0  # ten lines, slowly
        for one in predictions:
            if one.case == combined.case:
                for row in one.logits:
                    total += row
                    count += 1
        mean = total / count
        expected = np.exp(mean) / np.exp(mean).sum()
        assert np.allclose(combined.p, expected[None], atol=1e-12)
        assert combined.split.train == ()


def test_that_differs_from_the_mean_of_probabilities():
    """Two networks against one: the one that is sure decides."""
    split = Split(0, (), ("t",))
    predictions = [told(split, "c", "high", [row]) for row in ([9.0, 0.0], [0.0, 1.0], [0.0, 1.0])]
    [combined] = combine_networks(predictions)
    assert combined.p[0, 0] > 0.9
    assert np.mean([one.p[0, 0] for one in predictions]) < 0.55


def test_rates_of_slices_and_cases_are_those_of_the_counts():
    split = Split(0, ("x",), ("t",))
    sure, other = [3.0, 0.0], [0.0, 3.0]
    predictions = [
        told(split, "a", "high", [sure, sure, other]),
        told(split, "b", "high", [other, other, sure]),
        told(split, "c", "low", [other] * 4),
        told(split, "d", "low", [sure, sure, other]),
    ]
    arm = Arm(name="x", backbone="b", channels=("T1",), finetune=True)
    measures = summarise_arm(arm, predictions, CLASSES, 0.0, positive="high").measures
    tp, fn, fp, tn = 3, 3, 2, 5
    assert measures["accuracy"] == pytest.approx((tp + tn) / 13)
    assert measures["sensitivity"] == pytest.approx(tp / (tp + fn))
    assert measures["specificity"] == pytest.approx(tn / (tn + fp))
    assert measures["positive_precision"] == pytest.approx(tp / (tp + fp))
    assert measures["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert measures["case_sensitivity"] == 0.5
    assert measures["case_specificity"] == 0.5
    assert measures["case_f1"] == 0.5


def test_the_accuracy_lies_between_sensitivity_and_specificity_of_each_split():
    """Which the printed rows of one study do not."""
    arm = Arm(name="x", backbone="b", channels=("T1",), finetune=True)
    split = Split(0, ("x",), ("t",))
    for seed in range(20):
        rows = [told(split, o.case, o.label, o.logits) for o in networks(1, 8, seed)]
        m = summarise_arm(arm, rows, CLASSES, 0.0, positive="high").measures
        low, high = sorted((m["sensitivity"], m["specificity"]))
        assert low - 1e-9 <= m["accuracy"] <= high + 1e-9
    printed = [a.published for a in load_protocol("piffer-metastasis").arms]
    assert all(p["accuracy"] > max(p["sensitivity"], p["specificity"]) for p in printed)


def test_the_best_of_several_arms_is_called_chosen():
    results = []
    for i in range(4):
        rows = [told(Split(k % 2, ("x",), ("t",)), o.case, o.label, o.logits)
                for k, o in enumerate(networks(1, 12, i))]  # fmt: skip
        arm = Arm(name=f"set {i}", backbone="b", channels=("T1",), finetune=True, question="q")
        results.append(summarise_arm(arm, rows, CLASSES, 0.0, positive="high"))
    [sentence] = describe_best(results)
    best = max(results, key=lambda r: r.measures["case_auc"])
    assert sentence.startswith(f"{best.arm.name} is the best of 4 arms")
    assert "after Holm's correction for 4 arms" in sentence
    assert describe_best(results[:2]) == []
    p = [rank_p(r.predictions) for r in results]
    assert min(p) == rank_p(best.predictions)
    assert PREFIX + "high" in best.predictions.table


@pytest.mark.parametrize("name", STUDIES)
def test_every_setting_of_a_study_is_stated_or_chosen_and_its_arms_are_distinct(name):
    assert name in protocol_names()
    protocol = load_protocol(name)
    protocol.check()
    settings = {f"{s}.{key}" for s, values in protocol.settings.items() for key in values}
    reasons = {*protocol.from_source, *protocol.chosen_here}
    assert settings <= reasons
    assert len({arm.name for arm in protocol.arms}) == len(protocol.arms)
    assert all(arm.shows for arm in protocol.arms)


def test_the_ten_sets_are_all_triples_of_five():
    arms = load_protocol("piffer-metastasis").arms
    assert len({frozenset(arm.channels) for arm in arms}) == 10
    arms = load_protocol("yang-lipoma").arms
    assert len(arms) == 30


def repeated(seed, repeats=3, n_cases=11, slices=1):
    """Out-of-fold answers of every repeat; the folds of a repeat differ in their shares of a class."""
    rng = np.random.default_rng(seed)
    fold = np.random.default_rng(0).integers(3, size=(repeats, n_cases))
    return [
        told(
            Split(int(fold[repeat, i]), ("x",), ("t",), repeat),
            f"c{i}",
            CLASSES[i % 3 == 0],
            rng.normal(0, 2, (slices, 2)),
        )
        for repeat in range(repeats)
        for i in range(n_cases)
    ]


@pytest.mark.parametrize("over", ["cases", "slices"])
def test_the_figures_of_an_arm_pass_the_audit_of_published_tables(over, tmp_path):
    model, prefix = ("pooled-svm", "case_") if over == "cases" else ("", "")
    names = ["accuracy", "sensitivity", "specificity", "f1"]
    lines = [["model", *names, "n", "n pos"]]
    for seed in range(30):
        rows = repeated(seed, repeats=2 + seed % 4, slices=1 if over == "cases" else 1 + seed % 3)
        arm = Arm(name="x", backbone="b", channels=("T1",), model=model)
        m = summarise_arm(arm, rows, CLASSES, 0.0, positive="high").measures
        counted = (
            {r.case: [r.label] for r in rows}
            if over == "cases"
            else dict(enumerate([r.label] * len(r.logits) for r in rows))
        )
        labels = [label for several in counted.values() for label in several]
        figures = [m[prefix + name] for name in names]
        lines.append(
            [f"arm {seed}", *(f"{v:.2f}" for v in figures), len(labels), labels.count("high")]
        )
    path = tmp_path / "table.csv"
    path.write_text("\n".join(",".join(map(str, line)) for line in lines) + "\n")
    assert [one.text for one in check_published(read_published(path).rows) if one.impossible] == []


def test_cases_of_several_repeats_have_one_answer_in_figures_and_tests():
    rows = {name: repeated(seed, repeats=4, n_cases=16) for name, seed in (("a", 1), ("b", 2))}
    results = [
        summarise_arm(
            Arm(name=name, backbone="b", channels=("T1",), model="pooled-svm", question="q"),
            of_one, CLASSES, 0.0, positive="high",
        )
        for name, of_one in rows.items()
    ]  # fmt: skip
    right = {}
    for result in results:
        mean = {}
        for one in rows[result.arm.name]:
            mean.setdefault(one.case, []).append(one.p.mean(axis=0)[0])
        label = {one.case: one.label for one in rows[result.arm.name]}
        right[result.arm.name] = {
            case: (np.mean(p) > 0.5) == (label[case] == "high") for case, p in mean.items()
        }
        assert result.measures["case_accuracy"] == np.mean(list(right[result.arm.name].values()))
        assert result.measures["case_auc"] is not None
    [test] = compare(over_repeats(join_predictions(results)["q"]))
    only_first = sum(right["a"][case] and not right["b"][case] for case in right["a"])
    only_second = sum(right["b"][case] and not right["a"][case] for case in right["a"])
    assert (test.only_first, test.only_second) == (only_first, only_second)


def test_an_auc_that_shows_the_folds_alone_stays_undefined_over_repeats():
    folds = ("high", "high", "high", "low"), ("high", "low", "low", "low")
    rows = [
        told(Split(fold, ("x",), ("t",), repeat), f"c{fold}{i}", label, [[float(fold), 0.0]])
        for repeat in range(2) for fold, labels in enumerate(folds) for i, label in enumerate(labels)
    ]  # fmt: skip
    arm = Arm(name="x", backbone="b", channels=("T1",), model="pooled-svm")
    result = summarise_arm(arm, rows, CLASSES, 0.0, positive="high")
    assert result.measures["case_auc"] is None
    assert "case_auc" not in result.intervals
