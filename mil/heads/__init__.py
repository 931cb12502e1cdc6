"""From a bag to logits: one head a file, all under one contract.

``check_head`` holds a head of one's own to the laws that every head here keeps.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mil.heads.laws import check_head

__all__ = ["check_head"]


def __getattr__(name: str) -> Any:
    """Load the laws, and torch with them, when they are first asked for."""
    if name != "check_head":
        raise AttributeError(f"module 'mil.heads' has no attribute {name!r}")
    from mil.heads.laws import check_head

    return check_head
