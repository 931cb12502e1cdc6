"""Do the intervals hold their level at 20 to 50 cases, and do the tests keep theirs?

    python -m benchmarks.intervals [--cohorts 4000] [--only AUC]

Cohorts are drawn from a known truth, so that it is known how often a 95 % interval holds it, and how often
a test at .05 finds a difference where there is none. Beside the method that the library uses stands the one
it is used instead of. The standard error of a share near .95 is .22 / sqrt(cohorts). Counts of few cases are
enumerated rather than drawn. About three minutes of one core.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit, softmax
from scipy.stats import binom, norm, ttest_1samp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold

from benchmarks.auc_intervals import logit_delong_auc, macro_auc_interval
from benchmarks.bootstrap import bca, case_weights, leave_one_out, percentile
from benchmarks.table import print_table, save
from mil.evaluation import auc_intervals as of_auc
from mil.evaluation import intervals
from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.classification.calibration import slope_and_intercept
from mil.evaluation.classification.conformal import future_coverage, threshold
from mil.evaluation.classification.metrics import (
    average_precision,
    brier,
    kappa,
    macro_f1,
    placements,
    predicted,
)
from mil.evaluation.classification.per_class import INTERVALS, average_precisions
from mil.evaluation.classification.power import mcnemar_power
from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.comparison import delong_test
from mil.evaluation.paired_tests import corrected_t, mcnemar_exact, permutation_tests
from mil.evaluation.regression.cox import fit_cox
from mil.evaluation.survival.metrics import harrell_interval

HEADER = ["what", "cases", "truth", "method", "found", "aim", "cohorts"]
RESAMPLES = 1000

Row = tuple[str, str, str, str, float, str, int]  # as HEADER; found is a share of the cohorts


def auc_intervals(cohorts: int) -> Iterator[Row]:
    """Normal scores, two classes of equal and of unequal size."""
    for (n_neg, n_pos), auc in product(
        ((10, 10), (15, 15), (25, 25), (15, 5), (40, 10)), (0.8, 0.9, 0.95)
    ):
        rng = np.random.default_rng(n_neg * 1000 + n_pos)
        positive = np.arange(n_neg + n_pos) >= n_neg
        held: dict[str, list[bool]] = {"Newcombe 5": [], "DeLong, logit": [], "DeLong, plain": []}
        weights = case_weights(positive.astype(np.int64), RESAMPLES, 0)
        shares: list[bool] = []
        for number in range(cohorts):
            score = rng.normal(size=len(positive)) + positive * norm.ppf(auc) * 2**0.5
            found = float(placements(positive, score)[0].mean())
            error = float(np.sqrt(of_auc.delong_variance(positive, score)))
            plain = intervals.Interval(found - 1.96 * error, found + 1.96 * error, "")
            limits = (
                of_auc.newcombe_auc(found, n_pos, n_neg),
                logit_delong_auc(positive, score),
                plain,
            )
            for into, each in zip(held.values(), limits, strict=True):
                into.append(each.low <= auc <= each.high)
            if number < cohorts // 4:
                won = score[positive][:, None] > score[~positive]
                drawn = ((weights[:, positive] @ won) * weights[:, ~positive]).sum(
                    axis=1
                ) / won.size
                low, high = np.quantile(drawn, [0.025, 0.975])
                shares.append(bool(low <= auc <= high))
        held["case bootstrap"] = shares
        for method, each in held.items():
            aim = ".93 or more" if method in ("Newcombe 5", "DeLong, logit") else ""
            yield (
                "AUC",
                f"{n_neg} + {n_pos}",
                f"{auc}",
                method,
                float(np.mean(each)),
                aim,
                len(each),
            )


def noise_through_folds(cohorts: int) -> Iterator[Row]:
    """Scores out of 5 folds of models on random columns: is .5 in the interval?"""
    for classes, n, columns in ((2, 40, 8), (2, 20, 30), (4, 40, 30)):
        rng = np.random.default_rng(n * columns * classes)
        truth = np.arange(n) % classes
        held: dict[str, list[bool]] = {"Newcombe 5": [], "DeLong, logit": []}
        for _ in range(cohorts // 10):
            x, p = rng.normal(size=(n, columns)), np.empty((n, classes))
            folds = StratifiedKFold(5, shuffle=True, random_state=int(rng.integers(2**31)))
            for train, test in folds.split(x, truth):
                p[test] = LogisticRegression().fit(x[train], truth[train]).predict_proba(x[test])
            limits = (
                macro_auc_interval(truth, p),
                of_auc.logit_delong_macro_auc(truth, [p]),
            )
            for into, each in zip(held.values(), limits, strict=True):
                into.append(each.low <= 0.5 <= each.high)
        for method, inside in held.items():
            where = f"{n} of {classes} classes"
            found = float(np.mean(inside))
            yield (
                "AUC, out of fold",
                where,
                f".5, {columns} columns",
                method,
                found,
                "",
                len(inside),
            )
    yield _noise_of_survival(cohorts // 10)


def _noise_of_survival(cohorts: int) -> Row:
    """The same of Harrell's C, by ridge-penalised Cox regressions; three cases of ten are censored."""
    rng, n, columns = np.random.default_rng(0), 40, 8
    inside = []
    for _ in range(cohorts):
        x, risk = rng.normal(size=(n, columns)), np.empty(n)
        followed, event = rng.exponential(size=n), rng.random(n) < 0.7
        for train, test in KFold(5, shuffle=True, random_state=int(rng.integers(2**31))).split(x):
            fitted = fit_cox(x[train], followed[train], event[train], ridge=1.0)
            risk[test] = (x[test] - x[train].mean(axis=0)) @ fitted.coefficients
        each = harrell_interval(followed, event, risk)
        inside.append(each.low <= 0.5 <= each.high)
    found = float(np.mean(inside))
    return (
        "Harrell's C, out of fold",
        str(n),
        f".5, {columns} columns",
        "logit",
        found,
        "",
        cohorts,
    )


def shares_of_cases(_: int) -> Iterator[Row]:
    """Every count of so many cases, weighed by its probability; the least over 99 truths."""
    for n, (name, interval) in product((5, 10, 20, 50), INTERVALS.items()):
        limits = [interval(k, n) for k in range(n + 1)]
        covers = []
        for share in np.arange(1, 100) / 100:
            inside = [each.low <= share <= each.high for each in limits]
            covers.append(float(np.sum(binom.pmf(range(n + 1), n, share) * inside)))
        aim = ".95 or more" if name != "wilson" else ""
        yield "a share, least", str(n), ".01 to .99", name, min(covers), aim, 0
        yield "a share, mean", str(n), ".01 to .99", name, float(np.mean(covers)), "", 0


def predictive_values(_: int) -> Iterator[Row]:
    """PPV at a prevalence of .3, over all outcomes; the least over sensitivity and specificity .5 to .95."""
    for m, n in ((5, 15), (10, 10), (15, 15), (25, 25)):
        outcomes = list(product(range(m + 1), range(n + 1)))
        limits = [intervals.predictive_value((a, m), (b, n), 0.3)[1] for a, b in outcomes]
        covers = []
        for sens, spec in product((0.5, 0.6, 0.7, 0.8, 0.9, 0.95), repeat=2):
            true = sens * 0.3 / (sens * 0.3 + (1 - spec) * 0.7)
            weight = np.outer(
                binom.pmf(range(m + 1), m, sens), binom.pmf(range(n + 1), n, spec)
            ).ravel()
            covers.append(float(weight @ [each.low <= true <= each.high for each in limits]))
        row = ("PPV at .3", f"{m} + {n}", ".5 to .95")
        yield *row, "ratio of Wilson limits, least", min(covers), ".91 or more", 0
        yield *row, "ratio of Wilson limits, mean", float(np.mean(covers)), "", 0


def confusion_numbers(cohorts: int) -> Iterator[Row]:
    """Macro F1 and kappa where all classes are called equally well."""
    for counts, sens in product(((10, 10), (5,) * 4, (10,) * 3, (25, 25)), (0.6, 0.8, 0.95)):
        rng = np.random.default_rng(sum(counts))
        size, truth = len(counts), np.repeat(np.arange(len(counts)), counts)
        p = np.full((size, size), (1 - sens) / (size - 1)) + np.eye(size) * (
            sens - (1 - sens) / (size - 1)
        )
        weights, left = case_weights(truth, RESAMPLES, 0), leave_one_out(len(truth))
        held: dict[tuple[str, str], list[bool]] = {}
        n = cohorts // 8
        for _ in range(n):
            calls = np.concatenate(
                [rng.choice(size, c, p=row) for c, row in zip(counts, p, strict=True)]
            )
            cells = np.eye(size * size)[truth * size + calls]
            table, drawn, without = (
                (w @ cells).reshape(-1, size, size)
                for w in (np.ones((1, len(truth))), weights, left)
            )
            for name, metric in (("macro F1", macro_f1), ("kappa", kappa)):
                true, value = float(metric(p * np.array(counts)[:, None])), float(metric(table)[0])
                limits = {
                    "Dirichlet": intervals.confusion_interval(metric, table[0], draws=RESAMPLES),
                    "bootstrap, percentile": percentile(metric(drawn)),
                    "bootstrap, BCa": bca(value, metric(drawn), metric(without), truth),
                }
                for method, each in limits.items():
                    inside = each is not None and each.low <= true <= each.high
                    held.setdefault((name, method), []).append(inside)
        for (name, method), each in held.items():
            aim = ".89 or more" if method == "Dirichlet" else ""
            where = " + ".join(map(str, counts))
            yield name, where, f"sensitivity {sens}", method, float(np.mean(each)), aim, n


def scores_of_probabilities(cohorts: int) -> Iterator[Row]:
    """Average precision and Brier score of softmax probabilities: a model that guesses, and two that know."""
    for counts, temperature in product(((10, 10), (12, 6, 6), (20, 20), (5,) * 4), (1.0, 2.5)):
        truth, size = np.repeat(np.arange(len(counts)), counts), len(counts)
        for accuracy in (1 / size, 0.7, 0.9):
            rng = np.random.default_rng(sum(counts))
            shift = _shift(size, accuracy)
            cohort = partial(_probabilities, rng, shift * np.eye(size)[truth], temperature)
            known = [cohort() for _ in range(4000)]
            inside: dict[tuple[str, str], list[bool]] = {}
            for name, metric, limits in (
                ("average precision", _mean_precision, _precision_limits),
                ("Brier score", lambda y, p: float(brier(y, p).mean()), _brier_limits),
            ):
                if name == "average precision" and temperature != 1:
                    continue  # it knows the order alone
                true = float(np.mean([metric(truth, p) for p in known]))
                for _ in range(cohorts // 8):
                    for method, (low, high) in limits(truth, cohort()).items():
                        inside.setdefault((name, method), []).append(low <= true <= high)
            where = " + ".join(map(str, counts))
            for (name, method), hits in inside.items():
                aim = "" if "bootstrap" in method else ".93 or more"
                level = f"accuracy {accuracy:.2f}, logits x {temperature}"
                yield name, where, level, method, float(np.mean(hits)), aim, cohorts // 8


def _shift(size: int, accuracy: float) -> float:
    """How far the logit of the true class is moved for this accuracy, all others being standard normal."""
    z, true = np.random.default_rng(0).normal(size=(40_000, size)), np.eye(size)[0]
    return float(brentq(lambda at: np.mean(predicted(z + at * true) == 0) - accuracy, -0.5, 8))


def _probabilities(rng: np.random.Generator, shift: Floats, temperature: float) -> Floats:
    return softmax(temperature * (rng.normal(size=shift.shape) + shift), axis=1)


def _mean_precision(truth: Ints, p: Floats) -> float:
    estimate = average_precisions(truth, [p])[-1]
    return float(estimate.value or 0.0)


def _precision_limits(truth: Ints, p: Floats) -> dict[str, tuple[float, float]]:
    n, estimate = len(truth), average_precisions(truth, [p])[-1]
    weights = np.vstack([np.ones(n), leave_one_out(n), case_weights(truth, RESAMPLES, 0)])
    of_class = [average_precision(truth == k, p[:, k], weights) for k in range(p.shape[1])]
    values = of_class[1] if len(of_class) == 2 else np.mean(of_class, axis=0)
    limits = bca(values[0], values[1 + n :], values[1 : 1 + n], truth)
    return {
        estimate.method: (float(estimate.low or 0.0), float(estimate.high or 0.0)),
        "bootstrap, BCa": (limits.low, limits.high) if limits else (np.nan, np.nan),
    }


def _brier_limits(truth: Ints, p: Floats) -> dict[str, tuple[float, float]]:
    n, losses = len(truth), brier(truth, p)
    one, two = case_weights(truth, RESAMPLES, 0) @ losses / n, leave_one_out(n) @ losses / (n - 1)
    limits, drawn = (
        intervals.bounded_mean_interval(losses, 2.0),
        bca(losses.mean(), one, two, truth),
    )
    return {
        limits.method: (limits.low, limits.high),
        "bootstrap, BCa": (drawn.low, drawn.high) if drawn else (np.nan, np.nan),
    }


def calibration_slopes(cohorts: int) -> Iterator[Row]:
    """Labels drawn by the probabilities: the slope is 1, the intercept 0."""
    for n in (20, 30, 50, 100):
        rng = np.random.default_rng(n)
        held: dict[str, list[bool]] = {"slope": [], "intercept": []}
        undefined = 0
        for _ in range(cohorts):
            p = expit(rng.normal(0, 1.5, n))
            found = slope_and_intercept(rng.random(n) < p, p)
            if found is None:
                undefined += 1
                continue
            for into, (value, error), true in zip(held.values(), found, (1.0, 0.0), strict=True):
                into.append(abs(value - true) <= 1.96 * error)
        for name, inside in held.items():
            aim = ".93 or more"
            yield (
                f"calibration {name}",
                str(n),
                "perfect",
                "Wald",
                float(np.mean(inside)),
                aim,
                len(inside),
            )
        yield (
            "calibration",
            str(n),
            "perfect",
            "separated: undefined",
            undefined / cohorts,
            "",
            cohorts,
        )


def tests_without_a_difference(cohorts: int) -> Iterator[Row]:
    """Two models equally good, whose scores of a case resemble one another (correlation .5)."""
    for counts in ((10, 10), (15, 15), (25, 25), (5,) * 4):
        rng = np.random.default_rng(sum(counts))
        truth = np.repeat(np.arange(len(counts)), counts)
        names, fold = tuple(map(str, range(len(truth)))), np.zeros(len(truth), np.int64)
        found: dict[str, list[float]] = {"McNemar, exact": [], "paired DeLong": []}
        differences = []
        for _ in range(cohorts):
            shared = rng.normal(size=(len(truth), len(counts)))
            models = []
            for _model in range(2):
                own = rng.normal(size=shared.shape)
                line = np.exp((shared + own) / 2**0.5 + 1.2 * np.eye(len(counts))[truth])
                models.append(
                    CaseScores(names, truth, line / line.sum(axis=1, keepdims=True), fold)
                )
            right = [predicted(each.p) == truth for each in models]
            b, c = int(np.sum(right[0] & ~right[1])), int(np.sum(right[1] & ~right[0]))
            found["McNemar, exact"].append(mcnemar_exact(b, c))
            test = delong_test(models[:1], models[1:])
            found["paired DeLong"].append(1.0 if test is None else test.p)
            differences.append(brier(truth, models[0].p) - brier(truth, models[1].p))
        found["swapped Brier scores"] = [
            p for part in np.array_split(np.array(differences), 20) for p in permutation_tests(part)
        ]
        for method, p in found.items():
            where = " + ".join(map(str, counts))
            share = float(np.mean(np.array(p) <= 0.05))
            yield "false alarms", where, "no difference", method, share, ".07 or less", cohorts


def folds_without_a_difference(cohorts: int) -> Iterator[Row]:
    """Nearest class mean on two sets of columns, equally good, 60 cases, 5 folds x 3 repeats."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 30)
    plain, corrected = [], []
    for _ in range(cohorts // 4):
        x = rng.normal(size=(2, 60, 8)) + 0.35 * truth[:, None]
        differences = []
        for _repeat in range(3):
            fold = np.concatenate([rng.permutation(30) % 5, rng.permutation(30) % 5])
            for k in range(5):
                train, test = fold != k, fold == k
                right = []
                for columns in x:
                    means = [columns[train & (truth == c)].mean(axis=0) for c in (0, 1)]
                    far = [((columns[test] - mean) ** 2).sum(axis=1) for mean in means]
                    right.append(np.mean((far[1] < far[0]) == truth[test]))
                differences.append(right[0] - right[1])
        each = np.array(differences)
        plain.append(float(ttest_1samp(each, 0).pvalue) if np.ptp(each) else 1.0)
        corrected.append(corrected_t(each, 0.25))
    for method, p, aim in (
        ("t over folds, Nadeau-Bengio", corrected, ".07 or less"),
        ("t over folds, plain", plain, ""),
    ):
        share = float(np.mean([each is not None and each <= 0.05 for each in p]))
        yield "false alarms", "30 + 30", "no difference", method, share, aim, cohorts // 4


def power_of_mcnemar(_: int) -> Iterator[Row]:
    for n in (20, 30, 50, 100, 250):
        yield "power", str(n), "15 points", "McNemar, exact", mcnemar_power(n, 0.15), "", 0


def conformal_sets(cohorts: int) -> Iterator[Row]:
    """New cases of a class, 90 % promised."""
    for n in (9, 12, 25, 50):
        rng = np.random.default_rng(n)
        covers = [
            float(norm.sf(logit(threshold(expit(rng.normal(1, 1, n)), 0.9)) - 1))
            for _ in range(cohorts)
        ]
        limits = future_coverage(n, 0.9)
        inside = np.mean([limits.low <= each <= limits.high for each in covers])
        row = ("conformal sets", f"{n} of the class", "90 % promised")
        yield *row, "mean coverage of new cases", float(np.mean(covers)), ".895 or more", cohorts
        yield *row, "cohorts within the Beta band", float(inside), ".94 or more", cohorts


PARTS: dict[str, Callable[[int], Iterator[Row]]] = {
    "AUC": auc_intervals,
    "noise": noise_through_folds,
    "shares": shares_of_cases,
    "predictive": predictive_values,
    "confusion": confusion_numbers,
    "probabilities": scores_of_probabilities,
    "calibration": calibration_slopes,
    "tests": tests_without_a_difference,
    "folds": folds_without_a_difference,
    "power": power_of_mcnemar,
    "conformal": conformal_sets,
}


def met(found: float, aim: str) -> bool:
    """Whether a row reaches its aim; one without an aim is there to compare with."""
    if not aim:
        return True
    bound = float(aim.split()[0])
    return found <= bound if aim.endswith("less") else found >= bound


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohorts", type=int, default=4000)
    parser.add_argument("--only", choices=PARTS, help="one part of the table")
    asked = parser.parse_args()
    rows, missed, started = [], 0, time.process_time()
    for name in [asked.only] if asked.only else PARTS:
        for what, cases, truth, method, found, aim, cohorts in PARTS[name](asked.cohorts):
            shown = aim if met(found, aim) else f"{aim} MISSED"
            missed += not met(found, aim)
            rows.append([what, cases, truth, method, f"{found:.3f}", shown, str(cohorts or "all")])
        print(f"{name}: {time.process_time() - started:.0f} CPU s", flush=True)
    print_table(HEADER, rows)
    print(f"{missed} aims missed")
    name = f"intervals-{asked.only}" if asked.only else "intervals"
    settings = {"cohorts": asked.cohorts, "cpu_s": round(time.process_time() - started)}
    save(name, HEADER, rows, settings)


if __name__ == "__main__":
    main()
