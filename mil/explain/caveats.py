"""Whether a model knows anything that its maps could show."""

import json

from mil.runs.run import Run

GUESSING = 0.05  # p above which a model may as well have guessed


def chance_caveat(run: Run, model: str) -> str:
    """A sentence where the run could not tell its model from guessing; empty where it could.

    A map can be true to such a model, and still shows nothing but how it guesses.
    """
    path = run.path / "metrics.json"
    if run.task == "survival" or not path.is_file():
        return ""
    found = {each["model"]: each for each in json.loads(path.read_text())["models"]}
    if model not in found:
        return ""
    p = max(found[model].get(name) or 0.0 for name in ("p_chance", "p_majority"))
    if p <= GUESSING:
        return ""
    right = f"{found[model]['correct']:g} of {found[model]['n']} right, p = {p:.2g}"
    return (
        f"No better than random: this run cannot tell {model} from guessing ({right}), so that its maps "
        "need not say anything of the disease."
    )


def external_caveat(run: Run) -> str:
    """A sentence where nobody has measured what the model knows; empty where a cross-validation has."""
    if run.cross_validated:
        return ""
    return (
        "Nobody has measured whether this model knows anything: `mil train` does not. Believe its maps as "
        "far as `mil crossval` with the same settings finds more than guessing."
    )
