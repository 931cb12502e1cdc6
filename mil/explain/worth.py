"""Whether a model knows anything that its maps could show."""

import json

from mil.runs import Run

GUESSING = 0.05  # p above which a model may as well have guessed


def guessing(run: Run, model: str) -> str:
    """A sentence where the run found its model no better than guessing; empty where it did not.

    A map can be true to such a model, and still shows nothing but how it guesses.
    """
    path = run.path / "metrics.json"
    if run.settings.get("task") == "survival" or not path.is_file():
        return ""
    found = {each["model"]: each for each in json.loads(path.read_text())["models"]}
    if model not in found:
        return ""
    p = max(found[model].get(name) or 0.0 for name in ("p_chance", "p_majority"))
    if p <= GUESSING:
        return ""
    right = f"{found[model]['correct']:g} of {found[model]['n']} right, p = {p:.2g}"
    return (
        f"No better than random: {model} may as well guess in this run ({right}), so that its maps say "
        "nothing of the disease."
    )
