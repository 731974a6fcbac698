"""What an operator sees of a running server."""

import sys
from importlib import import_module


def load_structlog_alone() -> None:
    """
    Load structlog without rich, which takes a fifth of the server's start.

    It wants it only for tracebacks that show the values of variables, and those must not be in a log.
    """
    if "structlog" not in sys.modules and "rich" not in sys.modules:
        sys.modules["rich"] = None  # pyright: ignore[reportArgumentType]  # how the import system is told that there is none
        try:
            import_module("structlog")
        finally:
            del sys.modules["rich"]
