"""Which addresses may stand in a document that is shown to people."""

import re
from typing import Final

SCHEMES: Final = frozenset({"http", "https", "mailto", "tel"})

_SCHEME: Final = re.compile(r"[\x00-\x20]*([^/?#]*?):")


def is_safe(url: str, schemes: frozenset[str] = SCHEMES) -> bool:
    """Whether ``url`` is relative, or of one of the ``schemes``, as a browser understands it."""
    # Browsers drop tabs and line ends within, and white space in front (URL Standard, 4.4).
    found = _SCHEME.match(re.sub(r"[\t\n\r]", "", url))
    return found is None or found[1].lower() in schemes
