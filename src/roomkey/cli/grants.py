"""Grants as they are written on a command line."""

from typing import Final

from roomkey.cli.outcome import Exit, Failed

GROUP: Final = "group="


def written(text: str) -> dict[str, str]:
    """
    The grant that REST is sent: of ``notes/**:write``, or of ``group=team-7``.

    Raises:
        Failed: If it is neither.
    """
    if text.startswith(GROUP):
        return {"group": text.removeprefix(GROUP)}
    documents, colon, access = text.rpartition(":")
    if not colon:
        raise Failed(f"--grant: {text!r} is no pattern and access, as in 'notes/**:write'", Exit.USAGE)
    return {"documents": documents, "access": access}
