"""Whether a model has learnt anything that its maps could show."""

from mil.runs.run import Run


def chance_caveat(run: Run, model: str) -> str:
    """A sentence if the run cannot distinguish its model from guessing; else empty.

    A map can be faithful to such a model, and still shows nothing but how it guesses.
    """
    result = run.metrics_of(model)
    measured = run.task.describe_guessing(result) if result else ""
    if not measured:
        return ""
    return (
        f"These cases do not show that {model} beats guessing ({measured}): do not read its maps as showing "
        "the disease."
    )


def validation_caveat(run: Run) -> str:
    """A sentence if nobody has measured what the model has learnt; else empty."""
    if run.cross_validated:
        return ""
    return (
        "Nobody has measured whether this model has learnt anything: it was trained on all cases. Trust its "
        "maps only as far as a cross-validation with the same settings finds more than guessing."
    )
