"""The one exception that means "the input is wrong", as opposed to "the program is wrong"."""


class CliffscopeError(ValueError):
    """Bad input: the message is one line that names the file or object, what is wrong, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """
