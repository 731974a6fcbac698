"""The page at ``/docs``: one file that loads nothing but the contract, made of what stands in ``web/docs``."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent.parent / "web" / "docs"

SCRIPTS: Final = ("contract.js", "trying.js", "page.js")
"""In the order in which they need each other: they become one module."""


def page() -> str:
    """The page, with its style and its script in it."""
    style, *scripts = ((FOLDER / name).read_text(encoding="utf-8") for name in ("docs.css", *SCRIPTS))
    empty = (FOLDER / "index.html").read_text(encoding="utf-8")
    filled = empty.replace("<style></style>", f"<style>\n{style}</style>")
    return filled.replace('<script type="module"></script>', f'<script type="module">\n{"".join(scripts)}</script>')


def policy_of(page: str) -> str:
    """
    The content security policy of the page: its own script and style, and requests to this server.

    A key that is entered there can be sent nowhere else.
    """
    return (
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; script-src {_hash(page, 'script')}; style-src {_hash(page, 'style')}"
    )


def _hash(page: str, element: str) -> str:
    """What a policy calls the inline script or style of a page (CSP level 3, 2.3.1)."""
    (content,) = re.findall(rf"<{element}[^>]*>(.*?)</{element}>", page, re.DOTALL)
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
