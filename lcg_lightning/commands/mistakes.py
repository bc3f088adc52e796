"""What went wrong, in one line: the innermost reason of the errors that a user can mend."""

import jsonargparse

from lcg_lightning.errors import UserError


def explain(error: BaseException, command: str) -> str | None:
    """The line that tells a user what is wrong and where; None for an error that is not the user's."""
    if mistake := _users(error):
        return str(mistake)
    if isinstance(error, jsonargparse.ArgumentError):
        return f"{' '.join(str(error).split())} (lcg {command} --help lists the options)"
    return None


def _users(error: BaseException | None) -> UserError | None:
    """The user's error behind another one: configuration parsers and worker processes wrap what they catch."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error
