"""XML of annotation files: the name of the root element, and a tree without document types."""

import contextlib
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from features.errors import AnnotationError

_PIECE_BYTES = 1 << 14  # the parser ends a piece before it stops


class _Element(Exception):
    """Carries an element's name out of the parser, which reads no further."""


class _FirstElement:
    """Stops at the first element of the given names, or at the very first."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def start(self, tag: str, _attributes: dict[str, str]) -> None:
        if not self.names or tag in self.names:
            raise _Element(tag)


class _PlainTree(ElementTree.TreeBuilder):
    """Refuses a document type: its entities can unfold to gigabytes, and no annotation tool writes one."""

    def doctype(self, name: str, *_: object) -> None:
        raise ValueError(f"it declares a DOCTYPE, {name}")


def root_name(raw: bytes | bytearray) -> str:
    """The name of an XML document's root element; empty where the bytes are not XML.

    Entities in the attributes of the root are unfolded within the bounds that expat sets (8 MiB).
    """
    return first_element(raw)


def first_element(raw: bytes | bytearray, *names: str) -> str:
    """The name of the first element that has one of these names; empty where there is none."""
    parser = ElementTree.XMLParser(target=_FirstElement(names))
    with contextlib.suppress(ElementTree.ParseError, ValueError, LookupError):
        try:
            for start in range(0, len(raw), _PIECE_BYTES):
                parser.feed(raw[start : start + _PIECE_BYTES])
        except _Element as element:
            return str(element)
    return ""


def parse_xml(raw: bytes | bytearray) -> Element:
    """The root element of an XML document.

    Raises:
        ElementTree.ParseError: the document is damaged.
        ValueError: it declares a document type.
        LookupError: its encoding is unknown.
    """
    parser = ElementTree.XMLParser(target=_PlainTree())
    parser.feed(raw)
    root: Element = parser.close()
    return root


def parse_root(source: str, raw: bytes | bytearray, root: str, form: str) -> Element:
    """The root element of a file of annotations.

    Args:
        source: the file's name, for messages.
        raw: its bytes, unpacked.
        root: the name that the root element must have.
        form: the program and its format, for messages.

    Raises:
        AnnotationError: it is not XML, has another root, or declares a document type.
    """
    try:
        element = parse_xml(raw)
        if element.tag != root:
            raise ValueError(f"its root is {element.tag}, not {root}")
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise AnnotationError(
            f"{source}: cannot be read as {form} ({error}). Save it from {form.split()[0]} again, or draw in "
            "QuPath and export GeoJSON."
        ) from error
    return element


def read_number(source: str, place: str, text: str | None) -> float:
    """A coordinate; a decimal comma is read as a point.

    Raises:
        AnnotationError: it is not a number.
    """
    try:
        return float((text or "").replace(",", "."))
    except ValueError as error:
        raise AnnotationError(
            f"{source}: {place} has malformed coordinates ({error}). Save the annotations again."
        ) from error
