"""What the operating system says about this process."""

import sys
from pathlib import Path


def memory_usage() -> int:
    """The resident size of this process in bytes; where the system does not tell, its peak, or zero."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return _peak_memory()
    from resource import getpagesize  # noqa: PLC0415  # does not exist on Windows, which has no /proc either

    return pages * getpagesize()


def _peak_memory() -> int:
    try:
        import resource  # noqa: PLC0415  # does not exist on Windows
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
