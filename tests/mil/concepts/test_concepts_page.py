"""The page shows the slides' own pixels, grey where there are none, and no name as markup."""

import base64
import csv
import io
import re

import numpy as np
import pytest
from PIL import Image

from mil.concepts.find import find_concepts
from mil.concepts.page import EXAMPLES, GREY, choose_examples, encode_tiles, render, write_concepts
from tests.features.making import write_tiff
from tests.mil.made import cohort_of, folds_of, made_case, planted_cohort

NASTY = "<b onclick=x>&amp;"
COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)]


@pytest.fixture(scope="module")
def concepts():
    """Two classes; one case's slide of four tiles in four colours lies beside."""
    cohort = planted_cohort(2, 4, dim=6)[0]
    cases = list(cohort.cases)
    features = np.asarray(cases[0].bags[0].features)[:4]
    cases[0] = made_case(NASTY, cases[0].label, features, size_l0=(1792, 448))
    cohort = cohort_of(cases)
    return find_concepts(cohort, folds_of(cohort, folds="2"), n_concepts=4, seed=0)


def test_examples_are_the_nearest_tiles_of_the_concept_from_many_cases(concepts):
    for concept, shown in enumerate(choose_examples(concepts)):
        assert len(shown) <= EXAMPLES
        holding = {
            c.name
            for c, shares in zip(concepts.cases, concepts.shares, strict=True)
            if shares[concept]
        }
        assert len({example.case for example in shown}) == min(len(holding), EXAMPLES)
        for example in shown:
            distances = concepts.clusters.distances(example.bag)
            assert distances[example.index].argmin() == concept


def colours(addresses):
    """The middle pixel of each picture."""
    for address in addresses:
        data = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
        yield Image.open(io.BytesIO(data)).getpixel((56, 56))


def test_tiles_are_read_from_the_slide_and_grey_where_there_is_none(concepts, tmp_path):
    picture = np.concatenate([np.full((448, 448, 3), c, np.uint8) for c in COLOURS], axis=1)
    files = {f"{NASTY}-s1": write_tiff(tmp_path / "a.tiff", [picture])}
    shown = choose_examples(concepts)
    seen = 0
    for tiles, addresses in zip(shown, encode_tiles(shown, files), strict=True):
        for example, colour in zip(tiles, colours(addresses), strict=True):
            true = COLOURS[example.index] if example.case == NASTY else GREY
            assert np.abs(np.subtract(colour, true)).max() <= 6
            seen += example.case == NASTY
    assert seen


def test_a_file_of_another_slide_or_none_at_all_is_grey(concepts, tmp_path):
    small = write_tiff(tmp_path / "small.tiff", [np.zeros((300, 400, 3), np.uint8)])
    (tmp_path / "broken.tiff").write_bytes(b"nothing")
    shown = choose_examples(concepts)
    for path in (small, tmp_path / "broken.tiff"):
        for addresses in encode_tiles(shown, {f"{NASTY}-s1": path}):
            assert all(np.abs(np.subtract(c, GREY)).max() <= 2 for c in colours(addresses))


def test_the_page_escapes_names_and_says_what_is_descriptive(concepts):
    page = render(concepts, {}, title="<i>run</i>", random=True)
    assert NASTY not in page
    assert "&lt;b onclick=x&gt;&amp;amp;" in page
    assert "<i>run" not in page
    assert "<script" not in page
    assert "Everything below only\ndescribes" in page
    assert "weights are random" in page
    assert "computed from the training cases" in page
    links = set(re.findall(r'href="#(concept-\d+)"', page))
    assert links == set(re.findall(r'id="(concept-\d+)"', page))


def test_the_tables_hold_the_shares_and_weights(concepts, tmp_path):
    page = write_concepts(tmp_path / "out", concepts, {}, title="run", random=False)
    assert sorted(p.name for p in page.parent.iterdir()) == [
        "concepts.html",
        "shares.csv",
        "weights.csv",
    ]
    with (page.parent / "shares.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["case", "label", "1", "2", "3", "4"]
    assert [row[0] for row in rows] == [case.name for case in concepts.cases]
    assert np.allclose(np.array([row[2:] for row in rows], float), concepts.shares, atol=1e-5)
    with (page.parent / "weights.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    weights = np.array([row[2:] for row in rows], float).reshape(concepts.weights.shape)
    assert np.allclose(weights, concepts.weights, atol=1e-5)
    assert np.allclose(concepts.weights.sum(axis=1), 0, atol=1e-9)  # of two classes, too
