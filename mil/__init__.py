"""Where labels enter: learn the case's subtype from bags, judge it honestly, explain it.

Each module is imported by its own name, e.g. ``from mil.learning.crossval import cross_validate``;
importing the package costs nothing.
"""

from mil.version import __version__

__all__ = ["__version__"]
