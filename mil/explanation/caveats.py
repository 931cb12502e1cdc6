"""Whether a model has learnt anything that its maps could show."""

from collections.abc import Mapping
from typing import Any

from features.files.parse import parse_json
from mil.runs.run import Run

GUESSING = 0.05  # p value above which a model may be guessing
CHANCE_CONCORDANCE, CHANCE_KAPPA = 0.5, 0.0


def chance_caveat(run: Run, model: str) -> str:
    """A sentence if the run cannot distinguish its model from guessing; else empty.

    A map can be faithful to such a model, and still shows nothing but how it guesses.
    """
    path = run.path / "metrics.json"
    if not path.is_file():
        return ""
    results = {result["model"]: result for result in parse_json(path.read_text())["models"]}
    measured = _guessing(results[model]) if model in results else ""
    if not measured:
        return ""
    return (
        f"No better than random: this run cannot distinguish {model} from guessing ({measured}), so its maps "
        "need not say anything about the disease."
    )


def _guessing(result: Mapping[str, Any]) -> str:
    """How a model compares with chance, if chance explains its result; else empty."""
    if concordance := result.get("harrell"):
        low = concordance["low"]
        if low is not None and low > CHANCE_CONCORDANCE:
            return ""
        interval = "" if low is None else f", 95 % interval from {low:.2f}"
        return f"concordance {concordance['value']:.2f}{interval}"
    if kappa := result.get("quadratic_kappa"):
        low = kappa["low"]
        if low is not None and low > CHANCE_KAPPA:
            return ""
        interval = "" if low is None else f", 95 % interval from {low:.2f}"
        value = "undefined" if kappa["value"] is None else f"{kappa['value']:.2f}"
        return f"quadratic kappa {value}{interval}"
    p = max(result.get(name) or 0.0 for name in ("p_chance", "p_majority"))
    return f"{result['correct']:g} of {result['n']} right, p = {p:.2g}" if p > GUESSING else ""


def validation_caveat(run: Run) -> str:
    """A sentence if nobody has measured what the model has learnt; else empty."""
    if run.cross_validated:
        return ""
    return (
        "Nobody has measured whether this model has learnt anything: it was trained on all cases. Trust its "
        "maps only as far as a cross-validation with the same settings finds more than guessing."
    )
