import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mil.evaluation.classification.metrics import macro_auc
from mil.evaluation.intervals import Estimate
from mil.report.formats import between, percent
from mil.report.plots import (
    curve_key,
    interval_axis,
    interval_mark,
    roc_curves,
    roc_plot,
)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.9, "90 %"),
        (0.996, "99.6 %"),
        (0.004, "0.4 %"),
        (0.5, "50 %"),
    ],
)
def test_only_all_is_written_as_all(share, text):
    assert percent(share).replace("\N{NO-BREAK SPACE}", " ") == text


def test_a_range_names_its_unit_once():
    assert between([0.97, 0.7]).replace("\N{NO-BREAK SPACE}", " ") == "70 to 97 %"
    assert between([0.5, None, 0.5]).replace("\N{NO-BREAK SPACE}", " ") == "50 %"
    assert between([None]) == "\N{EN DASH}"


@pytest.fixture
def scores():
    rng = np.random.default_rng(3)
    truth = np.repeat(np.arange(3), 6)
    return truth, rng.dirichlet(np.ones(3), size=len(truth))


def test_curves_run_from_corner_to_corner_and_their_mean_area_is_the_macro_auc(scores):
    truth, p = scores
    curves = roc_curves(("a", "b", "c"), truth, p)
    assert [(curve.name, curve.colour) for curve in curves] == [("a", 0), ("b", 1), ("c", 2)]
    for curve in curves:
        assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
        assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(curve.auc)
    assert np.mean([curve.auc for curve in curves]) == pytest.approx(macro_auc(truth, p))


def test_two_classes_have_one_curve_and_an_absent_class_none(scores):
    truth, p = scores
    assert [curve.name for curve in roc_curves(("a", "b"), truth % 2, p[:, :2])] == ["b"]
    assert [curve.name for curve in roc_curves(("a", "b", "c"), truth % 2, p)] == ["a", "b"]
    assert roc_curves(("a", "b"), truth * 0, p[:, :2]) == ()


def test_a_curve_is_drawn_where_its_rates_are(scores):
    curves = roc_curves(("a", "b"), np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    points = re.search(r'points="([^"]*)"', roc_plot("m", curves)).group(1)
    assert points == "0,240 0,0 240,0"


def test_figures_are_whole_and_say_what_they_show(scores):
    curves = roc_curves(("<b>", '"&', "c"), *scores)
    estimate = Estimate(0.9, 0.7, 0.97, "Wilson")
    drawn = [
        roc_plot("<i>", curves),
        interval_mark('<"&>', estimate, 0.25),
        interval_mark("m", Estimate(None, None, None, "none"), 0.25),
    ]
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        assert root[0].tag == "title"
    assert "<i>. <b>: AUC" in ElementTree.fromstring(drawn[0])[0].text
    text = ElementTree.fromstring(drawn[1])[0].text.replace("\N{NO-BREAK SPACE}", " ")
    assert text == '<"&>: 90 %, 95 % interval 70 to 97 %'
    assert ElementTree.fromstring(drawn[2])[0].text == "m: undefined"
    for svg in (interval_axis(), curve_key(curves[0])):
        assert ElementTree.fromstring(svg).get("aria-hidden") == "true"


def test_an_interval_stands_on_its_scale():
    root = ElementTree.fromstring(interval_mark("m", Estimate(0.9, 0.7, 0.97, "Wilson"), 0.25))
    reference, whisker, point = root[1:]
    assert (reference.get("x1"), reference.get("x2")) == ("25.00%", "25.00%")
    assert (whisker.get("x1"), whisker.get("x2")) == ("70.00%", "97.00%")
    assert point.get("cx") == "90.00%"
