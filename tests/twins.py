"""Slow twins: each fast function's definition in plain loops, for comparison on small cases."""

import math
from statistics import NormalDist


def auc(positive, score):
    """Share of pairs in which the positive scores higher; a tie is half a pair."""
    pairs = won = 0.0
    for a, x in zip(positive, score, strict=True):
        for b, y in zip(positive, score, strict=True):
            if a and not b:
                pairs += 1
                won += 1.0 if x > y else 0.5 if x == y else 0.0
    return won / pairs


def macro_auc(truth, p):
    """Mean over classes of each class's AUC against the rest; class 1 alone of two."""
    n_classes = len(p[0])
    asked = [1] if n_classes == 2 else range(n_classes)
    found = [auc([t == k for t in truth], [row[k] for row in p]) for k in asked]
    return sum(found) / len(found)


def kernel(x, y):
    return 1.0 if x > y else 0.5 if x == y else 0.0


def sample_variance(values):
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def delong_variance(positive, score):
    """S10 / m + S01 / n of DeLong's equations (4) to (6), one curve."""
    xs = [s for a, s in zip(positive, score, strict=True) if a]
    ys = [s for a, s in zip(positive, score, strict=True) if not a]
    v10 = [sum(kernel(x, y) for y in ys) / len(ys) for x in xs]
    v01 = [sum(kernel(x, y) for x in xs) / len(xs) for y in ys]
    return sample_variance(v10) / len(xs) + sample_variance(v01) / len(ys)


def shared_variance(truth, p):
    """Variance of the mean of the C AUCs, cases drawn within class, over their mean variance."""
    n_classes, n = len(p[0]), len(truth)
    influence = [0.0] * n
    for k in range(n_classes):
        own = [i for i in range(n) if truth[i] == k]
        rest = [i for i in range(n) if truth[i] != k]
        for i in own:
            influence[i] += sum(kernel(p[i][k], p[j][k]) for j in rest) / len(rest) / len(own)
        for j in rest:
            influence[j] += sum(kernel(p[i][k], p[j][k]) for i in own) / len(own) / len(rest)
    macro = 0.0
    # Within a class every case misses the same constants, which a variance does not see.
    for c in range(n_classes):
        mine = [influence[i] / n_classes for i in range(n) if truth[i] == c]
        macro += len(mine) * sample_variance(mine)
    single = sum(
        delong_variance([t == k for t in truth], [row[k] for row in p]) for k in range(n_classes)
    )
    if single == 0:
        return 1.0
    return min(1.0, max(1 / n_classes, macro / (single / n_classes)))


def z_of(confidence):
    return NormalDist().inv_cdf((1 + confidence) / 2)


def bisect(inside, kept, end):
    """Last value on the way from `kept` to `end` for which `inside` holds."""
    if inside(end):
        return end
    for _ in range(200):
        middle = (kept + end) / 2
        if inside(middle):
            kept = middle
        else:
            end = middle
    return kept


def wilson(successes, n, confidence=0.95):
    """All shares that the score test does not reject."""
    share, z = successes / n, z_of(confidence)

    def inside(theta):
        return abs(share - theta) <= z * math.sqrt(theta * (1 - theta) / n)

    near = 1e-9  # the score test's variance is 0 at 0 and 1 themselves
    start = min(max(share, near), 1 - near)
    return (
        0.0 if share == 0 else bisect(inside, start, 0.0),
        1.0 if share == 1 else bisect(inside, start, 1.0),
    )


def newcombe(auc_value, counts, shared=1.0, confidence=0.95):
    """All AUCs within z standard errors, the error taken at the AUC tried; mean over classes."""
    z, total = z_of(confidence), sum(counts)

    def variance(theta):
        found = 0.0
        for m in counts:
            n = total - m
            star = (m + n) / 2 - 1
            bracket = 1 + star * (1 - theta) / (2 - theta) + star * theta / (1 + theta)
            found += theta * (1 - theta) / (m * n) * bracket / len(counts)
        return found * shared

    def inside(theta):
        return abs(theta - auc_value) <= z * math.sqrt(variance(theta))

    near = 1e-9
    start = min(max(auc_value, near), 1 - near)
    return (
        0.0 if auc_value == 0 else bisect(inside, start, 0.0),
        1.0 if auc_value == 1 else bisect(inside, start, 1.0),
    )


def mcnemar_exact(b, c):
    """Sum of the binomial probabilities no greater than that of what was seen."""
    n = b + c
    chance = [math.comb(n, k) / 2**n for k in range(n + 1)]
    return min(1.0, sum(each for each in chance if each <= chance[b] * (1 + 1e-9)))


def holm(p):
    """Largest of (m - j + 1) p_(j) over every p no greater than mine, at most 1."""
    ranked = sorted(range(len(p)), key=lambda i: (p[i], i))
    adjusted = []
    for i in range(len(p)):
        upto = ranked[: ranked.index(i) + 1]
        adjusted.append(min(1.0, max((len(p) - j) * p[k] for j, k in enumerate(upto))))
    return adjusted


def confusion(truth, p):
    """Counts; the first of equally probable classes is called."""
    counts = [[0] * len(p[0]) for _ in p[0]]
    for t, row in zip(truth, p, strict=True):
        counts[t][list(row).index(max(row))] += 1
    return counts


def macro_f1(counts):
    """Mean over classes of the harmonic mean of precision and sensitivity."""
    found = []
    for k in range(len(counts)):
        hits, own, called = counts[k][k], sum(counts[k]), sum(row[k] for row in counts)
        precision, recall = hits / called if called else 0, hits / own
        found.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return sum(found) / len(found)


def mcc(truth, called):
    """Correlation of the two indicator matrices, summed over classes (Gorodkin 2004, eq. 1 to 4)."""
    classes, n = sorted({*truth, *called}), len(truth)

    def covariance(a, b):
        total = 0.0
        for k in classes:
            x, y = [int(v == k) for v in a], [int(v == k) for v in b]
            mx, my = sum(x) / n, sum(y) / n
            total += sum((i - mx) * (j - my) for i, j in zip(x, y, strict=True)) / n
        return total

    both = covariance(truth, truth) * covariance(called, called)
    return covariance(truth, called) / math.sqrt(both) if both else 0.0


def kappa(counts):
    """(observed - expected) / (1 - expected) agreement."""
    n = sum(map(sum, counts))
    observed = sum(counts[k][k] for k in range(len(counts))) / n
    expected = (
        sum(sum(counts[k]) * sum(row[k] for row in counts) for k in range(len(counts))) / n**2
    )
    return (observed - expected) / (1 - expected)


def average_precision(positive, score):
    """Area under the steps of precision over recall, one step per distinct score."""
    area = recall = 0.0
    for threshold in sorted(set(score), reverse=True):
        called = [a for a, s in zip(positive, score, strict=True) if s >= threshold]
        now = sum(called) / sum(positive)
        area += (now - recall) * sum(called) / len(called)
        recall = now
    return area


def delong_paired(positive, first, second):
    """Difference of two AUCs and its variance: that of one curve of the two kernels' difference."""
    own = [i for i, a in enumerate(positive) if a]
    rest = [i for i, a in enumerate(positive) if not a]

    def won(i, j):
        return kernel(first[i], first[j]) - kernel(second[i], second[j])

    v10 = [sum(won(i, j) for j in rest) / len(rest) for i in own]
    v01 = [sum(won(i, j) for i in own) / len(own) for j in rest]
    value = sum(v10) / len(own)
    return value, sample_variance(v10) / len(own) + sample_variance(v01) / len(rest)


def calibration_error(truth, p):
    """Sum over bins of |cases right - probability said| / n; bins by the probability of the call."""
    said, right = [max(row) for row in p], []
    for t, row in zip(truth, p, strict=True):
        right.append(list(row).index(max(row)) == t)
    count = min(10, max(2, len(said) // 5))
    ranked = sorted(said)
    edges = [ranked[int(i / count * (len(said) - 1))] for i in range(1, count)]
    total = 0.0
    for bin_ in range(count):
        own = [i for i, s in enumerate(said) if sum(s > edge for edge in edges) == bin_]
        total += abs(sum(right[i] - said[i] for i in own))
    return total / len(said)


def conformal_sets(truth, p, coverage):
    """Class k stays while enough of its other cases, and the case itself, are as strange."""
    n, n_classes = len(p), len(p[0])
    sets = [[False] * n_classes for _ in range(n)]
    for i in range(n):
        for k in range(n_classes):
            others = [j for j in range(n) if truth[j] == k and j != i]
            strange = sum(1 - p[j][k] >= 1 - p[i][k] for j in others) + 1
            sets[i][k] = strange > round((1 - coverage) * (len(others) + 1), 9)
    return sets
