"""Who trains and who is tested: folds of whole cases."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from features.files.atomic import write_atomic
from features.files.parse import parse_json
from features.summary import listed
from mil.errors import CohortError, LeakageError, RunError
from mil.settings import SplitSettings


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One part of a cross-validation: names of cases.

    Raises:
        LeakageError: a case stands on both sides.
    """

    repeat: int
    index: int
    train: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        shared = sorted(set(self.train) & set(self.test))
        if shared:
            raise LeakageError(
                f"Repeat {self.repeat}, fold {self.index}: {', '.join(shared[:5])} would train and be "
                "tested. Put each case on one side."
            )

    @property
    def name(self) -> str:
        """Of its files and folders in a run."""
        return f"r{self.repeat}-f{self.index}"


def split_cases(
    names: Sequence[str],
    labels: Sequence[str],
    sites: Sequence[str],
    settings: SplitSettings,
    *,
    group: str = "class",
) -> tuple[Fold, ...]:
    """Divide cases into folds; within a repeat each case is tested once.

    With stratified folds the classes are spread evenly: five cases per class and five folds give one
    case per class in each test part.

    Args:
        names: n case names.
        labels: n classes.
        sites: n sites; read only when folds are ``site``.
        settings: number and kind of folds, repeats, seed.
        group: what a label is called in messages.

    Raises:
        CohortError: the cohort cannot carry the folds asked for.

    Example:
        cohort = mil.load_cohort("cohort.csv", "store")
        sites = [case.site for case in cohort.cases]
        folds = mil.split_cases(cohort.names, cohort.labels, sites, mil.SplitSettings(folds="5"))
        print(folds[0].test)
    """
    if settings.folds == "site":
        parts = [_by_site(names, sites)]
    elif settings.folds == "loo":
        _check_classes(labels, 2, "leave-one-out needs", group)
        parts = [[(name,) for name in names]]
    else:
        n_folds = int(settings.folds)
        _check_classes(labels, n_folds, f"{n_folds} folds need", group)
        parts = [
            _stratified(names, labels, n_folds, [settings.seed, repeat])
            for repeat in range(settings.repeats)
        ]
    folds = tuple(
        Fold(
            repeat=repeat,
            index=index,
            train=tuple(name for name in names if name not in test),
            test=test,
        )
        for repeat, tests in enumerate(parts)
        for index, test in enumerate(tests)
    )
    _check_training(folds, dict(zip(names, labels, strict=True)), group)
    return folds


def site_warning(folds: Sequence[Fold], labels: Mapping[str, str]) -> str:
    """What a reader should know of folds by site where sites and classes go together; empty if they do not.

    Args:
        folds: one site left out in each.
        labels: of the cases, by name.
    """
    usual = 0
    for fold in folds:
        counts = Counter(labels[name] for name in fold.train)
        usual += sum(counts[labels[name]] == max(counts.values()) for name in fold.test)
    n_tests = sum(len(fold.test) for fold in folds)
    if usual >= n_tests * max(Counter(labels.values()).values()) / len(labels) / 2:
        return ""
    return (
        f"Sites and classes go together: {usual} of {n_tests} cases are of the class that is most frequent "
        "at the other sites. Whatever follows the frequencies of classes, as majority does, comes out worse "
        "than guessing, with AUCs below .5. The results tell what a model reaches at a site that it has not "
        "seen; with folds=5 they tell what it reaches at these sites, by the tumour or by the site."
    )


def inner_split(
    names: Sequence[str], labels: Sequence[str], seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Set a stratified fifth of the training cases aside to choose an epoch by: (train, valid)."""
    counts = Counter(labels)
    if lonely := sorted(label for label, count in counts.items() if count < 2):
        raise CohortError(
            f"Early stopping needs two training cases with every label; {listed(lonely)} has 1. Set "
            "early_stopping to never."
        )
    rng = np.random.default_rng(seed)
    aside: set[str] = set()
    for label in sorted(set(labels)):
        members = [name for name, other in zip(names, labels, strict=True) if other == label]
        chosen = rng.permutation(len(members))[: max(1, round(len(members) / 5))]
        aside |= {members[i] for i in chosen}
    return (
        tuple(name for name in names if name not in aside),
        tuple(name for name in names if name in aside),
    )


def write_folds(path: Path, folds: Sequence[Fold]) -> None:
    """Write folds as JSON, to be looked at and used again."""
    write_atomic(path, _text(folds))


def folds_sha256(folds: Sequence[Fold]) -> str:
    """Fingerprint of folds: that of the file ``write_folds`` makes."""
    return hashlib.sha256(_text(folds).encode()).hexdigest()


def read_folds(path: Path) -> tuple[Fold, ...]:
    """Read folds as ``write_folds`` wrote them.

    Raises:
        RunError: the file is missing or malformed.
    """
    try:
        return tuple(
            Fold(
                repeat=int(fold["repeat"]),
                index=int(fold["index"]),
                train=tuple(map(str, fold["train"])),
                test=tuple(map(str, fold["test"])),
            )
            for fold in parse_json(path.read_text(encoding="utf-8"))
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not a file of folds ({error!r}). Cross-validate again.") from error


def _text(folds: Sequence[Fold]) -> str:
    return json.dumps([asdict(fold) for fold in folds], indent=1) + "\n"


def _stratified(
    names: Sequence[str], labels: Sequence[str], n_folds: int, seeds: Sequence[int]
) -> list[tuple[str, ...]]:
    from sklearn.model_selection import StratifiedKFold

    # A sequence, not a sum: seed 0, repeat 1 must not be seed 1, repeat 0.
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    return [tuple(names[i] for i in test) for _, test in splitter.split(names, labels)]


def _by_site(names: Sequence[str], sites: Sequence[str]) -> list[tuple[str, ...]]:
    lacking = [name for name, site in zip(names, sites, strict=True) if not site]
    if lacking:
        raise CohortError(
            f"folds=site, but {len(lacking)} of {len(names)} cases have no site, e.g. {lacking[0]!r}. Fill "
            "the site column of the table, or use folds=5."
        )
    by_site: dict[str, list[str]] = {}
    for name, site in zip(names, sites, strict=True):
        by_site.setdefault(site, []).append(name)
    if len(by_site) < 2:
        raise CohortError("folds=site, but the cohort has one site only. Use folds=5.")
    return [tuple(by_site[site]) for site in sorted(by_site)]


def _check_classes(labels: Sequence[str], needed: int, lead: str, group: str) -> None:
    counts = Counter(labels)
    scarce = {label: count for label, count in counts.items() if count < needed}
    if scarce:
        listing = listed([f"{count} of {label!r}" for label, count in sorted(scarce.items())])
        fewest = min(scarce.values())
        remedy = f"Use folds={fewest}, merge" if fewest >= 2 else "Merge"
        raise CohortError(
            f"{lead} {needed} cases of every {group}, but the cohort has only {listing}. {remedy} "
            f"{'it' if len(scarce) == 1 else 'each'} with another {group}, or add cases."
        )


def _check_training(folds: Sequence[Fold], label_of: dict[str, str], group: str) -> None:
    """A class that no training case has can never be predicted: its cases would count as errors."""
    classes = set(label_of.values())
    for fold in folds:
        absent = classes - {label_of[name] for name in fold.train}
        if absent:
            raise CohortError(
                f"Fold {fold.index} would train without any case of {group} {' or '.join(sorted(absent))}. "
                f"Use other folds, or merge it with another {group}."
            )
