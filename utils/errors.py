"""Errors that are the user's to mend: shown as one message, never as a traceback."""


class InputError(ValueError):
    """A file or record is not as it must be; the message names it and the way out (exit code 1)."""


class UsageError(InputError):
    """An option, profile or parameter is not known or not possible (exit code 2)."""


class InputWarning(UserWarning):
    """Something of the user's was left out, which need not be wrong; shown as one line beside the result."""
