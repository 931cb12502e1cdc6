"""Published tables that are known to be wrong are found; tables made from counts never are."""

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from mil.audit.consistency import check_published, check_row
from mil.audit.published import read_published
from mil.errors import RunError

PUBLISHED = Path(__file__).parent / "published"


def findings(name):
    return check_published(read_published(PUBLISHED / name).rows)


def impossible(checked):
    return [(finding.name, finding.rule) for finding in checked if finding.impossible]


def row(tmp_path, header, line):
    path = tmp_path / "table.csv"
    path.write_text(f"{header}\n{line}\n", encoding="utf-8")
    [published] = read_published(path).rows
    return published


def rules(tmp_path, header, line):
    return [
        finding.rule for finding in check_row(row(tmp_path, header, line)) if finding.impossible
    ]


def test_all_ten_accuracies_of_the_metastasis_study_exceed_what_they_average():
    checked = findings("metastasis.csv")
    assert [finding.rule for finding in checked] == ["accuracy lies between"] * 10
    assert all(finding.impossible for finding in checked)
    assert "accuracy .90 is above both sensitivity .85 and specificity .84" in checked[8].text


def test_only_the_misprints_of_the_lipoma_study_are_impossible():
    checked = findings("lipoma.csv")
    assert impossible(checked) == [
        ("LDH, train", "whole cases"),
        ("sexes, both cohorts", "sum of parts"),
    ]
    texts = [finding.text for finding in checked if finding.impossible]
    assert texts[0] == "specificity 44.09 %, but 49 of 51 cases are 96.08%."
    assert texts[1] == "n_pos 60 and n_neg 62 make 122, not the 127 of n."


def test_the_intervals_of_the_lipoma_study_are_wilsons_with_continuity_correction():
    texts = [finding.text for finding in findings("lipoma.csv") if finding.rule == "interval"]
    of_shares = [text for text in texts if "auc" not in text]
    assert len(of_shares) == 12
    assert all(text.endswith("is Wilson with continuity correction.") for text in of_shares)
    assert sum("Wald" in text for text in texts) == 5


def test_the_grading_study_is_possible_and_below_what_needs_no_model():
    checked = findings("grading.csv")
    assert impossible(checked) == [("as in the text", "whole cases")]
    counted = Counter(finding.name for finding in checked if finding.rule == "what needs no model")
    assert counted == dict.fromkeys(("Clinical", "Volume", "Combined", "T1FSGd", "T2FS"), 2)


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_no_table_made_from_counts_is_called_impossible(tmp_path, digits):
    rng = np.random.default_rng(digits)
    lines = []
    for _ in range(150):
        tp, fn, fp, tn = (
            int(x) for x in rng.integers(0, 12, 4) + np.eye(4, dtype=int)[rng.integers(4)]
        )
        truth = [1] * (tp + fn) + [0] * (fp + tn)
        called = [1] * tp + [0] * fn + [1] * fp + [0] * tn
        rates = [
            accuracy_score(truth, called),
            recall_score(truth, called, zero_division=0) if tp + fn else None,
            recall_score(truth, called, pos_label=0, zero_division=0) if fp + tn else None,
            precision_score(truth, called) if tp + fp else None,
            f1_score(truth, called) if tp and tp + fp else None,
        ]
        printed = ["" if rate is None else f"{rate:.{digits}f}" for rate in rates]
        counts = [len(truth), sum(truth)] if rng.random() < 0.5 else [len(truth), ""]
        lines.append(",".join(map(str, printed + counts)))
    path = tmp_path / "table.csv"
    path.write_text("acc,sens,spec,ppv,f1,n,n_pos\n" + "\n".join(lines), encoding="utf-8")
    assert impossible(check_published(read_published(path).rows)) == []


def test_no_mean_over_classes_or_over_folds_is_called_impossible(tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(60):
        truth = np.arange(24) % 4
        called = np.where(rng.random(24) < rng.random(), truth, rng.integers(0, 4, 24))
        p, r, f = (
            measure(truth, called, average="macro", zero_division=0)
            for measure in (precision_score, recall_score, f1_score)
        )
        lines.append(f"{accuracy_score(truth, called):.3f},{p:.3f},{r:.3f},{f:.3f},24,4")
        # Five folds with as many positives each; every number is the mean over them.
        folds = [
            (sides, np.where(rng.random(10) < 0.7, sides, 1 - sides))
            for sides in [np.arange(10) % 2] * 5
        ]
        a, p, r, f = (
            np.mean([measure(*fold, **options) for fold in folds])
            for measure, options in (
                (accuracy_score, {}),
                (precision_score, {"zero_division": 0}),
                (recall_score, {}),
                (f1_score, {}),
            )
        )
        lines.append(f"{a:.3f}±.02,{p:.3f}±.1,{r:.3f}±.1,{f:.3f}±.1,50,2")
    path = tmp_path / "table.csv"
    path.write_text("acc,precision,recall,f1,n,classes\n" + "\n".join(lines), encoding="utf-8")
    assert impossible(check_published(read_published(path).rows)) == []


@pytest.mark.parametrize(
    ("header", "line", "rule"),
    [
        ("acc,n", ".83,10", "whole cases"),
        ("sens,n,n_neg", ".55,30,10", ""),
        ("sens,n,n_neg", ".57,30,10", "whole cases"),
        ("precision,recall,f1", ".80,.60,.70", "f1 from precision and sensitivity"),
        ("precision,recall,f1", ".80,.60,.69", ""),
        ("precision,recall,f1", ".80±.1,.60±.1,.65±.1", ""),
        ("precision,recall,f1", ".80±.1,.60±.1,.71±.1", "f1 from precision and sensitivity"),
        ("acc,sens,spec", "70,75,80", "accuracy lies between"),
        ("acc,sens,spec,ppv", ".80,.90,.70,.90", "one share of positives"),
        ("acc,sens,spec,ppv,npv", ".80,.90,.70,.75,.875", ""),
        ("sens,spec,ppv,n,n_pos", ".90,.70,.75,20,10", ""),
        ("sens,spec,ppv,n,n_pos", ".90,.70,.50,20,10", "one share of positives"),
        ("bacc,sens,spec", ".85,.90,.70", "balanced accuracy"),
        ("bacc,sens,spec", ".80,.90,.70", ""),
        ("acc,n,n_pos,n_neg", ".80,20,8,13", "sum of parts"),
        ("acc,n,n_pos", ".80,20,21", "sum of parts"),
        ("acc", "-.2", "range"),
        ("acc,acc_low,acc_high", ".80,.82,.95", "range"),
        # Each share is one of 10 or 20 cases, yet no table has all three.
        ("acc,f1,n", ".95,.67,20", ""),
        ("acc,f1,n", ".95,.30,20", "one table"),
        ("acc,sens,f1,n", ".950,.900,.500,20", "one table"),
    ],
)
def test_rules_apply_only_to_their_own_errors(tmp_path, header, line, rule):
    assert rules(tmp_path, header, line) == ([rule] if rule else [])


def test_the_search_for_a_table_agrees_with_four_loops(tmp_path):
    """Any (accuracy, sensitivity, F1) at n = 7 with two digits, against all tables there are."""

    def ratio(part, whole):
        return {part / whole} if whole else {0, 1}

    possible_rates = {
        rates
        for tp, fn, fp, tn in product(range(8), repeat=4)
        if tp + fn + fp + tn == 7
        for rates in product(ratio(tp + tn, 7), ratio(tp, tp + fn), ratio(2 * tp, 2 * tp + fp + fn))
    }
    columns = [sorted({f"{rates[i]:.2f}" for rates in possible_rates}) for i in range(3)]
    combinations = list(product(*columns))[::17]
    path = tmp_path / "table.csv"
    path.write_text("acc,sens,f1,n\n" + "\n".join(",".join(rates) + ",7" for rates in combinations))
    refused = {
        rates.line - 2 for rates in check_published(read_published(path).rows) if rates.impossible
    }
    possible = {
        i
        for i, texts in enumerate(combinations)
        if any(
            all(abs(float(t) - x) < 0.00501 for t, x in zip(texts, m, strict=True))
            for m in possible_rates
        )
    }
    assert possible
    assert refused == set(range(len(combinations))) - possible


@pytest.mark.parametrize(
    ("cell", "low", "high", "limits", "averaged"),
    [
        (".83", 0.825, 0.835, None, False),
        ("83 %", 0.825, 0.835, None, False),
        ("0.830", 0.8295, 0.8305, None, False),
        ("0.83 ± 0.02", 0.825, 0.835, None, True),
        ("0.83 (0.71-0.92)", 0.825, 0.835, (0.71, 0.92), False),
        ("0.83 [95% CI 0.71 to 0.92]", None, None, None, False),
        ("83.0 (71.0, 92.0)", 0.8295, 0.8305, (0.71, 0.92), False),
        ("1.00", 0.995, 1.0, None, False),
    ],
)
def test_a_cell_is_read_with_the_room_its_digits_leave(tmp_path, cell, low, high, limits, averaged):
    if low is None:
        with pytest.raises(RunError, match=r"line 2: accuracy is .*Write \.83"):
            row(tmp_path, "accuracy;n", f"{cell};")
        return
    printed = row(tmp_path, "accuracy;n", f"{cell};").rates["accuracy"]
    assert (printed.low, printed.high) == pytest.approx((low, high))
    assert (printed.limits and tuple(limit.value for limit in printed.limits)) == pytest.approx(
        limits
    )
    assert printed.averaged == averaged


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a header and a row"),
        ("model,colour\na,b\n", "no column of results; it has model, colour"),
        ("recall,sensitivity\n.8,.8\n", "both mean sensitivity"),
        ("accuracy\nhigh\n", "line 2: accuracy is 'high'"),
        ("accuracy,n\n.8,ten\n", "line 2: n is 'ten'"),
        ("accuracy,n\n.8,-3\n", "a count is below 0"),
        ("accuracy,n\n.8,0\n", "the row has no cases"),
        ("accuracy,tp,fn,fp,tn\n.8,0,0,0,0\n", "the row has no cases"),
        ("accuracy,n\n.8\n", "line 2: 1 fields under 2 columns"),
    ],
)
def test_what_is_no_table_of_results_is_refused(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(RunError, match=message):
        read_published(tmp_path / "table.csv")
    with pytest.raises(RunError, match="there is no such table"):
        read_published(tmp_path / "absent.csv")


def test_columns_that_no_rule_reads_are_named(tmp_path):
    (tmp_path / "table.csv").write_text("model,accuracy,kappa\na,.8,.6\n")
    assert read_published(tmp_path / "table.csv").unread == ("kappa",)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("typo,1.3,0.75,0.85", [("typo", "range")]),
        ("typo,0.8,0.75,1.03", [("typo", "range")]),
        ("signed,80 %,75 %,85 %", []),
    ],
)
def test_another_row_does_not_turn_shares_into_per_cents(tmp_path, other, expected):
    (tmp_path / "table.csv").write_text(
        f"model,accuracy,sensitivity,specificity,n,n_pos\nok,0.80,0.75,0.85,40,20\n{other},40,20\n"
    )
    checked = check_published(read_published(tmp_path / "table.csv").rows)
    assert [finding for finding in impossible(checked) if finding[1] == "range"] == expected
    assert not [
        finding for finding in checked if finding.name in ("ok", "signed") and finding.impossible
    ]


def test_shares_and_per_cents_without_a_sign_are_refused(tmp_path):
    (tmp_path / "table.csv").write_text("model,accuracy\na,.8\nb,85\n")
    with pytest.raises(RunError, match=r"'accuracy' holds 85 and 0\.8, and no sign says which"):
        read_published(tmp_path / "table.csv")


def test_limits_in_columns_of_their_own_may_carry_the_sign(tmp_path):
    printed = row(tmp_path, "accuracy,accuracy_low,accuracy_high", "80 %,75 %,0.85").rates[
        "accuracy"
    ]
    assert printed.limits
    assert [limit.value for limit in printed.limits] == pytest.approx([0.75, 0.85])
