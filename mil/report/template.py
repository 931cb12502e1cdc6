"""The one HTML engine: templates of this package filled with values, every text from data escaped."""

import base64
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mil.evaluation.display import format_p
from mil.evaluation.intervals import Estimate
from mil.report import formats, plots


def render_template(name: str, **values: object) -> str:
    """One HTML document without network.

    Args:
        name: the template's path in the package ``mil``, e.g. ``report/audit.html``.
        values: what the template shows.
    """
    return _environment().get_template(name).render(**values)


def svg(plot: Callable[..., str]) -> Callable[..., Markup]:
    """A function that draws, for use in a template: its SVG is not escaped again."""
    return lambda *args, **named: Markup(plot(*args, **named))


def image(picture: bytes) -> Markup:
    """A PNG or JPEG as an address that contains it; base64 needs no escaping."""
    kind = "jpeg" if picture.startswith(b"\xff\xd8") else "png"
    return Markup(f"data:image/{kind};base64," + base64.b64encode(picture).decode("ascii"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mil", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=formats.percent,
        between=formats.between,
        cell=formats.cell,
        count=formats.count,
        correct=formats.correct,
        p_value=format_p,
        sentence=formats.sentence,
        image=image,
        time=formats.in_units,
        without_note=lambda estimate: replace(estimate, note=""),
    )
    environment.globals.update(
        dash=formats.DASH,
        axis=svg(plots.interval_axis),
        mark=svg(plots.interval_mark),
        point=lambda value: Estimate(value, None, None, ""),
        n_colours=plots.N_COLOURS,
        decision_plot=svg(plots.decision_plot),
    )
    return environment
