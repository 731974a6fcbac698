"""What may name something: printable text of a bounded size, whether it is a user, a document or a status."""

from roomkey.errors import InvalidInput


def check_text(what: str, text: str, *, max_bytes: int) -> str:
    """
    Return ``text`` if it may name something: 1 to ``max_bytes`` bytes of printable Unicode.

    Raises:
        InvalidInput: If not; the message calls it ``what`` and does not repeat it.
    """
    # The common case first: ASCII is as long in bytes as in characters.
    if text.isascii():
        size = len(text)
    else:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise InvalidInput(f"{what} must be valid Unicode") from None
    if not 0 < size <= max_bytes:
        raise InvalidInput(f"{what} has 1 to {max_bytes} bytes")
    if not text.isprintable():
        raise InvalidInput(f"{what} must not contain control characters")
    return text
