"""What a bag's file says of itself: by which versions it was made, and a checksum of all of it."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

from features.files.checksum import fingerprint

RECORDED_VERSIONS = ("sarcomil", "torch", "timm", "openslide-bin", "numpy")
FACTS_SHA256 = "facts_sha256"  # missing in bags from before 2026-11-21


def record_checksum(attrs: Mapping[str, Any]) -> str:
    """Fingerprint of a bag's attributes, so that an edit by hand is noticed."""
    return fingerprint({n: str(v) for n, v in attrs.items() if n not in (FACTS_SHA256, "complete")})


@cache
def making_versions() -> str:
    """The versions of what makes bags, as JSON."""
    return json.dumps({name: metadata.version(name) for name in RECORDED_VERSIONS})
