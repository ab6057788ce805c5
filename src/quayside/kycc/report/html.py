"""HTML as values: text is escaped because it is text, markup is `Html` because something here made it."""

from __future__ import annotations

from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_EMPTY: Final = frozenset({"meta", "br", "hr"})


class Html(str):
    """Text that is markup already. Only functions of this module and of `quayside.foundation.plots` make it."""

    __slots__ = ()


Content = str | None


def h(tag: str, *children: Content, **attributes: str) -> Html:
    """An element. Children that are not `Html` are escaped, None is left out; ``class_`` writes ``class``."""
    given = "".join(f' {name.rstrip("_")}="{escape(value)}"' for name, value in attributes.items() if value)
    if tag in _EMPTY:
        return Html(f"<{tag}{given}>")
    return Html(f"<{tag}{given}>{join(children)}</{tag}>")


def join(children: Iterable[Content]) -> Html:
    """Children one after the other, text escaped."""
    return Html(
        "".join(
            child if isinstance(child, Html) else escape(child) for child in children if child is not None
        )
    )


def svg(text: str) -> Html:
    """A chart of `quayside.foundation.plots`, which escapes its own labels."""
    return Html(text)


def section(title: str, *children: Content, lead: str = "") -> Html:
    """A titled part of the page; `lead` says how to read it."""
    return h("section", h("h2", title), h("p", lead, class_="lead") if lead else None, *children)


def figure(chart: str, caption: str) -> Html:
    """A chart with the sentence that says what it shows."""
    return h("figure", svg(chart), h("figcaption", caption))


def figures(*items: Html) -> Html:
    """Charts side by side where there is room."""
    return h("div", *items, class_="figures")


def tile(name: str, value: str, *notes: str) -> Html:
    """One headline figure, with lines of explanation below it."""
    return h(
        "div",
        h("div", name, class_="name"),
        h("div", value, class_="value"),
        *(h("div", note, class_="note") for note in notes),
        class_="tile",
    )


def tiles(*items: Html) -> Html:
    """Headline figures in a row."""
    return h("div", *items, class_="tiles")


def chip(text: str, kind: str) -> Html:
    """A word in a coloured frame: kind is good, bad, warn or plain."""
    return h("span", text, class_=f"chip {kind}")


def table(head: Sequence[str], rows: Iterable[Sequence[Content]], *, text: int = 1, class_: str = "") -> Html:
    """A table whose first `text` columns are text and whose others are figures, aligned right."""

    def cells(tag: str, values: Sequence[Content]) -> Html:
        return h(
            "tr", *(h(tag, value, class_="" if i < text else "number") for i, value in enumerate(values))
        )

    body = h("tbody", *(cells("td", row) for row in rows))
    return h("div", h("table", h("thead", cells("th", head)), body, class_=class_), class_="scroll")


def page(title: str, *body: Content) -> str:
    """A whole document with its style sheet inside; it refers to nothing outside itself."""
    style = resources.files("quayside.kycc.report").joinpath("page.css").read_text("utf-8")
    head = h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("title", title),
        h("style", Html(style)),
    )
    return "<!doctype html>" + h("html", head, h("body", h("main", *body)), lang="en")
