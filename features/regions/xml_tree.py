"""XML of annotation files: the name of the root element, and a tree without document types."""

import contextlib
from typing import NoReturn
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

_PIECE_BYTES = 1 << 14  # the parser ends a piece before it stops


class _Root(Exception):
    """Carries the root element's name out of the parser, which reads no further."""


class _RootTarget:
    def start(self, tag: str, _attributes: dict[str, str]) -> NoReturn:
        raise _Root(tag)


class _PlainTree(ElementTree.TreeBuilder):
    """Refuses a document type: its entities can unfold to gigabytes, and no annotation tool writes one."""

    def doctype(self, name: str, *_: object) -> None:
        raise ValueError(f"it declares a DOCTYPE, {name}")


def root_name(raw: bytes | bytearray) -> str:
    """The name of an XML document's root element; empty where the bytes are not XML.

    Entities in the attributes of the root are unfolded within the bounds that expat sets (8 MiB).
    """
    parser = ElementTree.XMLParser(target=_RootTarget())
    with contextlib.suppress(ElementTree.ParseError, ValueError, LookupError):
        try:
            for start in range(0, len(raw), _PIECE_BYTES):
                parser.feed(raw[start : start + _PIECE_BYTES])
        except _Root as root:
            return str(root)
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
