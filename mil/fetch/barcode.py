"""The parts of a TCGA slide barcode, by their positions.

``TCGA-DX-AB2Z-01Z-00-DX4.8EB9A511-....svs``: programme, site, patient, sample with vial, portion, slide. DX
is a hospital as well as a diagnostic slide, so that only the position tells.
Source: GDC documentation, TCGA Barcode, and the code tables of sample types.
"""

import re
from dataclasses import dataclass

SLIDE = re.compile(
    r"TCGA-(?P<site>[A-Z0-9]{2})-(?P<patient>[A-Z0-9]{4})-(?P<sample>\d{2})(?P<vial>[A-Z])"
    r"-(?P<portion>\d{2})-(?P<kind>DX|TS|BS|MS)(?P<number>[A-Z0-9]*)(?=[.]|$)"
)
DIAGNOSTIC = "DX"


@dataclass(frozen=True)
class SlideBarcode:
    """A slide's barcode.

    Attributes:
        case: the patient, ``TCGA-DX-AB2Z``.
        site: code of the hospital.
        sample: code of the sample's type: 01 to 09 tumour, 10 to 19 normal tissue, 20 to 29 controls.
        kind: ``DX`` diagnostic (paraffin), ``TS``, ``MS`` and ``BS`` top, middle and bottom (frozen).
        number: of the slide, as in ``DX4``; a letter for some frozen slides.
    """

    case: str
    site: str
    sample: int
    kind: str
    number: str

    @property
    def is_tumour(self) -> bool:
        """Whether the sample is of a tumour."""
        return 1 <= self.sample <= 9

    @property
    def order(self) -> tuple[int, int, str]:
        """Sorts slides of a case: the primary tumour first, then by number."""
        digits = int(self.number) if self.number.isdigit() else 1_000
        return self.sample, digits, self.number


def parse_barcode(file_name: str) -> SlideBarcode | None:
    """The barcode that a file's name begins with; None if there is none."""
    match = SLIDE.match(file_name)
    if match is None:
        return None
    return SlideBarcode(
        case=f"TCGA-{match['site']}-{match['patient']}",
        site=match["site"],
        sample=int(match["sample"]),
        kind=match["kind"],
        number=match["number"],
    )
