import pytest

from mil.evaluation.words import fit_words


@pytest.mark.parametrize(
    ("page", "fitted"),
    [
        ("<p>24 cases, 24 slides</p>", "<p>24 cases, 24 series</p>"),
        ("<th>tiles</th>", "<th>slices</th>"),
        ("Slide 3. Tiles", "Series 3. Slices"),
        ('<div class="slides"><b>a tile</b></div>', '<div class="slides"><b>a slice</b></div>'),
        ("<script>let tiles = slides;</script>", "<script>let tiles = slides;</script>"),
        ("<td>tile-vote</td> slide-1 versatile", "<td>tile-vote</td> slide-1 versatile"),
        ("scanner, stain, and time between surgery and slide", "scanner, protocol, and time from scan to "
         "treatment"),
    ],
)  # fmt: skip
def test_a_page_of_volumes_speaks_of_series_and_slices(page, fitted):
    assert fit_words(page, "volume") == fitted
    assert fit_words(page, "annotations") == page
