"""The pages that show notebooks, formgrader's and the feedback: what students wrote is text there, never a program."""

from __future__ import annotations

from typing import Any

import bleach
from jinja2 import pass_context
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

_TAGS = bleach.sanitizer.ALLOWED_TAGS | {
    *("br", "del", "div", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "p", "pre", "s", "span", "sub", "sup", "u"),
    *("details", "summary", "dd", "dl", "dt", "table", "tbody", "td", "th", "thead", "tr"),
}
_ATTRIBUTES = {
    "*": ["class", "id", "title"],
    "a": ["href"],
    "img": ["src", "alt", "width", "height"],
    "td": ["align", "colspan", "rowspan"],
    "th": ["align", "colspan", "rowspan"],
}


@pass_context
def markdown2html(context: Any, source: str) -> str:
    """Markdown as HTML without scripts, in the place of nbconvert's filter, which lets through what stands in it."""
    attachments = context.get("cell", {}).get("attachments", {})
    renderer = IPythonRenderer(escape=False, attachments=attachments)
    html = MarkdownWithMath(renderer=renderer).render(source)
    return str(bleach.clean(html, _TAGS, _ATTRIBUTES, protocols={*bleach.sanitizer.ALLOWED_PROTOCOLS, "data"}))
