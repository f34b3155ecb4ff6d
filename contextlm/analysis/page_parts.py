"""The pieces of a page: sections, tables, pictures, numbers. All text passes through `escaped`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

NOTHING = "–"


def escaped(text: str) -> str:
    """Text that cannot become markup; a password in an address is not shown."""
    return html.escape(re.sub(r"(://)[^/@\s]+@", r"\1…@", text))


def section(name: str, heading: str, body: str) -> str:
    """A section with an address of its own on the page; nothing where there is nothing to say."""
    return f"<section id='{name}'><h2>{escaped(heading)}</h2>{body}</section>" if body else ""


def figure(svg: str, caption: str) -> str:
    """A picture and what it shows; inside HTML an SVG needs no namespaces, so that the page has no addresses at all."""
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    return f"<figure>{svg}<figcaption>{escaped(caption)}</figcaption></figure>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Nothing where there are no rows: an empty table says less than no table."""
    if not rows:
        return ""
    top = "".join(f"<th scope='col'>{escaped(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    # What can be scrolled must be reachable with the keyboard too.
    return f"<div class='wide' tabindex='0'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def bullets(sentences: Iterable[str]) -> str:
    """Sentences, one below the other."""
    items = "".join(f"<li>{escaped(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def folded(summary: str, body: str, *, is_open: bool = False) -> str:
    """What only some will want to read."""
    return f"<details{' open' if is_open else ''}><summary>{escaped(summary)}</summary>{body}</details>" if body else ""


def code(text: str) -> str:
    """Something to copy."""
    return f"<pre tabindex='0'>{escaped(text.strip())}</pre>" if text.strip() else ""


def paragraph(text: str) -> str:
    """A few sentences."""
    return f"<p>{escaped(text)}</p>"


def number(value: Any, form: str) -> str:
    """A number in the given form, if it is one."""
    return format(value, form) if isinstance(value, int | float) and not isinstance(value, bool) else NOTHING


def words(value: Any) -> str:
    """The value of an option."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return NOTHING if value is None else str(value)


def duration(seconds: float | None) -> str:
    """Hours and minutes, or minutes and seconds."""
    if seconds is None:
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
