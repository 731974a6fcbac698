"""
How many cases Hypothesis draws: each test says how many in the gate, and the profile multiplies that.

Only ``nightly`` draws others each time. The gate decides about a change, so its cases do not change by themselves.
"""

from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

PROFILES: Final = {"dev": 0.2, "ci": 1.0, "nightly": 4.0}
"""What every number of examples is multiplied by."""

PROFILE_VARIABLE: Final = "HYPOTHESIS_PROFILE"

EXPLORING: Final = "nightly"
"""The profile whose cases are drawn anew each time; what it finds is kept in ``.hypothesis`` and tried first."""

_USUAL: Final = 100
"""Examples of a test that names no number of its own in the profile that multiplies by one."""


def register_profiles() -> None:
    """Make the profiles known to Hypothesis. What it has found out about the machine, as that it is CI's, stays."""
    for name, factor in PROFILES.items():
        explores = name == EXPLORING
        settings.register_profile(
            name,
            parent=settings.default,
            max_examples=round(_USUAL * factor),
            derandomize=not explores,
            database=DirectoryBasedExampleDatabase(".hypothesis/examples") if explores else None,
            print_blob=True,
            deadline=None,  # the machine may be busy with other tests
            suppress_health_check=[HealthCheck.too_slow],
        )


def examples(number: int) -> int:
    """``number`` of the profile ``ci`` in the profile that is loaded, at least one."""
    assert settings.default is not None
    return max(round(number * settings.default.max_examples / _USUAL), 1)


def repeats(number: int, *, nightly: int) -> int:
    """How often something is done that Hypothesis does not draw: ``number`` times, in ``nightly`` more often."""
    return nightly if settings.get_current_profile_name() == EXPLORING else number
