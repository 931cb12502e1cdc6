"""A page as a browser would find it, and what holds of every page."""

from html.parser import HTMLParser

NASTY = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{7*7}}", "'); & &lt;")
VOID = {"meta", "img", "input", "br", "hr", "link"}
ADDRESSES = {"src", "href", "srcset", "xlink:href", "action", "poster", "data"}


def plain_for(nasty):
    """A harmless name as long as a nasty one: columns of long names are numbered."""
    return "name".ljust(len(nasty), "!")


class Page(HTMLParser):
    """Elements, their attributes and texts, as a browser would find them."""

    def __init__(self, source):
        super().__init__()
        self.open, self.elements, self.texts, self.unbalanced = [], [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in {"td", "th"}:
            self.texts.append(" ")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append((tag, self.getpos()))

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    def tags(self):
        return [tag for tag, _ in self.elements]

    def text(self):
        return " ".join("".join(self.texts).replace("\N{NO-BREAK SPACE}", " ").split())


def check_page(source):
    """Elements are closed where they were opened, links lead somewhere, and nothing comes from outside."""
    page = Page(source)
    assert page.unbalanced == []
    assert page.open == []
    known = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(known) == len(set(known))
    links = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert links <= {f"#{name}" for name in known}
    labels = {attributes["for"] for tag, attributes in page.elements if tag == "label"}
    assert labels <= set(known)
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ADDRESSES:
                assert value.startswith(("#", "data:image/png;base64,", "data:image/jpeg;base64,"))
    assert "url(" not in source
    assert "@import" not in source
    assert "default-src 'none'" in source


def check_text_only(nasty, source, harmless, plainly):
    """A page with a nasty name everywhere is the page with a harmless one, but for the name."""
    page, other = Page(source), Page(plainly)
    assert page.unbalanced == []
    assert page.tags() == other.tags()
    assert [set(a) for _, a in page.elements] == [set(a) for _, a in other.elements]
    # A browser shows every name as it was written, wherever the harmless name was shown.
    assert "".join(page.texts).count(nasty) == "".join(other.texts).count(harmless) > 0
    values = [str(value) for _, a in page.elements for value in a.values()]
    plain = [str(value) for _, a in other.elements for value in a.values()]
    assert sum(nasty in value for value in values) == sum(harmless in value for value in plain) > 0
