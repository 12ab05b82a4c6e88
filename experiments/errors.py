"""What a user gets for bad input: one sentence, and no traceback."""


class UserError(Exception):
    """Bad input; the message names the field, the value and what is allowed."""
