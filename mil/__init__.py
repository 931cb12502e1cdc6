"""Where labels enter: learn the case's subtype from bags, judge it honestly, explain it.

Each room is imported by its own name, e.g. ``from mil.crossval import cross_validate``; importing the
package costs nothing.
"""

from mil.version import __version__

__all__ = ["__version__"]
