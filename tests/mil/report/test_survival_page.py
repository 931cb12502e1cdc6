"""The page of a survival run: its numbers, its order, its names, whatever the table holds."""

import functools
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mil.data.outcomes import CENSORED, EVENT
from mil.evaluation.survival.calibration import RiskGroup
from mil.evaluation.survival.comparison import compare_survival_models
from mil.evaluation.survival.evaluate import CAVEAT, evaluate_survival
from mil.evaluation.survival.hazards import hazard_table
from mil.evaluation.survival.predictions import RiskPredictions, column_of
from mil.figures.risk_groups import risk_groups
from mil.report.facts import Facts, Heatmap
from mil.report.kaplan_meier import survival_plot
from mil.report.page import render
from mil.report.plots import survival_calibration_plot
from mil.report.risk_cards import risk_cards
from mil.report.sections import Report
from mil.report.survival_sections import SurvivalSections
from tests.mil.followed import drawn
from tests.mil.report.conftest import PNG
from tests.mil.report.parsed import NASTY, Page, check_page, check_text_only, plain_for

N, AT = 26, (100.0, 300.0, 600.0, 900.0)
SHAPES = {
    "three models": {},
    "three repeats": {"repeats": 3},
    "one model": {"models": ("told",)},
    "no columns beside": {"beside": False},
    "no heatmap": {"heatmaps": False},
    "more cases than are shown at once": {"n": 44},
    "times that tie": {"ties": True},
    "every event seen": {"complete": True},
    "one event": {"events": 1, "beside": False},
    "nobody told apart": {"models": ("flat",)},
}


@functools.cache
def judged(models, repeats, n, stem, unit, ties, complete, events):
    """Predictions and what is computed of them, which takes longest; no test changes any of it."""
    rng = np.random.default_rng(3)
    time, event, risk = drawn(rng, n, ties=ties)
    time = time * (200 if ties else 1)
    event = event | complete
    if events is not None:
        event = np.arange(n) == time.argmin()
    cases = [f"{stem}{i:02d}" for i in range(n)]
    rows = []
    for model in models:
        for repeat in range(repeats):
            said = {
                "flat": np.zeros(n),
                "told": risk + 0.3 * rng.normal(size=n),
            }.get(model.split("/")[0], rng.normal(size=n))
            for i, case in enumerate(cases):
                for slide in range(1 + (i % 5 == 0)):
                    where = {"model": model, "repeat": repeat, "fold": (i + repeat) % 4}
                    s = np.exp(-np.exp(said[i]) * np.array(AT) / 1000)
                    rows.append(
                        where | {"case": case, "slide": f"{case}/{slide}", "time": time[i]}
                        | {"event": int(event[i]), "risk": said[i]}
                        | dict(zip(map(column_of, AT), s, strict=True))
                    )  # fmt: skip
    predictions = RiskPredictions(pd.DataFrame(rows), unit=unit)
    columns = {"the risk": risk, "age": rng.normal(60, 9, n)}
    return {
        "predictions": predictions,
        "evaluation": evaluate_survival(predictions),
        "comparison": compare_survival_models(predictions),
    }, (cases, time, event, columns)


@functools.cache
def hazards(*request):
    """The Cox table of what was drawn."""
    _, (_, time, event, columns) = judged(*request)
    return hazard_table(columns, time, event)


def made(
    *, models=("flat", "noise", "told"), repeats=1, n=N, stem="case-", unit="days", beside=True,
    heatmaps=True, ties=False, complete=False, events=None, **changes,
):  # fmt: skip
    """`told` says the risk, `noise` says nothing, and `flat` says the same of every case."""
    request = (models, repeats, n, stem, unit, ties, complete, events)
    results, (cases, time, event, _) = judged(*request)
    label = np.where(event, EVENT, CENSORED)
    cohort = {"case": cases, "label": label, "time": time, "slides": 1, "tiles": 900 + np.arange(n)}
    folds = [(r, (i + r) % 4, cases[i], label[i]) for r in range(repeats) for i in range(n)]
    facts = {
        "title": "run-7",
        "created": "2025-03-01 12:00:00 UTC",
        "warnings": (),
        "in_table": (n + 1, n + 9),
        "cohort": pd.DataFrame(cohort),
        "excluded": (("case-90", "no outcome"),),
        "folds": pd.DataFrame(folds, columns=["repeat", "fold", "case", "label"]),
        "heatmaps": {
            f"{case}/0": Heatmap(slide_picture=PNG, map_png=PNG, caption=f"abmil on {case}/0")
            for case in cases
            if heatmaps
        },
        "heatmap_scale": (("#123456", "uniform"),),
        "recipe": {"tiles": {"side_px": 224}},
        "settings": {"folds": 4},
        "versions": {"sarcomil": "0.1.0"},
    }
    return Report(
        page="mil.report.survival_sections:SurvivalSections",
        facts=Facts(**(facts | changes)),
        **results,
        hazards={"told": hazards(*request)} if beside else {},
    )


def best(report):
    return SurvivalSections(report).lead


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def report(request):
    return made(**request.param)


def test_the_page_is_whole_and_stands_by_itself(report):
    source = render(report)
    check_page(source)
    text = Page(source).text()
    assert "None" not in text
    assert not re.search(r"\b(nan|inf)\b", source, re.IGNORECASE)


def row_of(source, section, name):
    """The texts of the first row of a section that is headed by a name."""
    part = source[source.index(section) :]
    part = part[part.index(f'<th scope="row" class="name">{name}</th>') :]
    return Page(part[: part.index("</tr>")]).text()


def test_the_tables_print_what_was_evaluated(report):
    source, evaluation = render(report), report.evaluation
    for result in evaluation.models:
        c, groups = result.metrics["harrell"], result.groups
        told = row_of(source, "<h2>Models compared", result.model)
        limits = "" if c.low is None else f" {c.low:.2f} to {c.high:.2f}"
        note = f" {c.note}" if c.note else ""
        spread = [x for x in result.per_repeat if x is not None]
        over = f" {min(spread):.2f} to {max(spread):.2f}" * (len(evaluation.repeats) > 1)
        uno, auc, ibs = (result.metrics[name].value for name in ("uno", "auc", "ibs"))
        rest = f"{uno:.2f} {auc:.2f} {ibs:.3f}"
        assert told.endswith(f" {c.value:.2f}{limits}{note}{over} {rest}"), told
        told = row_of(source, "<h3>High against low risk", result.model)
        held = report.predictions.mean_risks(result.model)
        high, low = (
            f"{int(held.event[inside].sum())}/{inside.sum()} "
            for inside in (held.risk > 0, held.risk <= 0)
        )
        assert told.startswith(f"{result.model} {high}")
        assert f"expected {low}" in told
        if groups.p is None:
            assert told.count("\N{EN DASH}") == 4
        else:
            assert f"expected {groups.statistic:.2f} " in told
            assert len(re.findall(r"0\.\d{2,3}|1\.00", told.split("expected")[-1])) >= 3
    guessing = row_of(source, "<h2>Models compared", "guessing: one curve for all")
    assert guessing.endswith(f"0.50 0.50 {evaluation.guessing_ibs:.3f}")
    assert CAVEAT in Page(source).text()


def test_the_headline_is_the_model_of_the_highest_c_with_what_flatters_it():
    report = made()
    lead = max(report.evaluation.models, key=lambda each: each.metrics["harrell"].value)
    assert best(report) is lead
    c = lead.metrics["harrell"]
    text = Page(render(report)).text()
    assert f"{lead.model} put the case whose event came first at the higher risk" in text
    limits = f"95 % interval {c.low:.2f} to {c.high:.2f}"
    assert f"{100 * c.value:.0f} % of pairs (Harrell's C {c.value:.2f}, {limits})" in text
    assert "It is the best of 3 models" in text
    assert "reaches down to guessing" not in text
    assert "reaches down to guessing" in Page(render(made(models=("noise",)))).text()
    assert "no closer to the outcomes" in Page(render(made(models=("noise",)))).text()


def with_table(report, table):
    """The report of other predictions."""
    predictions = RiskPredictions(table, unit="days")
    return replace(
        report, predictions=predictions, evaluation=evaluate_survival(predictions),
        comparison=compare_survival_models(predictions),
    )  # fmt: skip


def test_a_model_with_one_risk_for_all_is_never_the_best():
    report = made(models=("flat", "told"))
    table = report.predictions.table
    evaluation = with_table(report, table.assign(risk=-table["risk"])).evaluation
    flat, wrong = evaluation.models
    assert wrong.metrics["harrell"].value < flat.metrics["harrell"].value
    assert evaluation.ranked() == [wrong, flat]


def test_the_headline_names_the_other_models_of_the_same_c():
    report = made(models=("told",))
    table = report.predictions.table
    twins = with_table(report, pd.concat([table, table.assign(model="twin")], ignore_index=True))
    assert "level with twin." in " ".join(SurvivalSections(twins).headline())


def test_pairs_that_cannot_be_compared_are_said_to_be_none():
    report = made(models=("told",))
    table = report.predictions.table.assign(event=0)
    table.loc[table["time"] == table["time"].max(), "event"] = 1  # the last of all
    predictions = RiskPredictions(table)
    evaluation = evaluate_survival(predictions)
    sections = SurvivalSections(replace(report, predictions=predictions, evaluation=evaluation))
    assert sections.headline()[0].startswith("No two cases can be compared")


def test_cases_stand_hardest_first_by_their_own_pairs():
    """Against every pair, one by one, over three repeats of which each has its own risks."""
    report = made(repeats=3)
    lead = best(report).model
    shares = {}
    for repeat in report.predictions.repeats:
        held = report.predictions.case_risks(lead, repeat)
        for i, case in enumerate(held.case):
            wrong = pairs = 0.0
            for j in range(len(held.case)):
                first, last = sorted((i, j), key=lambda k: held.time[k])
                if i != j and held.event[first]:  # no two times tie here
                    pairs += 1
                    wrong += held.risk[first] < held.risk[last]
            shares.setdefault(case, []).append(wrong / pairs if pairs else -1.0)
    expected = sorted(shares, key=lambda case: (-round(np.mean(shares[case]), 9), case))
    assert re.findall(r"<h3>(case-\d\d)</h3>", render(report)) == expected
    [card] = [c for c in risk_cards(report.predictions, "days") if c.case == expected[0]]
    place = report.evaluation.models.index(best(report))
    assert card.verdicts[place].misordered == pytest.approx(np.mean(shares[expected[0]]))
    assert np.mean(shares[expected[0]]) > np.mean(shares[expected[-1]])


def test_every_case_tells_what_became_of_it_and_where_its_slides_are():
    report = made()
    source = render(report)
    cases = source[source.index('<section id="cases">') : source.index('<section id="cohort">')]
    for case, time, label in report.facts.cohort[["case", "time", "label"]].itertuples(index=False):
        said = "event after" if label == EVENT else "last seen without event after"
        at = cases.index(f"<h3>{case}</h3>")
        article = Page(cases[at : cases.index("</article>", at)]).text()
        assert f"{said}: {time:g} days" in article
        assert f"abmil on {case}/0" in article
    for case in report.facts.cohort["case"][::5]:
        assert f"slides without heatmap: {case}/1" in Page(cases).text()


def test_ranks_of_risk_are_those_of_scipy():
    from scipy.stats import rankdata

    report = made(repeats=2)
    table = report.predictions.table
    table["risk"] = table["risk"].round(0)  # ties
    for place, model in enumerate(report.predictions.models):
        cards = risk_cards(report.predictions, "days")
        ranks = [card.verdicts[place].rank for card in cards]
        risk = report.predictions.mean_risks(model).risk
        assert ranks == ([None] * N if model == "flat" else rankdata(-risk).tolist())


def test_cases_that_every_model_ranks_wrongly_are_named_and_the_flat_one_does_not_count():
    report = made()
    cards = risk_cards(report.predictions, "days")
    missed = {c.case for c in cards if c.missed}
    assert missed == {c.case for c in cards if all(v.misordered > 0.5 for v in c.verdicts[1:])}
    assert missed, "the made-up cohort has such a case"
    text = Page(render(report)).text()
    told = re.search(r"Every model that tells cases apart does so for ([^.]*)\.", text)[1]
    assert set(told.split(", ")) == missed
    alone = Page(render(made(models=("flat", "told")))).text()
    assert "told ranks more than half of their pairs wrongly for" in alone
    assert "tells cases apart" not in alone


@pytest.mark.parametrize("ties", [False, True])
def test_curves_are_drawn_to_scale_with_who_is_still_observed(ties):
    report = made(ties=ties)
    groups = risk_groups(report.predictions, "told")
    assert [group.name for group in groups] == ["low risk", "high risk"]
    svg = survival_plot("told", groups, "days")
    end = max(group.time.max() for group in groups)
    lines = re.findall(r'<polyline class="curve k(\d)"[^>]* points="([^"]*)"', svg)
    for place, points in lines:
        group = groups[int(place)]
        corners = np.array([[float(x) for x in point.split(",")] for point in points.split()])
        time, share = corners[:, 0] / 320 * end, 1 - corners[:, 1] / 190
        for t in group.time[group.event]:
            [after] = group.curve.at(np.array([t]))
            near = np.isclose(time, t, rtol=2e-3)
            assert share[near].min() == pytest.approx(after, abs=2e-3)
        assert (np.diff(time) >= 0).all()
        assert (np.diff(share) <= 0).all()
        lost = len(re.findall(rf'<line class="curve k{place}"', svg))
        assert lost == len(set(group.time[~group.event]))
    ticks = [float(t) for t in re.findall(r'y="207" text-anchor="middle">([\d.]+)</text>', svg)]
    counts = [
        [int(n) for n in re.findall(rf'y="{190 + (4.4 + row) * 17:g}" text-anchor="middle">(\d+)<', svg)]
        for row in range(2)
    ]  # fmt: skip
    assert counts == [[int((group.time >= t).sum()) for t in ticks] for group in groups]


def test_the_cox_table_is_shown_as_it_was_computed():
    report = made()
    text = Page(render(report)).text()
    for each in report.hazards["told"]:
        assert f"{each.term} {each.ratio:.2f} {each.low:.2f} to {each.high:.2f}" in text
    assert "those of this page have 2 columns and" in text
    without = Page(render(made(beside=False))).text()
    assert "Beside the clinical columns Cox" not in without
    assert (
        "Whether the risk adds anything to age, stage and grade is therefore not known" in without
    )


def test_limits_are_those_of_the_data():
    report = made()
    lead, evaluation = best(report), report.evaluation
    text = Page(render(report)).text()
    c = lead.metrics["harrell"]
    assert f"With {N} cases and {evaluation.n_events} events the C of {lead.model}" in text
    assert f"anything between {c.low:.2f} and {c.high:.2f} is compatible" in text
    held = report.predictions.case_risks("told", 0)
    pairs = sum(
        bool(held.event[i]) and held.time[i] < held.time[j] for i in range(N) for j in range(N)
    )
    assert f"Of {N * (N - 1) // 2} pairs of cases {pairs} can be compared" in text
    left = int((held.time >= AT[-1]).sum())
    assert f"Nothing is judged beyond 900 days, when {left} of {N} cases are still observed" in text
    assert "covers less than its 95 %" in text
    assert "The folds were drawn once" in text
    assert "The folds were drawn once" not in Page(render(made(repeats=2))).text()
    sited = replace(
        report,
        facts=replace(
            report.facts, cohort=report.facts.cohort.assign(site=["Oslo", "Rome"] * (N // 2))
        ),
    )
    assert "The cases come from 2 sites" in Page(render(sited)).text()


def test_follow_up_and_cohort_are_told():
    text = Page(render(made())).text()
    assert "1 \N{MULTIPLICATION SIGN} no outcome" in text
    assert f"In the table {N + 1} cases, {N + 9} slides".replace(" ", "") in text.replace(" ", "")
    assert re.search(r"median follow-up (\d+(\.\d+)? days|not reached), the longest", text)
    assert "time, median (quartiles)" not in text  # an outcome, not a trait
    assert "tiles, median (quartiles)" in text


@pytest.mark.parametrize("nasty", NASTY)
def test_names_are_text_and_nothing_else(nasty):
    check_text_only(
        nasty, render(_named(nasty)), plain_for(nasty), render(_named(plain_for(nasty)))
    )


def _named(nasty):
    """A report in which every text from data carries the name."""
    report = made(
        models=(nasty, f"told/{nasty}"), stem=nasty, unit=nasty, title=nasty, created=nasty,
        warnings=(nasty,), excluded=((nasty, nasty),), recipe={nasty: {nasty: nasty}},
        settings={nasty: nasty}, versions={nasty: nasty},
    )  # fmt: skip
    report.facts.cohort[nasty] = [nasty, f"{nasty}2"] * (N // 2)
    told = {nasty: tuple(replace(h, term=nasty) for h in report.hazards["told"])}
    return replace(report, hazards=told)


def section_of(source, name):
    start = source.index(f'<section id="{name}">')
    return source[start : source.index("</section>", start)]


def test_the_calibration_is_drawn_to_scale_with_its_numbers():
    report = made(n=44)
    part = section_of(render(report), "calibration")
    text, calibration = Page(part).text(), best(report).calibration
    assert f"Do as many cases survive as {best(report).model} predicts?" in text
    figures = part.split("<figure>")[1:]
    assert len(figures) == len(calibration.horizons) == 3
    for figure, at in zip(figures, calibration.horizons, strict=True):
        assert f"<figcaption>until {at.horizon:.4g} days" in figure
        points = re.findall(r'class="bin" cx="([\d.e-]+)" cy="([\d.e-]+)"', figure)
        drawn = [(float(x) / 240, 1 - float(y) / 240) for x, y in points]
        assert drawn == [pytest.approx((g.predicted, g.observed), abs=2e-3) for g in at.groups]
        ends = re.findall(r'class="whisker"[^>]* y1="([\d.e-]+)" y2="([\d.e-]+)"', figure)
        limits = [(1 - float(low) / 240, 1 - float(high) / 240) for low, high in ends]
        assert limits == [pytest.approx((g.low, g.high), abs=2e-3) for g in at.groups]
        counts = re.findall(r'text-anchor="(?:start|end)">(\d+)</text>', figure)
        assert counts[-len(at.groups) :] == [str(group.n) for group in at.groups]
        assert 'class="reference" x1="0" y1="240" x2="240" y2="0"' in figure
    for result in report.evaluation.models:
        ratio = result.calibration.ratio
        assert f"{ratio.value:.2f} {ratio.low:.2f} to {ratio.high:.2f} {ratio.note}" in text
    assert f"44 cases with {report.evaluation.n_events} events make" in text
    assert "gross errors only" in text


def test_a_group_that_nobody_follows_to_the_horizon_has_no_point():
    groups = (
        RiskGroup(0.2, 0.25, 0.1, 0.5, 9, 6, 2),
        RiskGroup(0.7, None, None, None, 8, 1, 0),
    )
    svg = survival_calibration_plot("a model until 5 <weeks>", groups)
    assert svg.count('class="bin"') == 1
    assert "a model until 5 &lt;weeks&gt;. 9 cases: predicted" in svg
    report = made(n=44)
    lead = best(report)
    at = replace(lead.calibration.horizons[1], groups=groups)
    calibration = replace(lead.calibration, horizons=(at,), middle=at.horizon)
    models = tuple(
        replace(r, calibration=calibration) if r is lead else r for r in report.evaluation.models
    )
    page = render(replace(report, evaluation=replace(report.evaluation, models=models)))
    caption = Page(section_of(page, "calibration")).text()
    assert "without a point, as nobody was followed so long: 8 cases" in caption


def test_the_calibration_lies_beside_the_page_for_a_paper(tmp_path):
    report = made(repeats=2)
    paths = SurvivalSections(report).write_figures(tmp_path)
    assert all(path.is_file() for path in paths)
    rows = pd.read_csv(tmp_path / "calibration.csv")
    assert set(rows["model"]) == {"flat", "noise", "told"}
    told = rows[rows["model"] == "told"]
    [lead] = [r for r in report.evaluation.models if r.model == "told"]
    groups = [group for at in lead.calibration.horizons for group in at.groups]
    assert told["observed"].tolist() == pytest.approx([g.observed for g in groups])
    assert told["n"].tolist() == [g.n for g in groups]
