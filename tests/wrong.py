"""A part of one's own that is not finished: its maker gives nothing."""


def make_wrong() -> None:
    """None, whatever it should be."""
