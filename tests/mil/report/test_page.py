import re
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from mil.evaluation.comparison import PairTest
from mil.heads.table import MODELS
from mil.report.diagnosis_sections import DiagnosisSections, describe_test
from mil.report.formats import DASH
from mil.report.page import render, write_report
from mil.report.sections import model_order
from tests.mil.report.parsed import NASTY, Page, check_page, check_text_only, plain_for

SHAPES = {
    "four classes": {},
    "two classes": {"classes": ("benign", "malignant")},
    "three repeats": {"repeats": 3},
    "two classes, three repeats": {"classes": ("benign", "malignant"), "repeats": 3},
    "no heatmap": {"heatmaps": False},
    "one model": {"models": ("abmil",)},
    "class without case": {"absent": "UPS"},
    "nothing recorded": {"recipe": {}, "settings": {}, "versions": {}, "excluded": ()},
    "more cases than are shown at once": {"n": 60},
}
TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def report(request, make):
    return make(**request.param)


def test_the_page_is_whole_and_stands_by_itself(report):
    check_page(render(report))


def test_every_case_and_every_slide_is_shown_once_among_the_cases(report):
    source = render(report)
    cases = source[source.index('<section id="cases">') : source.index('<section id="cohort">')]
    names = re.findall(r"<h3>(.*?)</h3>", cases)
    assert sorted(names) == sorted(report.facts.cohort["case"])
    for slide in report.predictions.table["slide"].unique():
        drawn = f"<figcaption><b>{slide}</b>abmil on {slide}</figcaption>" in cases
        assert drawn == (slide in report.facts.heatmaps)
        assert drawn or slide in cases


def test_the_table_prints_what_was_evaluated(report):
    text = Page(render(report)).text()
    evaluation = report.evaluation
    repeats = len(evaluation.repeats)
    for result in evaluation.models:
        k = f"{result.correct:.0f}" if repeats == 1 else f"{result.correct:.1f}"
        row = [f"{result.model} {k}/{result.n}"]
        row.append(
            f"{result.model}: {_range(result.metrics['accuracy'])}"
        )  # read out for the forest plot
        row.append(_printed(result.metrics["accuracy"]))
        if repeats > 1:
            values = result.per_repeat["accuracy"]
            row.append(f"{100 * min(values):.0f} to {100 * max(values):.0f} %")
        row.append(_printed(result.metrics["balanced_accuracy"]))
        if result.metrics["auc"].value is None:
            row.append(f"{DASH} {result.metrics['auc'].note}")
        else:
            auc = result.metrics["auc"]
            row.append(f"{auc.value:.2f} {auc.low:.2f} to {auc.high:.2f}")
        at = text.index(row[0])
        for part in row:
            assert part in text[at:]
            at = text.index(part, at)
    share = f"{100 * evaluation.majority_share:.0f} %"
    assert f"always the most frequent class {DASH} always the most frequent class: {share}" in text
    assert f"each class equally often: {100 * evaluation.chance_accuracy:.0f} %" in text


def _printed(estimate):
    note = f" {estimate.note}" if estimate.note else ""
    limits = f"{100 * estimate.low:.0f} to {100 * estimate.high:.0f} %"
    return f"{100 * estimate.value:.0f} % {limits}{note}"


def _range(estimate):
    limits = f"{100 * estimate.low:.0f} to {100 * estimate.high:.0f} %"
    return f"{100 * estimate.value:.0f} %, 95 % interval {limits}"


def headline(report, evaluation=None):
    """The headline of a report, or of one with another evaluation."""
    return DiagnosisSections(replace(report, evaluation=evaluation or report.evaluation)).headline()


def best(report):
    return DiagnosisSections(report).lead


def test_the_headline_is_the_best_model_and_says_that_it_was_picked(make):
    report = make()
    evaluation = report.evaluation
    lead = max(evaluation.models, key=lambda result: result.metrics["accuracy"].value)
    first, second, *_ = (text.replace("\N{NO-BREAK SPACE}", " ") for text in headline(report))
    assert first.startswith(
        f"Of 20 cases, {lead.model} named the right class in {lead.correct:.0f} ("
    )
    assert f"({_range(lead.metrics['accuracy'])}); guessing gives 25 %" in first
    assert "best of 3 models" in second
    assert "optimistic" in second
    assert not any("best of" in text for text in headline(make(models=("abmil",))))


def test_the_headline_of_repeats_is_a_mean(make):
    report = make(repeats=3)
    first = headline(report)[0]
    assert f"in {best(report).correct:.1f} on average over 3 repeats" in first


def test_models_as_good_as_the_best_are_named(make):
    report = make(models=("abmil", "twin"))
    table = report.predictions.table
    same = table[table["model"] == "abmil"]
    both = pd.concat([same, same.assign(model="twin")])
    evaluation = _evaluate(both, report.predictions.classes)
    assert "level with twin" in headline(report, evaluation)[1]


def test_an_interval_down_to_chance_is_said_to_show_nothing(make):
    report = make()
    table = report.predictions.table.copy()
    table[report.predictions.answer_columns] = 0.25
    flat = _evaluate(table, report.predictions.classes)
    assert any("do not show" in text for text in headline(report, flat))
    table[report.predictions.answer_columns] = pd.get_dummies(table["label"])[
        list(report.predictions.classes)
    ].to_numpy(dtype=float)
    perfect = _evaluate(table, report.predictions.classes)
    assert not any("do not show" in text for text in headline(report, perfect))


def _evaluate(table, classes):
    from mil.evaluation.classification.evaluate import evaluate
    from mil.evaluation.classification.predictions import ClassPredictions

    return evaluate(ClassPredictions(table.reset_index(drop=True), classes))


@pytest.mark.parametrize(
    ("test", "text"),
    [
        (PairTest("a", "b", 20, 9, 0, 0.004, 0.012), "a alone is right on 9, b alone on 0 of 20"),
        (PairTest("a", "b", 20, 9, 0, 0.004, 0.012), "This is more than chance explains."),
        (PairTest("a", "b", 20, 7, 0, 0.016, 0.094), "Chance could explain this."),
        (PairTest("a", "b", 20, 0, 0, 1.0, 1.0), "right and wrong on the same cases"),
    ],
)
def test_a_paired_test_is_described_in_words(test, text):
    assert text in describe_test(test)


def test_cases_stand_hardest_first_with_the_class_each_model_named(make):
    report = make()
    lead = best(report).model
    scores = report.predictions.case_scores(lead, 0)
    p_true = scores.p[range(len(scores.case)), scores.truth]
    hardest = [scores.case[row] for row in p_true.argsort(kind="stable")]
    source = render(report)
    shown = re.findall(r"<h3>(case-\d\d)</h3>", source)
    assert shown == hardest
    wrong = sum(round(result.n - result.correct) for result in report.evaluation.models)
    assert source.count("✗ wrong") == wrong
    assert source.count("✓ right") == 20 * len(report.evaluation.models) - wrong


def test_a_class_named_in_some_repeats_says_in_how_many(make):
    report = make(repeats=3)
    marks = re.findall(rf"(✓ right|✗ wrong) (\d){TIMES}", Page(render(report)).text())
    right = sum(int(count) for mark, count in marks if mark.startswith("✓"))
    assert right == round(sum(3 * result.correct for result in report.evaluation.models))
    assert sum(int(count) for _, count in marks) == 3 * 20 * len(report.evaluation.models)


def test_an_undefined_auc_is_a_dash_with_its_reason(make):
    page = Page(render(make(absent="UPS")))
    assert (
        page.text().count(f"{DASH} undefined: no case of UPS") == 3 * 3
    )  # AUC twice, and precision
    assert "None" not in page.text()
    assert "nan" not in page.text()


def test_of_two_classes_the_average_precision_names_its_own(make):
    assert "average precision of SS" in Page(render(make(classes=("LMS", "SS")))).text()
    assert "average precision of" not in Page(render(make())).text()


def test_of_one_class_what_tells_classes_apart_is_a_dash(make):
    text = Page(render(make(classes=("LMS", "SS"), absent="SS", n=10, models=("abmil",)))).text()
    assert text.count(f"{DASH} undefined: cases of one class only") == 3  # macro F1, MCC, kappa
    assert "None" not in text


def test_each_fold_names_the_cases_it_tests(make):
    report = make(repeats=2)
    source = render(report)
    for _, rows in report.facts.folds.groupby(["repeat", "fold"]):
        assert f">{', '.join(sorted(rows['case']))}</td>" in source


@pytest.mark.parametrize(
    "warnings", [("The weights are random.",), ("Random weights.", "One site.")]
)
def test_warnings_stand_before_the_results(make, warnings):
    text = Page(render(make(warnings=warnings))).text()
    results = text.index("Which model is right")
    assert all(text.index(warning) < results for warning in warnings)
    assert "Read this first" in text
    assert "Read this first" not in Page(render(make())).text()


@pytest.mark.parametrize("nasty", NASTY)
def test_names_are_text_and_nothing_else(make, nasty):
    check_text_only(
        nasty, render(_named(make, nasty)), plain_for(nasty), render(_named(make, plain_for(nasty)))
    )


def _named(make, nasty):
    """A report in which every text from data carries the name."""
    report = make(
        classes=(nasty, f"{nasty}2", f"{nasty}3"),
        models=(nasty, f"{nasty}2"),
        stem=nasty,
        title=nasty,
        created=nasty,
        warnings=(nasty,),
        excluded=((nasty, nasty),),
        recipe={nasty: {nasty: nasty}, "list": [nasty, {nasty: nasty}]},
        settings={nasty: nasty},
        versions={nasty: nasty},
    )
    report.facts.cohort[nasty] = nasty
    return report


def test_nested_settings_are_flat_and_empty_ones_said_to_be(make):
    text = Page(render(make(settings={"a": {"b": {"c": 1e-4}}, "d": [], "e": [1, True]}))).text()
    assert "a.b.c 0.0001" in text
    assert "d none" in text
    assert "e 1, true" in text


def test_colours_of_text_reach_a_contrast_of_four_and_a_half(make):
    source = render(make())
    for block in re.findall(r":root \{(.*?)\}", source, flags=re.S)[:2]:
        colour = dict(re.findall(r"--([\w-]+): (#\w+)", block))
        for ink in ("ink", "quiet", "accent", "alert"):
            assert _contrast(colour[ink], colour["paper"]) >= 4.5
        assert _contrast(colour["alert"], colour["alert-wash"]) >= 4.5


def _contrast(one, other):
    """Contrast ratio of two colours (WCAG 2.2)."""

    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_the_page_is_written_without_torch():
    modules = "mil.report.page, mil.report.diagnosis_sections, mil.report.survival_sections"
    code = f"import {modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_best_model_stands_first_and_the_others_are_folded(make):
    report = make(models=("abmil", "majority", "mean"))
    source, lead = render(report), best(report).model
    results = source[source.index('<section id="results">') : source.index('<section id="models">')]
    rows = re.findall(r'<th scope="row" class="name">([^<]*)</th>', results)
    assert rows[0] == lead
    assert rows[2] == "majority"  # after every model that sees the tiles
    models = source[
        source.index('<section id="models">') : source.index('<section id="decisions">')
    ]
    assert models.index(f"<h3>{lead}</h3>") < models.index("<summary>The other 2 models: ")
    assert models.count("<h3>") == 3
    cards = source[source.index('<section id="cases">') : source.index('<section id="cohort">')]
    assert '<th scope="col">majority</th>' not in cards
    assert "mean: averages all tiles" not in source[: source.index('<section id="results">')]
    assert f"<p>{lead}: averages " in source
    assert len(re.findall("sees no image: it always answers", source)) == 1


@pytest.mark.parametrize(
    ("right", "order"),
    [
        ({"abmil": 9, "majority": 11, "mean": 4, "tile-vote": 16, "max": 9}, [3, 0, 4, 2, 1]),
        ({"mean": 3, "chance": 7, "majority": 8, "abmil": 5}, [2, 3, 0, 1]),
    ],
)
def test_models_follow_by_the_measure_and_what_guesses_comes_last(make, right, order):
    evaluation = make().evaluation
    models = tuple(replace(evaluation.models[0], model=m, correct=k) for m, k in right.items())
    assert model_order(replace(evaluation, models=models)) == order


def test_every_model_of_the_table_has_its_words():
    assert all(20 < len(row.words) < 100 for row in MODELS.values())
    assert len({row.words for row in MODELS.values()}) == len(MODELS)


def test_each_class_has_its_sensitivity_with_its_interval_beside_the_matrix(make):
    report = make()
    lead = best(report)
    source = render(report)
    start = source.index(f'aria-label="Confusion matrix of {lead.model}"')
    text = Page(source[start : source.index("</table>", start)]).text()
    for row in lead.per_class:
        assert _printed(row.sensitivity) in text


def test_no_outcome_column_explains_the_errors(make):
    report = make(outcome_columns=("months alive",))
    n = len(report.facts.cohort)
    for name in (
        "time",
        "event",
        "OS.time",
        "vital_status",
        "days_to_death",
        "months alive",
        "age",
    ):
        report.facts.cohort[name] = [7 * i % 5 + i % 2 for i in range(n)]
    source = render(report)
    errors = source[source.index('<section id="errors">') : source.index('<section id="limits">')]
    names = re.findall(r'<th scope="row" class="name">([^<]*)<small>', errors)
    assert "age" in names
    follow = {"time", "event", "OS.time", "vital_status", "days_to_death", "months alive"}
    assert not follow & set(names)
    table_one = source[source.index("<h3>Table 1</h3>") : source.index('<section id="folds">')]
    described = re.findall(r'<th scope="row" class="name">([^<]*)<small>', table_one)
    assert "age" in described
    assert not follow & set(described)


def test_the_decision_curves_have_their_three_lines_and_round_ticks(make):
    source = render(make())
    part = source[source.index('<section id="decisions">') : source.index('<section id="errors">')]
    assert part.count("<figure>") == 4
    for figure in part.split("<figure>")[1:]:
        for line in ("benefit", "all", "none"):
            assert figure.count(f'class="{line}"') == 1
        ticks = re.findall(r'text-anchor="middle">(0?\.\d+|0)</text>', figure)
        assert ticks == ["0.1", "0.2", "0.3", "0.4", "0.5"]


def test_two_pages_of_one_run_are_equal_to_the_byte(make, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_report(make(n=12, models=("abmil", "mean")), tmp_path / name / "report.html")
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("first", "second")
    )
    assert len(first) > 6
    assert first == second


def test_the_page_begins_with_whether_the_best_model_beats_guessing_out_of_fold(make):
    report = make()
    table = report.predictions.table.copy()
    columns = report.predictions.answer_columns
    table[columns] = 0.25
    flat = replace(report, evaluation=_evaluate(table, report.predictions.classes))
    page = Page(render(flat)).text()
    verdict = f"These cases do not show that {best(flat).model} does better than guessing."
    assert page.index(verdict) < page.index("A typical case")
    assert f"{verdict[:-1]}, so a map need not show anything about the disease." in page
    named = pd.get_dummies(table["label"])[list(report.predictions.classes)]
    table[columns] = named.to_numpy(dtype=float)
    perfect = replace(report, evaluation=_evaluate(table, report.predictions.classes))
    page = Page(render(perfect)).text()
    assert f"On cases it had not seen, {best(perfect).model} does better than guessing." in page
    assert "It tells what this model uses, not what the disease is." in page
    assert "need not show anything" not in page


def test_the_typical_case_is_in_the_middle_by_difficulty_and_has_a_map(make):
    report = make(n=12)
    source = render(report)
    hard = re.findall(r"<h3>(case-\d+)</h3>", source[source.index('<section id="cases">') :])
    drawn = [case for case in hard if f"{case}/0" in report.facts.heatmaps]
    part = source[source.index('<section id="typical">') : source.index('<section id="results">')]
    assert f'<p class="quiet">{drawn[len(drawn) // 2]} (truth: ' in part
    assert part.count("<img") == 3  # the slide alone, and the slide under its map
    assert 'id="typical"' not in render(make(heatmaps=False))


def test_maps_over_the_slides_of_cards_are_off_until_they_are_chosen(make):
    source = render(make())
    assert re.search(r'id="blend-off" checked>', source)
    assert len(re.findall(r'name="blend"', source)) == 3
    assert re.search(r"\.layers \.map \{[^}]*opacity: 0;", source)
    assert source.count('<img class="map"') == 1 + len(make().facts.heatmaps)
    facts = make().facts
    whole = {slide: replace(heatmap, map_png=b"") for slide, heatmap in facts.heatmaps.items()}
    without = render(replace(make(), facts=replace(facts, heatmaps=whole)))
    assert 'name="blend"' not in without  # nothing to choose where the map is the picture


@pytest.mark.parametrize(
    ("classes", "heads"),
    [
        (("DDLPS", "LMS"), ["DDLPS", "LMS"]),
        (("dedifferentiated liposarcoma", "LMS"), ["1", "2"]),
    ],
)
def test_columns_of_the_confusion_matrix_are_numbered_where_names_are_long(make, classes, heads):
    source = render(make(classes=classes, models=("abmil",)))
    matrix = source[source.index('<table class="matrix">') :]
    matrix = matrix[: matrix.index("</table>")]
    text = Page(matrix).text()
    assert text.startswith(" ".join(["truth", *heads, "correct"]))
    for number, name in enumerate(classes, 1):
        row = f"{number} {name}" if heads[0] == "1" else name
        assert f'<th scope="row">{row}</th>' in matrix


def test_the_table_of_all_cases_leaves_out_what_no_model_may_read(make):
    report = make(telling=("lfd nr", "time"))
    n = len(report.facts.cohort)
    for name in ("lfd nr", "age", "time", "time in the table"):
        report.facts.cohort[name] = list(range(40, 40 + n))
    source = render(report)
    table = source[
        source.index(f"<summary>All {n} cases</summary>") : source.index('<section id="folds">')
    ]
    columns = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', table)
    assert {"age", "time"} <= set(columns)  # the page's own time is that of the outcome
    assert not {"lfd nr", "time in the table"} & set(columns)
    assert "Not shown, as no model may read them: lfd nr, time." in table


def test_a_column_that_is_known_at_diagnosis_explains_whatever_it_is_called(make):
    for known, shown in (((), False), (("relapse_score",), True)):
        facts = make(known_at_diagnosis=known).facts
        facts.cohort["relapse_score"] = list(range(len(facts.cohort)))
        assert ("relapse_score" in facts.explaining) == shown
