"""Curves against a loop, verdicts on maps that are known to be good, bad or empty."""

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from PIL import Image
from scipy.stats import wilcoxon
from sklearn.metrics import roc_auc_score

from mil.errors import FitError
from mil.explanation.assess import assess_map, conclusion, map_card, summarise_methods, summary_row
from mil.explanation.faithfulness import (
    draw_order,
    infidelity,
    judge,
    localise,
    order_curves,
    random_curves,
    region_curves,
    sensitivity,
)
from mil.explanation.figure import draw_explanation
from mil.explanation.methods import METHODS, bag_methods
from mil.explanation.quality import quality_warnings
from mil.explanation.regions import assign_regions
from mil.explanation.sanity import DRAWS, sanity_warnings, similarity_to_untrained
from mil.learning.training import fit_model
from tests.mil.explanation.made_targets import COHORT, physically, planted_target, untrained
from tests.mil.made import QUICK

BAG_METHODS = [method.name for method in bag_methods()]


def with_values(scores, values):
    values = np.asarray(values, dtype=float)
    return replace(scores, values=values, relative=values)


def some_scores(target, values):
    return with_values(METHODS["single-tile"](target), values)


@pytest.mark.parametrize("model", ["abmil", "dsmil", "tile-vote"])
@pytest.mark.parametrize("n_tiles", [1, 2, 9, 35])
def test_curves_are_those_of_a_loop(model, n_tiles):
    target = untrained(model, n_tiles=n_tiles, members=2)
    order = np.random.default_rng(1).permutation(n_tiles)
    curves = order_curves(target, order[None])
    counts = np.rint(curves.shares * max(1, n_tiles - 1)).astype(int)
    assert len(set(counts)) == min(n_tiles, 21)
    for k, left, put in zip(counts, curves.deletion[0], curves.insertion[0], strict=True):
        subset = np.isin(np.arange(n_tiles), order[k:])
        assert left == pytest.approx(float(physically(target, subset)[1].exp()), abs=2e-5)
        subset = np.isin(np.arange(n_tiles), order[: k + 1])
        assert put == pytest.approx(float(physically(target, subset)[1].exp()), abs=2e-5)


@pytest.mark.parametrize("spread", [1.0, 40.0, 900.0])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("model", ["abmil", "additive-abmil", "mean", "clam-mb", "dsmil"])
def test_answers_along_an_order_are_those_to_its_subsets(model, members, spread):
    """Also where a few tiles have nearly all weight, and where running sums would have none left."""
    target = untrained(model, n_tiles=9, members=members)
    features = target.features * torch.linspace(1, spread, 9)[:, None]
    target = target.with_features(features)
    orders = np.stack([np.random.default_rng(seed).permutation(9) for seed in range(3)])
    left, come = target.order_answers(orders, np.arange(9))
    for row, order in enumerate(orders):
        rank, count = np.argsort(order), np.arange(9)[:, None]
        assert left[row] == pytest.approx(target.subset_answers(rank >= count), abs=2e-6)
        assert come[row] == pytest.approx(target.subset_answers(rank <= count), abs=2e-6)


def test_tiles_whose_weights_no_sum_can_hold_are_answered_for_one_by_one():
    target = untrained("abmil", n_tiles=9)
    with torch.no_grad():
        for name, values in target.fitted.head.named_parameters():
            if "weigh" in name:
                values.mul_(1e5)
    left, come = target.order_answers(np.arange(9)[None], np.arange(9))
    rank, count = np.arange(9), np.arange(9)[:, None]
    assert left[0] == pytest.approx(target.subset_answers(rank >= count), abs=2e-6)
    assert come[0] == pytest.approx(target.subset_answers(rank <= count), abs=2e-6)


def test_area_is_the_mean_over_the_share_of_tiles():
    target = untrained("abmil", n_tiles=5)
    curves = order_curves(target, np.arange(5)[None])
    by_hand = (curves.deletion[0, 1:] + curves.deletion[0, :-1]).mean() / 2
    assert curves.deletion_area[0] == pytest.approx(by_hand)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("method", ["attention", "evidence", "single-tile"])
def test_planted_tiles_score_highest_and_the_map_is_better_than_random(method, seeds):
    for case in (0, 7, 14):
        target, keys = planted_target(seeds=seeds, case=case)
        assessed = assess_map(target, method, random_curves(target), keys)
        assert assessed.localisation.auc >= 0.95
        assert assessed.localisation.pointing
        assert assessed.faithfulness.better_than_random
        assert assessed.faithfulness.verdict.startswith("More faithful to the model than random")


def test_the_worst_order_is_no_better_than_random():
    target, _ = planted_target()
    best = METHODS["single-tile"](target)
    random = random_curves(target)
    good, bad = (
        judge(target, best, random),
        judge(target, with_values(best, -best.values), random),
    )
    assert good.p == pytest.approx(1 / 101)
    assert bad.p == 1
    assert bad.verdict.startswith("No more faithful to the model than random")
    assert min(good.deletion_percentile, good.insertion_percentile) > 95
    assert max(bad.deletion_percentile, bad.insertion_percentile) < 5


def test_random_maps_are_called_better_than_random_at_the_nominal_rate():
    target, _ = planted_target()
    random = random_curves(target)
    rng = np.random.default_rng(5)
    maps = [some_scores(target, rng.random(len(target.bag))) for _ in range(200)]
    called = sum(judge(target, scores, random).better_than_random for scores in maps)
    assert called <= 20  # 10 expected


def gathered_target():
    """A target on a bag whose planted tiles lie side by side."""
    target, keys = planted_target()
    return target.with_features(target.features[:, np.argsort(keys)])


@pytest.mark.parametrize("method", ["ablation", "shapley"])
def test_random_maps_of_regions_are_called_better_than_random_at_the_nominal_rate(method):
    target, rng = gathered_target(), np.random.default_rng(5)
    regions, tiles = assign_regions(target), random_curves(target)
    called = 0
    for _ in range(200):
        scores = some_scores(target, rng.random(regions.max() + 1)[regions])
        called += judge(target, replace(scores, method=method), tiles).better_than_random
    assert called <= 20  # 10 expected


def test_in_random_orders_of_regions_tiles_of_one_stay_together():
    target = gathered_target()
    regions, _ = region_curves(target)
    order = draw_order(len(regions), regions, np.random.default_rng(0))
    assert sorted(order) == list(range(len(regions)))
    assert np.count_nonzero(np.diff(regions[order])) == regions.max() == 11


def test_maps_of_regions_share_random_orders_of_regions_and_say_so():
    target, _ = planted_target()
    random = random_curves(target)
    judged = {name: assess_map(target, name, random).faithfulness for name in BAG_METHODS}
    assert judged["ablation"].random is judged["shapley"].random is not random
    assert all(
        faithfulness.random is random for faithfulness in [judged["evidence"], judged["attention"]]
    )
    assert "than random orders of regions (p = " in judged["shapley"].verdict
    assert "than random orders of tiles (p = " in judged["evidence"].verdict
    other = planted_target(case=7)[0]
    assert (
        assess_map(other, "ablation", random).faithfulness.random is not judged["ablation"].random
    )


def test_flat_map_is_no_better_than_random():
    target, _ = planted_target()
    faithfulness = judge(
        target, some_scores(target, np.ones(len(target.bag))), random_curves(target)
    )
    assert faithfulness.p > 0.2


@pytest.mark.parametrize("model", ["majority", "mean"])
def test_map_of_a_model_that_reads_nothing_is_no_better_than_random(model):
    fitted = fit_model(model, COHORT.cases, (), COHORT.classes, QUICK, seed=0)
    target = replace(planted_target()[0], fitted=fitted)
    if model == "mean":
        torch.nn.init.zeros_(fitted.head.classify.weight)
    for values in (np.arange(len(target.bag)), -np.arange(len(target.bag))):
        faithfulness = judge(target, some_scores(target, values), random_curves(target))
        assert faithfulness.p == 1
        assert faithfulness.deletion_percentile == faithfulness.insertion_percentile == 50


def test_localisation_is_what_it_says():
    target, keys = planted_target()
    rng = np.random.default_rng(0)
    scores = some_scores(target, np.round(rng.normal(size=len(keys)), 1))
    localisation = localise(scores, keys)
    assert localisation.auc == pytest.approx(roc_auc_score(keys, scores.relative))
    positive = np.maximum(scores.relative, 0)
    assert localisation.mass == pytest.approx(positive[keys].sum() / positive.sum())
    assert localisation.share == keys.mean()
    assert localisation.pointing == bool(keys[scores.relative.argmax()])


def test_flat_map_locates_nothing():
    target, keys = planted_target()
    localisation = localise(some_scores(target, np.ones(len(keys))), keys)
    assert (localisation.auc, localisation.p, localisation.pointing) == (0.5, 1.0, False)
    assert localisation.mass == pytest.approx(localisation.share)


@pytest.mark.parametrize("inside", [True, False])
def test_regions_with_all_tiles_or_none_are_refused(inside):
    target, keys = planted_target()
    with pytest.raises(FitError, match="tiles inside with tiles outside"):
        localise(some_scores(target, np.ones(len(keys))), np.full(len(keys), inside))


def test_infidelity_is_nothing_where_scores_tell_all_and_one_where_they_tell_nothing():
    target = untrained("abmil", n_tiles=20)
    keep = np.ones((1, 20), bool)

    class Linear(type(target)):
        """Answers with the sum of what is kept."""

        def subset_scores(self, keep):
            return keep @ np.arange(20.0)

    linear = Linear(**{name: getattr(target, name) for name in ("fitted", "bag", "quantity")})
    assert linear.subset_scores(keep)[0] == 190
    assert infidelity(linear, some_scores(target, np.arange(20))) == pytest.approx(0, abs=1e-9)
    assert infidelity(linear, some_scores(target, 3 * np.arange(20))) == pytest.approx(0, abs=1e-9)
    assert infidelity(linear, some_scores(target, (-1.0) ** np.arange(20))) > 0.5
    assert infidelity(linear, some_scores(target, np.zeros(20))) == pytest.approx(1)


def test_infidelity_is_that_of_a_loop():
    target = untrained("dsmil", n_tiles=12)
    scores = METHODS["single-tile"](target)
    generator = torch.Generator().manual_seed(0)
    out = (torch.rand(200, 12, generator=generator) < 0.5).numpy()
    whole = target.subset_scores(np.ones((1, 12), bool))[0]
    change = np.array([whole - target.subset_scores(~row[None])[0] for row in out])
    predicted, count = out @ scores.values, out.sum(axis=1)
    both = np.stack([predicted, count], axis=1)
    scaled = both @ np.linalg.solve(both.T @ both, both.T @ change)
    even = count * (count @ change) / (count @ count)
    expected = ((scaled - change) ** 2).mean() / ((even - change) ** 2).mean()
    assert infidelity(target, scores) == pytest.approx(expected, rel=1e-4)


def test_infidelity_is_that_of_captum():
    target = untrained("abmil", n_tiles=15)
    scores = METHODS["single-tile"](target)
    generator = torch.Generator().manual_seed(0)
    out = (torch.rand(200, 15, generator=generator) < 0.5).double()
    keep = torch.ones(1, 15, dtype=torch.float64)

    def score(masks):
        return torch.from_numpy(target.subset_scores(masks.numpy() > 0.5))

    def unexplained(columns):
        change = score(keep) - score(keep - out)
        weights = np.linalg.lstsq((out @ columns).numpy(), change.numpy(), rcond=None)[0]
        fitted = (columns @ torch.from_numpy(weights))[None]
        perturb = lambda masks: (out, masks - out)  # noqa: E731
        return float(captum_infidelity(score, perturb, keep, fitted, n_perturb_samples=200))

    uniform = torch.ones(15, 1, dtype=torch.float64)
    both = torch.cat([torch.from_numpy(scores.values)[:, None], uniform], dim=1)
    expected = unexplained(both) / unexplained(uniform)
    assert infidelity(target, scores) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n_tiles", [1, 20])
def test_infidelity_to_an_answer_that_does_not_move_is_undefined(n_tiles):
    constant = untrained("majority", n_tiles=n_tiles)
    assert infidelity(constant, some_scores(constant, np.arange(n_tiles))) is None


@pytest.mark.parametrize("model", ["mean", "abmil", "dsmil"])
@pytest.mark.parametrize("n_tiles", [30, 500])
def test_infidelity_tells_rounding_from_small_answers(model, n_tiles):
    target = untrained(model, n_tiles=n_tiles)
    alike = target.with_features(30 * target.features[:, :1].repeat(1, n_tiles, 1))
    moved = alike.with_features(alike.features + 0.05 * target.features)
    scores = some_scores(target, np.arange(n_tiles))
    assert infidelity(alike, scores) is None
    assert 0 <= infidelity(moved, scores) <= 1 + 1e-9


@pytest.mark.parametrize("model", ["mean", "abmil", "transmil"])
def test_infidelity_of_a_single_tile_is_undefined_and_leaves_the_mean(model):
    alone, several = (untrained(model, n_tiles=n_tiles) for n_tiles in (1, 9))
    rows = [
        summary_row(assess_map(target, "single-tile", random_curves(target, 3)))
        for target in (alone, several)
    ]
    assert rows[0]["infidelity"] is None
    assert [summary.infidelity for summary in summarise_methods(pd.DataFrame(rows))] == [
        rows[1]["infidelity"]
    ]
    assert np.isnan(summarise_methods(pd.DataFrame(rows[:1]))[0].infidelity)
    facts = map_card(assess_map(alone, "single-tile", random_curves(alone, 3)))
    assert json.loads(json.dumps(facts, allow_nan=False))["faithfulness"]["infidelity"] is None


@pytest.mark.parametrize(("model", "most"), [("mean", 0.1), ("abmil", 0.7)])
def test_infidelity_tells_true_maps_from_others(model, most):
    """Where a few tiles hold all attention, what they change is no straight line."""
    target, _ = planted_target(model)
    evidence = METHODS["evidence"](target)
    rng = np.random.default_rng(0)
    others = [some_scores(target, rng.permutation(evidence.values)) for _ in range(5)]
    assert infidelity(target, evidence) < most
    assert min(infidelity(target, other) for other in others) > 0.9


def test_sensitivity_is_that_of_a_loop():
    target, _ = planted_target()
    features, method = target.features, METHODS["evidence"]
    spread = float((features[0] - features[0].mean(dim=0)).square().mean().sqrt())
    plain, generator, changes = method(target).values, torch.Generator().manual_seed(0), []
    for _ in range(5):
        noise = torch.rand(features.shape, generator=generator) * 2 - 1
        moved = method(target.with_features(features + 0.05 * spread * noise)).values
        changes.append(np.linalg.norm(moved - plain) / np.linalg.norm(plain))
    assert sensitivity(target, method) == pytest.approx(max(changes), rel=1e-3)
    assert sensitivity(target, method, radius=0.001) < sensitivity(target, method) / 10


@pytest.mark.parametrize("method", BAG_METHODS)
def test_sensitivity_is_had_of_every_method(method):
    assert sensitivity(untrained("abmil"), METHODS[method], samples=2) >= 0


@pytest.mark.parametrize("method", ["attention", "evidence", "single-tile"])
def test_maps_of_untrained_heads_are_unlike(method):
    target, _ = planted_target(seeds=3)
    assert similarity_to_untrained(target, METHODS[method]) < 0.4


def test_map_that_does_not_know_the_model_is_like_itself():
    target, _ = planted_target()
    lengths = np.linalg.norm(target.features[0].numpy(), axis=1)
    similarity = similarity_to_untrained(target, lambda target: some_scores(target, lengths))
    assert similarity == pytest.approx(1)


@pytest.mark.parametrize(
    ("similarity", "n_tiles", "warned"),
    [(None, 9, False), (0.49, 400, False), (0.51, 400, True), (0.55, 5, False), (0.7, 5, True)],
)
def test_similarity_beyond_chance_is_a_warning(similarity, n_tiles, warned):
    scores = some_scores(untrained("abmil", n_tiles=n_tiles), np.arange(n_tiles))
    warnings = sanity_warnings(similarity, scores)
    assert [f"(rank correlation {similarity:.2f})" in warning for warning in warnings] == [
        True
    ] * warned


@pytest.mark.parametrize(("volume", "parts"), [(None, "tiles"), ({"kind": "volume"}, "slices")])
def test_the_warning_names_what_a_row_of_the_bag_shows(volume, parts):
    scores = some_scores(untrained("abmil", n_tiles=7, volume=volume), np.arange(7))
    [warning] = sanity_warnings(0.9, scores)
    assert f"or the {parts}, more than" in warning


@pytest.mark.parametrize("n_tiles", [5, 8, 12])
def test_unrelated_maps_of_few_tiles_are_seldom_called_alike(n_tiles):
    rng = np.random.default_rng(0)
    scores = some_scores(untrained("abmil", n_tiles=n_tiles), np.arange(n_tiles))
    ranks = np.argsort(rng.random((1000, DRAWS, n_tiles)), axis=-1)
    correlations = 1 - 6 * ((ranks - np.arange(n_tiles)) ** 2).sum(-1) / (
        n_tiles * (n_tiles**2 - 1)
    )
    warned = [
        bool(sanity_warnings(float(mean), scores)) for mean in np.abs(correlations).mean(axis=1)
    ]
    assert np.mean(warned) < 0.08


def test_a_map_on_flagged_tiles_is_a_warning():
    target = untrained("abmil", n_tiles=10, tile_flags=np.array([2] + [0] * 8 + [4], np.uint8))
    [warning] = quality_warnings(some_scores(target, [9] + [1] * 8 + [-5]))
    assert warning.startswith("53 % of this map lies on the 1 tiles flagged blur (10 % of all)")
    assert quality_warnings(some_scores(target, np.ones(10))) == ()
    assert quality_warnings(some_scores(untrained("abmil"), np.ones(9))) == ()


def test_facts_hold_everything_as_json():
    target, keys = planted_target(seeds=3)
    assessed = assess_map(target, "evidence", random_curves(target), keys)
    facts = json.loads(json.dumps(map_card(assessed), allow_nan=False))
    assert facts["faithfulness"]["verdict"].startswith("More faithful to the model than random")
    assert facts["localisation"]["auc"] > 0.95
    probability = float(physically(target, np.ones(len(keys), bool))[0].exp())
    assert facts["probability"] == pytest.approx(probability, abs=1e-5)


def test_methods_are_ranked_by_gain_and_a_model_that_reads_nothing_has_none():
    rows = []
    for case in (0, 5, 7, 14):
        target, keys = planted_target(case=case)
        random, known = random_curves(target), None if case == 5 else keys
        rows += [
            summary_row(assess_map(target, name, random, known))
            for name in ("attention", "ablation")
        ]
    assert rows[0]["p"] != rows[0]["known_p"]
    assert "known_p" not in rows[2]
    methods = summarise_methods(pd.DataFrame(rows))
    aucs = [
        row["known_auc"]
        for row in rows
        if row["method"] == methods[0].method and "known_auc" in row
    ]
    assert methods[0].auc == pytest.approx(np.mean(aucs))
    assert [summary.slides for summary in methods] == [4, 4]
    assert methods[0].gain >= methods[1].gain
    assert conclusion(methods, "abmil").startswith(f"Most faithful for abmil: {methods[0].method}")
    hopeless = [replace(summary, p=1.0) for summary in methods]
    assert conclusion(hopeless, "abmil").startswith(
        "No method's maps of abmil are better than random"
    )


@pytest.mark.parametrize(("ahead_on", "separated"), [(11, False), (20, True)])
def test_methods_that_slides_do_not_separate_are_named_together(ahead_on, separated):
    rng = np.random.default_rng(0)
    gains = rng.normal(0.6, 0.1, 20)
    behind = gains - np.where(np.arange(20) < ahead_on, 0.05, -0.05) * rng.uniform(0.9, 1.1, 20)
    constants = {
        "better": True,
        "deletion": 0.2,
        "deletion_random": 0.8,
        "insertion": 0.8,
        "infidelity": 0.1,
    }
    rows = [
        {"slide": f"s{i}", "method": method, "gain": values[i], **constants}
        for method, values in (("evidence", gains), ("attention", behind))
        for i in range(20)
    ]
    methods = summarise_methods(pd.DataFrame(rows))
    assert [summary.method for summary in methods] == ["evidence", "attention"]
    assert methods[0].p_behind == 1
    assert methods[1].p_behind == wilcoxon(gains, behind).pvalue
    sentence = conclusion(methods, "abmil")
    assert ("do not separate it from attention" in sentence) is not separated


@pytest.mark.parametrize("name", ["s1", "$x", r"$\frac{1}{2$", "<b>&amp;"])
def test_figure_is_a_picture_whatever_the_names_and_shows_the_verdict(name):
    target = untrained("abmil", n_tiles=30)
    assessed = assess_map(target, "evidence", random_curves(target))
    scores = replace(assessed.scores, bag=replace(target.bag, slide=name), target=name)
    plain = draw_explanation(scores, assessed.faithfulness, answer_label=name, caption=name)
    assert Image.open(io.BytesIO(plain)).format == "PNG"
    warned = draw_explanation(scores, assessed.faithfulness, answer_label=name, warnings=[name])
    assert warned != plain
