"""The one error that a user's mistake raises."""


class InputError(ValueError):
    """A mistake in what the user gave: the message says what was given, what is allowed, what to do.

    The command line prints the message as one line and exits with 2; in Python it is an ordinary `ValueError`.
    """
