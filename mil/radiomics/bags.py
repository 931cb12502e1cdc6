"""Bags of one row from a table of radiomics.

No outcome is read: which features stay depends on their values and on two readings of some cases alone, so
that the choice can be made before a cross-validation without a leak.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import read_bag, write_bag
from features.bags.vectors import vector_bag
from features.errors import BagError
from features.files.checksum import fingerprint
from features.files.tables import write_table
from features.slides.names import file_name
from features.summary import listed
from mil.data.names import normalised
from mil.errors import CohortError
from mil.evaluation.display import format_count
from mil.radiomics.agreement import Agreement, intraclass_correlation
from mil.radiomics.table import FeatureTable, read_feature_table
from mil.runs.files import sha256_of

IccForm = Literal["ICC2", "ICC3"]
FEATURES = "features.csv"
MANY = 3  # features of a case that are not equal by chance
FEWEST_REPEATED = 3
ROUNDED = 1e-5  # relative: a number in single precision, or in six digits
DECIMALS = range(3, 11)  # of a table that may be another, rounded
LARGEST = 1e30  # float32 ends at 3.4e38, and squares of differences are summed


@dataclass(frozen=True)
class RadiomicsBags:
    """What has been written.

    Attributes:
        tool: that the features are of.
        cases: with a bag.
        names: of the features, in the order of the bags.
        left_out: why other features are not in the bags, by name.
        incomplete: cases without a bag, and why.
        repeated: cases that were read twice.
        settings: columns that the recipe holds.
        others: columns that are used nowhere.
    """

    tool: str
    cases: tuple[str, ...]
    names: tuple[str, ...]
    left_out: dict[str, str]
    incomplete: dict[str, str]
    repeated: int = 0
    settings: dict[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()


def radiomics_bags(
    table: Path | str,
    out: Path | str,
    *,
    repeat: Path | str | None = None,
    icc: float = 0.85,
    icc_form: IccForm = "ICC2",
    columns: Sequence[str] = (),
) -> RadiomicsBags:
    """Write a bag of one row for every case of a table of radiomics.

    Features with one value for all cases, or that some case lacks, are left out; with a second reading those
    too whose ICC between both is below a bound.

    Args:
        table: a row per case, or per case and modality, which are put side by side.
        out: the store; ``features.csv`` in it lists all features and why some are left out.
        repeat: features of the cases that were drawn twice, of the second drawing.
        icc: the bound.
        icc_form: ``ICC2`` (agreement) or ``ICC3`` (consistency), see ``intraclass_correlation``.
        columns: patterns of the names of features, where no tool is recognised.

    Raises:
        CohortError: a table cannot be read, or no feature is left.
        BagError: the store holds bags of other features.

    Example:
        bags = mil.radiomics_bags("radiomics.csv", "radiomics")
        print(bags.cases, bags.names, bags.left_out)
    """
    store, second = Path(out), None if repeat is None else Path(repeat)
    if not 0 <= icc <= 1:
        raise CohortError(f"icc is {icc:g}. It lies between 0 and 1; studies take 0.75 to 0.9.")
    first = read_feature_table(Path(table), columns)
    incomplete = _incomplete(first)
    rows = [i for i, case in enumerate(first.cases) if case not in incomplete]
    left_out = _useless(first, first.values[rows])
    recipe = _recipe(first, columns)
    agreement, n_repeated = None, 0
    if second:
        agreement, n_repeated = _agreement(first, read_feature_table(second, columns))
        left_out = _unsteady(first, agreement, icc, icc_form) | left_out
        recipe["icc"] = {"form": icc_form, "bound": icc, "repeat_sha256": sha256_of(second)}
    used = [j for j, name in enumerate(first.names) if name not in left_out]
    if not used or not rows:
        raise CohortError(
            f"{table}: no {'feature' if rows else 'case'} is left of {len(first.names)} features and "
            f"{len(first.cases)} cases: {listed(sorted({*left_out.values(), *incomplete.values()}))}."
        )
    names = tuple(first.names[j] for j in used)
    recipe |= {"n_features": len(names), "features_sha256": fingerprint({"names": list(names)})}
    _write_bags(store, first, rows, first.values[:, used], recipe)
    _write_features(store / FEATURES, first.names, left_out, agreement)
    cases = tuple(first.cases[i] for i in rows)
    return RadiomicsBags(
        first.tool, cases, names, left_out, incomplete, n_repeated, first.settings, first.others
    )


def _incomplete(table: FeatureTable) -> dict[str, str]:
    """Cases without a row of one modality, or without any feature."""
    reasons = {}
    names = tuple(dict.fromkeys(table.modalities))
    of = np.array(table.modalities)
    for case, values in zip(table.cases, table.values, strict=True):
        missing = [name for name in names if np.isnan(values[of == name]).all()]
        if missing:
            reasons[case] = f"no features of {' and '.join(filter(None, missing)) or 'any kind'}"
    return reasons


def _useless(table: FeatureTable, values: NDArray[np.float64]) -> dict[str, str]:
    """Features that tell no case from another, or that cannot be stored."""
    reasons = {}
    for name, column in zip(table.names, values.T, strict=True):
        empty = int(np.isnan(column).sum())
        if empty:
            reasons[name] = f"empty in {empty} of {len(column)} cases"
        elif len(column) and np.abs(column).max() > LARGEST:
            reasons[name] = f"beyond {LARGEST:.0e}, which features are stored up to"
        elif len(column) and np.ptp(column.astype(np.float32)) == 0:
            reasons[name] = "one value in all cases"
    return reasons


def _agreement(first: FeatureTable, second: FeatureTable) -> tuple[Agreement, int]:
    """Of all features of the first table; NaN of those that the second lacks."""
    places = {normalised(case): i for i, case in enumerate(second.cases)}
    known = {normalised(case) for case in first.cases}
    unknown = [case for case in second.cases if normalised(case) not in known]
    if unknown:
        raise CohortError(
            f"{second.path}: {listed(unknown)} of the second reading are not in {first.path}. Spell cases "
            "alike."
        )
    both = [i for i, case in enumerate(first.cases) if normalised(case) in places]
    if len(both) < FEWEST_REPEATED:
        raise CohortError(
            f"{second.path}: {len(both)} cases were read twice. Agreement takes {FEWEST_REPEATED} at least, "
            "and says little below 15."
        )
    _refuse_others(first, second)
    columns = {name: j for j, name in enumerate(second.names)}
    if not columns.keys() & set(first.names):
        raise CohortError(
            f"{second.path} shares no feature with {first.path}: {second.names[0]} and {first.names[0]} are "
            "the first. Use the same extractor and settings for both readings."
        )
    again = np.full((len(both), len(first.names)), np.nan)
    shared = [(j, columns[name]) for j, name in enumerate(first.names) if name in columns]
    rows = [places[normalised(first.cases[i])] for i in both]
    for j, other in shared:
        again[:, j] = second.values[rows, other]
    _refuse_copies(first, second, both, again)
    return intraclass_correlation(np.stack([first.values[both], again], axis=1)), len(both)


def _refuse_others(first: FeatureTable, second: FeatureTable) -> None:
    """Refuse a second reading of another modality, or of other settings: it disagrees for that reason."""
    known, own = ({*table.modalities} - {""} for table in (first, second))
    if known and own and not known & own:
        raise CohortError(
            f"{second.path} is of {listed(sorted(own))}, and {first.path} of {listed(sorted(known))}. Read "
            "the same modality twice."
        )
    for modality, settings in second.extraction.items():
        if first.extraction.get(modality, settings) != settings:
            raise CohortError(
                f"{second.path} was extracted with other settings than {first.path} "
                "(diagnostics_Configuration_Settings). Extract both readings with one file of parameters."
            )


def _refuse_copies(
    first: FeatureTable, second: FeatureTable, both: Sequence[int], again: NDArray[np.float64]
) -> None:
    """Refuse cases whose second reading is the first: their agreement is perfect, and says nothing."""
    known = ~np.isnan(again) & ~np.isnan(first.values[both])
    equal = ~known | _equal_but_rounded(first.values[both], again)
    alike = np.asarray(equal.all(axis=1) & known.any(axis=1))
    copies = [first.cases[i] for i, copied in zip(both, alike, strict=True) if copied]
    if not copies or (len(copies) < len(both) and known.sum(axis=1).max() < MANY):
        return
    raise CohortError(
        f"{second.path}: {format_count(len(copies), 'case')} of {len(both)} "
        f"{'has' if len(copies) == 1 else 'have'} the numbers of {first.path} ({listed(copies)}): a copy is "
        "no second reading. Name the table of the second drawing, with the cases alone that were drawn again."
    )


def _equal_but_rounded(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether numbers are equal but for the rounding of either: in single precision, or to some decimals."""
    equal = np.isclose(one, other, rtol=ROUNDED, atol=0)
    for fine, coarse in ((one, other), (other, one)):
        decimals = _decimals(coarse)
        if decimals is not None:
            equal |= np.isclose(
                np.round(fine, decimals), coarse, rtol=1e-12, atol=10.0 ** -(decimals + 3)
            )
    return np.asarray(equal)


def _decimals(values: NDArray[np.float64]) -> int | None:
    """To how many decimals a table is rounded; None where it is not, or to so few that readings agree."""
    known = values[~np.isnan(values)]
    fitting = (
        n
        for n in DECIMALS
        if np.allclose(np.round(known, n), known, rtol=1e-12, atol=10.0 ** -(n + 3))
    )
    return next(fitting, None)


def _unsteady(
    first: FeatureTable, agreement: Agreement, bound: float, form: IccForm
) -> dict[str, str]:
    """Features on which two readings do not agree enough, or not measurably."""
    values = agreement.icc2 if form == "ICC2" else agreement.icc3
    return {
        name: f"{form} is not defined" if math.isnan(value) else f"{form} {value:.3f}"
        for name, value in zip(first.names, values.tolist(), strict=True)
        if not value >= bound
    }


def _recipe(table: FeatureTable, columns: Sequence[str]) -> dict[str, Any]:
    """What made the features, as far as the table says."""
    return {
        "backbone": f"radiomics ({table.tool})",
        "weights": f"converted from {table.tool}",
        "precision": "fp32",
        "columns": list(columns),
        "modalities": [name for name in dict.fromkeys(table.modalities) if name],
        "settings": table.settings,
    }


def _write_bags(
    out: Path,
    table: FeatureTable,
    rows: Sequence[int],
    values: NDArray[np.float64],
    recipe: dict[str, Any],
) -> None:
    """One bag per case; bags of an earlier table in the store must have the same features."""
    source = sha256_of(table.path)
    bags = [
        replace(
            vector_bag(table.cases[i], values[i].astype(np.float32), recipe, case=table.cases[i]),
            source_sha256=fingerprint({"table": source, "case": table.cases[i]}),
        )
        for i in rows
    ]
    for path in sorted(out.glob("*.h5"))[:1]:
        if read_bag(path).recipe_sha256 != bags[0].recipe_sha256:
            raise BagError(f"{out} holds bags of other features. Choose another folder.")
    for bag in bags:
        request = fingerprint({"recipe": bag.recipe, "data": bag.data_sha256, "case": bag.case})
        write_bag(out / f"{file_name(bag.slide)}.h5", replace(bag, request_sha256=request))


def _write_features(
    path: Path, names: Sequence[str], left_out: dict[str, str], agreement: Agreement | None
) -> None:
    """List all features of the table: which are in the bags, how well two readings agree, and why not."""
    rows = []
    for j, name in enumerate(names):
        values = (agreement.icc2[j], agreement.icc3[j]) if agreement else (math.nan, math.nan)
        shown = ["" if math.isnan(value) else f"{value:.4f}" for value in values]
        rows.append([name, "no" if name in left_out else "yes", *shown, left_out.get(name, "")])
    write_table(path, ["feature", "used", "icc2", "icc3", "left_out"], rows)
