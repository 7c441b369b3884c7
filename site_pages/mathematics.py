"""Formulas as MathML, which browsers show without a script."""

import html as entities
import re

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def typeset(html: str) -> str:
    """The page with every formula that the extension `pymdownx.arithmatex` marked as MathML."""
    return _FORMULA.sub(lambda found: convert(entities.unescape(found[2]), _display(found[1])), html)


def _display(tag: str) -> str:
    return "block" if tag == "div" else "inline"
