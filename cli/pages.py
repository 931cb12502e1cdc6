"""Pages of the command: templates of this folder, filled with what was found."""

from collections.abc import Callable, Mapping


def fill(template: str, filters: Mapping[str, Callable[..., object]], **told: object) -> str:
    """One HTML document; whatever is told is text, and no markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        loader=PackageLoader("cli", "."),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= filters
    return environment.get_template(template).render(**told)
