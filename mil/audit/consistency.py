"""Consistency of published results: whether the numbers of a row can come from the same cases.

Accuracy, sensitivity, specificity, precision and F1 are functions of four counts, so most tables are
overdetermined. Every number stands for the range that its printed digits allow: .83 is anything from .825 to
.835. A row is impossible only where no counts agree with all ranges.

The rules are for two classes. A row of more classes (column ``classes``) contains means over the classes, for
which fewer rules exist.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mil.audit.published import PARTS, SLACK, Printed, Published, complete_counts
from mil.distributions import norm

OUT_OF = {
    "accuracy": ("n",), "sensitivity": ("n_pos",), "specificity": ("n_neg",), "precision": ("tp", "fp"),
    "npv": ("tn", "fn"),
}  # fmt: skip
RIGHT = {
    "accuracy": ("tp", "tn"), "sensitivity": ("tp",), "specificity": ("tn",), "precision": ("tp",),
    "npv": ("tn",),
}  # fmt: skip
METHODS: dict[str, Literal["wilsoncc", "wilson", "exact"]] = {
    "Wilson with continuity correction": "wilsoncc", "Wilson": "wilson", "Clopper-Pearson": "exact",
}  # fmt: skip
MOST_TABLES = (
    5_000_000  # tables of counts tried for a row; a row that allows more is hardly constrained
)


@dataclass(frozen=True)
class Finding:
    """Result of a rule for a row.

    Attributes:
        line: line in the file.
        name: name of the row.
        rule: name of the rule.
        impossible: True where no cases can give these numbers; otherwise the finding is a remark.
        text: the numbers in words.
    """

    line: int
    name: str
    rule: str
    impossible: bool
    text: str


def check_published(rows: Sequence[Published]) -> tuple[Finding, ...]:
    """Apply all rules to all rows; impossible rows come first."""
    findings = (finding for row in rows for finding in check_row(row))
    return tuple(sorted(findings, key=lambda finding: not finding.impossible))


def check_row(row: Published) -> tuple[Finding, ...]:
    """Apply all rules to one row."""
    rules = _MULTICLASS if row.counts.get("classes", 2) > 2 else _RULES
    findings = [
        Finding(row.line, row.name, name, impossible, text)
        for name, impossible, rule in rules
        for text in rule(row)
    ]
    if not any(finding.impossible for finding in findings) and rules is _RULES:
        findings += [Finding(row.line, row.name, "one table", True, t) for t in _one_table(row)]  # noqa: FBT003
    return tuple(findings)


def _range(row: Published) -> Iterator[str]:
    for name, rate in row.rates.items():
        if not rate.meets(0, 1):
            yield f"{name} {rate.text} is not a share of anything."
        if rate.limits and not (
            rate.limits[0].low <= rate.high + SLACK and rate.low <= rate.limits[1].high + SLACK
        ):
            yield f"{name} {rate.text} lies outside its own interval."


def _sums(row: Published) -> Iterator[str]:
    counts = row.counts
    for whole, parts in PARTS.items():
        known = [part for part in parts if part in counts]
        total = sum(counts[part] for part in known)
        if whole in counts and (
            total > counts[whole] or (len(known) == 2 and total < counts[whole])
        ):
            named = " and ".join(f"{part} {counts[part]}" for part in known)
            yield f"{named} make {total}, not the {counts[whole]} of {whole}."


def _whole(row: Published) -> Iterator[str]:
    """A share of n cases is k / n with a whole k."""
    counts = complete_counts(row.counts)
    if row.averaged:
        return
    if {"n", "n_pos"} <= counts.keys() and "prevalence" in row.rates:
        share, prevalence = counts["n_pos"] / counts["n"], row.rates["prevalence"]
        if not prevalence.meets(share, share):
            yield f"prevalence {prevalence.text}, but {counts['n_pos']} of {counts['n']} are {share:.2%}."
    for name, parts in OUT_OF.items():
        if name not in row.rates or not set(parts) <= counts.keys():
            continue
        rate, n = row.rates[name], sum(counts[part] for part in parts)
        if n > 0 and set(RIGHT[name]) <= counts.keys():
            k = sum(counts[part] for part in RIGHT[name])
            if not rate.meets(k / n, k / n):
                yield f"{name} {rate.text}, but {k} of {n} cases are {k / n:.2%}."
        elif n > 0 and not len(_counts_in(rate, n)):
            k = math.floor(rate.value * n)
            yield (
                f"{name} {rate.text} is no share of {n} cases: {k} would be {k / n:.2%}, {k + 1} "
                f"{(k + 1) / n:.2%}."
            )


def _between(row: Published) -> Iterator[str]:
    """Accuracy is a mean of sensitivity and specificity, weighted by the share of positives."""
    if not {"accuracy", "sensitivity", "specificity"} <= row.rates.keys():
        return
    accuracy, sides = row.rates["accuracy"], (row.rates["sensitivity"], row.rates["specificity"])
    # Ranges that only touch could be one number, printed in two ways.
    above = accuracy.low >= max(side.high for side in sides) - SLACK
    if not above and accuracy.high > min(side.low for side in sides) + SLACK:
        return
    yield (
        f"accuracy {accuracy.text} is {'above' if above else 'below'} both sensitivity {sides[0].text} and "
        f"specificity {sides[1].text}, of which it is a weighted mean"
        + (
            "; folds with equal shares of positives cannot average to it either."
            if row.averaged
            else "."
        )
    )


def _f1(row: Published) -> Iterator[str]:
    """F1 is the harmonic mean of precision and sensitivity; for means over folds at most that."""
    if not {"f1", "precision", "sensitivity"} <= row.rates.keys():
        return
    f1, p, r = (row.rates[name] for name in ("f1", "precision", "sensitivity"))
    low, high = _harmonic(p.low, r.low), _harmonic(p.high, r.high)
    averaged = row.averaged or row.counts.get("classes", 2) > 2
    # The harmonic mean is concave, so by Jensen a mean of F1 is at most the F1 of the means.
    if not f1.meets(0.0 if averaged else low, high):
        yield (
            f"f1 {f1.text}, but precision {p.text} and sensitivity {r.text} give "
            f"{'at most ' if averaged else ''}{_span(low, high)}."
        )


def _prevalence(row: Published) -> Iterator[str]:
    """Precision and accuracy imply the same share of positives."""
    if row.averaged or not {"sensitivity", "specificity"} <= row.rates.keys():
        return
    shares = dict(_implied(row))
    counts = complete_counts(row.counts)
    if {"n", "n_pos"} <= counts.keys():
        share = counts["n_pos"] / counts["n"]
        shares["the counts"] = (share, share)
    for one, (low, high) in shares.items():
        for other, (least, most) in shares.items():
            if high < least - SLACK:
                yield (
                    f"with sensitivity and specificity, {one} imply {_span(low, high)} positives, {other} "
                    f"{_span(least, most)}."
                )


def _balanced(row: Published) -> Iterator[str]:
    if not {"balanced_accuracy", "sensitivity", "specificity"} <= row.rates.keys():
        return
    balanced, a, b = (row.rates[x] for x in ("balanced_accuracy", "sensitivity", "specificity"))
    if not balanced.meets((a.low + b.low) / 2, (a.high + b.high) / 2):
        yield (
            f"balanced accuracy {balanced.text}, but sensitivity {a.text} and specificity {b.text} have the "
            f"mean {(a.value + b.value) / 2:.3f}."
        )


def _one_table(row: Published) -> Iterator[str]:
    """Some table of whole counts must give all numbers at once."""
    if row.averaged or "n" not in complete_counts(row.counts):
        return
    if len(row.rates.keys() - {"auc"}) >= 2 and _no_table(row):
        rates = ", ".join(
            f"{name} {rate.text}" for name, rate in row.rates.items() if name != "auc"
        )
        counts = ", ".join(f"{name} {count}" for name, count in row.counts.items())
        yield f"no table of whole cases with {counts} gives {rates}."


def _trivial(row: Published) -> Iterator[str]:
    """Results should be above those of trivial rules."""
    counts = complete_counts(row.counts)
    if not {"n", "n_pos"} <= counts.keys() or not counts["n"]:
        return
    positive = counts["n_pos"] / counts["n"]
    always = max(positive, 1 - positive)
    if "accuracy" in row.rates and row.rates["accuracy"].high < always:
        yield (
            f"accuracy {row.rates['accuracy'].text} is below {always:.3f}, that of always naming the larger "
            "class."
        )
    if "f1" in row.rates and row.rates["f1"].high < 2 * positive / (1 + positive):
        yield (
            f"f1 {row.rates['f1'].text} is below {2 * positive / (1 + positive):.3f}, that of calling every "
            "case positive."
        )


def _intervals(row: Published) -> Iterator[str]:
    """The method of an interval, as far as its limits identify it."""
    counts = complete_counts(row.counts)
    for name, rate in row.rates.items():
        if rate.limits is None:
            continue
        if name == "auc":
            yield from _auc_limits(rate)
        elif name in OUT_OF and set(OUT_OF[name]) <= counts.keys():
            n = sum(counts[part] for part in OUT_OF[name])
            methods = {how for k in _counts_in(rate, n) for how in _reproducing(int(k), n, rate)}
            matching = " or ".join(sorted(methods)) or f"none of {', '.join([*METHODS, 'Wald'])}"
            yield f"the interval of {name} {rate.text} over {n} cases is {matching}."


def _auc_limits(rate: Printed) -> Iterator[str]:
    assert rate.limits
    low, high = rate.limits
    clipped = high.high >= 1
    if clipped or rate.meets((low.low + high.low) / 2, (low.high + high.high) / 2):
        yield (
            f"the interval of auc {rate.text} is "
            + ("cut off at 1" if clipped else "symmetric")
            + ", as Wald's is, which at few cases holds its level less often than it says."
        )


_RULES = (
    ("range", True, _range),
    ("sum of parts", True, _sums),
    ("whole cases", True, _whole),
    ("accuracy lies between", True, _between),
    ("f1 from precision and sensitivity", True, _f1),
    ("one share of positives", True, _prevalence),
    ("balanced accuracy", True, _balanced),
    ("what needs no model", False, _trivial),
    ("interval", False, _intervals),
)
_MULTICLASS = (
    ("range", True, _range),
    ("whole cases", True, _whole),
    ("f1 from precision and sensitivity", True, _f1),
    ("interval", False, _intervals),
)


def _counts_in(rate: Printed, n: int) -> range:
    """The whole numbers k with k / n in the printed range."""
    return range(
        max(0, math.ceil(rate.low * n - SLACK * n)),
        min(n, math.floor(rate.high * n + SLACK * n)) + 1,
    )


def _no_table(row: Published) -> bool:
    """Whether no (tp, tn) for any number of positives gives all rates; False where there are too many."""
    counts = complete_counts(row.counts)
    n = counts["n"]
    divisions = [counts["n_pos"]] if "n_pos" in counts else range(n + 1)
    candidates = []
    for n_pos in divisions:
        tp = _allowed(row.rates.get("sensitivity"), n_pos, counts.get("tp"))
        tn = _allowed(row.rates.get("specificity"), n - n_pos, counts.get("tn"))
        if len(tp) and len(tn):
            candidates.append((n_pos, tp, tn))
    if sum(len(tp) * len(tn) for _, tp, tn in candidates) > MOST_TABLES:
        return False
    return not any(_fits(row, n, *table) for table in candidates)


def _allowed(rate: Printed | None, n: int, known: int | None) -> range:
    """The counts of n that a rate allows."""
    if known is not None:
        return range(known, known + 1)
    if rate is None or (n == 0 and _may_be_undefined(rate)):
        return range(n + 1)
    return _counts_in(rate, n) if n else range(0)


def _may_be_undefined(rate: Printed) -> bool:
    """Whether a rate could stand for a share of no cases, which is printed as 0 or 1."""
    return rate.low <= 0 or rate.high >= 1


def _fits(row: Published, n: int, n_pos: int, tps: range, tns: range) -> bool:
    """Whether some of these counts give the rates that depend on both."""
    tp, tn = np.array(tps, dtype=float)[:, None], np.array(tns, dtype=float)[None]
    fp, fn = n - n_pos - tn, n_pos - tp
    with np.errstate(invalid="ignore", divide="ignore"):
        formulas = {
            "accuracy": (tp + tn) / n,
            "precision": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "balanced_accuracy": (tp / n_pos + tn / (n - n_pos)) / 2,
            "prevalence": np.full((1, 1), n_pos / n),
        }
    fits = np.ones((len(tps), len(tns)), dtype=bool)
    for name, rate in row.rates.items():
        if name in formulas:
            values = formulas[name]
            inside = (values >= rate.low - SLACK) & (values <= rate.high + SLACK)
            fits &= inside | (np.isnan(values) & _may_be_undefined(rate))
    return bool(fits.any())


def _implied(row: Published) -> Iterator[tuple[str, tuple[float, float]]]:
    """Pairs of a number and the (least, most) share of positives that it allows beside both rates."""
    sens, spec = row.rates["sensitivity"], row.rates["specificity"]

    def odds(value: float, hit: float, miss: float) -> float:
        """Odds of the predicted class, from the predictive value."""
        top, bottom = value * (1 - miss), (1 - value) * hit
        return top / bottom if bottom > 0 else math.inf

    def share(of: float) -> float:
        return of / (1 + of) if of < math.inf else 1.0

    if ppv := row.rates.get("precision"):
        yield (
            f"precision {ppv.text}",
            (
                share(odds(ppv.low, sens.high, spec.high)),
                share(odds(ppv.high, sens.low, spec.low)),
            ),
        )
    if npv := row.rates.get("npv"):
        yield (
            f"npv {npv.text}",
            (
                1 - share(odds(npv.high, spec.low, sens.low)),
                1 - share(odds(npv.low, spec.high, sens.high)),
            ),
        )
    if (accuracy := row.rates.get("accuracy")) and not sens.meets(spec.low, spec.high):
        corners = [
            (a - c) / (b - c)
            for a in (accuracy.low, accuracy.high)
            for b in (sens.low, sens.high)
            for c in (spec.low, spec.high)
        ]
        yield f"accuracy {accuracy.text}", (min(corners), max(corners))


def _harmonic(p: float, r: float) -> float:
    return 2 * p * r / (p + r) if p + r > 0 else 0.0


def _span(low: float, high: float) -> str:
    a, b = f"{low:.3f}", f"{high:.3f}"
    return a if a == b else f"{a} to {b}"


def _reproducing(k: int, n: int, rate: Printed) -> Iterator[str]:
    """The methods whose 95 % limits for k of n are the printed ones."""
    from scipy.stats import binomtest  # takes every audit half a second to load, for claims alone

    assert rate.limits
    made = {
        name: binomtest(k, n).proportion_ci(0.95, method=method) for name, method in METHODS.items()
    }
    half = float(norm.ppf(0.975)) * math.sqrt(k / n * (1 - k / n) / n)
    limits = {name: (float(interval.low), float(interval.high)) for name, interval in made.items()}
    limits["Wald"] = max(0.0, k / n - half), min(1.0, k / n + half)
    for name, (low, high) in limits.items():
        if rate.limits[0].meets(low, low) and rate.limits[1].meets(high, high):
            yield name
