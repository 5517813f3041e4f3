"""Counts with their nouns. Standard library alone."""

__all__ = ["counted"]


def counted(count: int, noun: str, *, thousands: bool = False) -> str:
    """Write a count and its noun, in the singular for 1.

    Args:
        count: the count.
        noun: in the singular; its plural ends in "s".
        thousands: whether to part thousands with commas.

    Example:
        >>> counted(1, "image"), counted(0, "image"), counted(2048, "byte", thousands=True)
        ('1 image', '0 images', '2,048 bytes')
    """
    return f"{count:{',' if thousands else ''}} {noun}{'' if count == 1 else 's'}"
