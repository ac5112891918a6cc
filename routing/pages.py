"""Web pages as the text that a reader sees, and the facts that a page states for machines."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser

_UNSEEN = ["script", "style", "noscript", "template", "svg", "iframe", "object", "head"]
_AROUND = "nav, footer, aside, [hidden], [aria-hidden=true], [role=navigation], [role=contentinfo]"
_INLINE = ["a", "abbr", "b", "code", "em", "font", "i", "mark", "small", "span", "strong", "sub", "sup", "u"]
_FACTS = "script[type='application/ld+json']"
_LEAST = 200  # characters; a <main> or <article> with less is not where the text is
_BLANKS = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\s*\n\s*")
_CHARSET = re.compile(r"charset=[\"']?([\w-]+)", re.IGNORECASE)


def text_of(body: bytes, content_type: str, *, most: int) -> str:
    """The text of an HTML page, or of plain text, of at most `most` characters; "" where there is none.

    Structured data (JSON-LD), which pages carry for search engines, comes first: job advertisements state
    title, place and salary there.
    """
    page = _decoded(body, content_type)
    if content_type.partition(";")[0].strip().lower() == "text/plain":
        return page.strip()[:most]
    tree = LexborHTMLParser(page)
    facts = [_squeezed(node.text()) for node in tree.css(_FACTS)]
    title = tree.css_first("title")
    heading = _squeezed(title.text()) if title is not None else ""
    tree.strip_tags(_UNSEEN)
    for node in tree.css(_AROUND):
        node.decompose()
    tree.unwrap_tags(_INLINE)  # a bold word begins no line
    tree.merge_text_nodes()
    parts = [heading, *facts, _main(tree)]
    return "\n".join(part for part in parts if part)[:most]


def _main(tree: LexborHTMLParser) -> str:
    """The text of what the page calls its main part, else of all of it."""
    for selector in ("main", "article", "[role=main]"):
        node = tree.css_first(selector)
        text = _squeezed(node.text(separator="\n")) if node is not None else ""
        if len(text) >= _LEAST:
            return text
    return _squeezed(tree.body.text(separator="\n")) if tree.body is not None else ""


def _squeezed(text: str) -> str:
    return _LINES.sub("\n", _BLANKS.sub(" ", text)).strip()


def _decoded(body: bytes, content_type: str) -> str:
    """By the header's charset, else the page's own, else UTF-8."""
    found = _CHARSET.search(content_type) or _CHARSET.search(body[:1024].decode("ascii", "replace"))
    try:
        return body.decode(found.group(1) if found else "utf-8", "replace")
    except (LookupError, ValueError):
        return body.decode("utf-8", "replace")
