"""How files are fetched. No other import than the standard library: the command reads this for its help."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from mil.errors import FetchError


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """How requests are made.

    Attributes:
        server: address of the service, where a mirror is used.
        parallel: files at once.
        retries: failed requests in a row, without a byte more, before a file is given up.
        wait_s: seconds before the first retry; doubled each time, up to a minute.
        timeout_s: seconds without a byte after which a connection counts as cut.
        verify: read the files that are there already and compare their checksums.
    """

    PANEL: ClassVar[str] = "Transfer"

    server: str = field(
        default="",
        metadata={
            "help": "Address of a mirror; SARCOMIL_GDC_SERVER and SARCOMIL_IDC_SERVER in the environment do "
            "the same."
        },
    )
    parallel: int = field(default=4, metadata={"help": "Files fetched at once."})
    retries: int = field(
        default=8,
        metadata={
            "help": "Failed requests in a row, without a byte more, before a file is given up."
        },
    )
    wait_s: float = field(
        default=1.0,
        metadata={
            "flag": "--wait",
            "help": "Seconds before the first retry; doubled each time, up to a minute.",
        },
    )
    timeout_s: float = field(
        default=60.0,
        metadata={
            "flag": "--timeout",
            "help": "Seconds without a byte after which a connection counts as cut.",
        },
    )
    verify: bool = field(
        default=False,
        metadata={"help": "Read the files that are there already and compare their checksums."},
    )

    def __post_init__(self) -> None:
        for name, least in (("parallel", 1), ("retries", 0), ("wait_s", 0), ("timeout_s", 0)):
            value = getattr(self, name)
            if value < least or (name == "timeout_s" and value == 0):
                bound = "above 0" if name == "timeout_s" else f"at least {least}"
                raise FetchError(f"{name} must be {bound}; got {value:g}.")
        if self.server and not self.server.lower().startswith(("http://", "https://")):
            raise FetchError(
                f"server is an address that begins with https:// or http://; got {self.server!r}."
            )


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which cases and slides of a project are fetched.

    Attributes:
        subtypes: labels, in the order in which they are listed; all if empty.
        max_per_subtype: cases of each label; all if not given.
        slides_per_case: the first diagnostic slides of a case, by number.
        seed: which cases are drawn where there are more; those of fewer are among those of more.
    """

    subtypes: tuple[str, ...] = ()
    max_per_subtype: int | None = None
    slides_per_case: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_per_subtype", "slides_per_case"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise FetchError(f"{name} must be at least 1; got {value}.")


def transfer_of(options: Mapping[str, Any]) -> Transfer:
    """The settings of the transfer among options by name."""
    names = {one.name for one in fields(Transfer)}
    return Transfer(**{name: value for name, value in options.items() if name in names})
