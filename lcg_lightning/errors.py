"""The errors a user can cause."""


class UserError(ValueError):
    """Something the user gave is wrong.

    The message is one line that says what is wrong, where, and what to do about it; the command line prints
    that line alone, without a traceback.
    """


class Diverged(UserError):
    """A method's latents are not finite, or its integration does not end.

    This is a result of the method's evaluation, not a mistake in its configuration.
    """
