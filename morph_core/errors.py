"""The errors this package raises, each also a builtin so that callers need not import them.

MorphError
├── InvalidInput (ValueError)       a value that cannot be used: the message says which, and what would do
├── UnsupportedModel (ValueError)   a model of a kind the method does not work on
└── MissingPackage (ImportError)    a package that is missing, too old or broken, and how to install it
"""

import reprlib


class MorphError(Exception):
    """Anything this package raises on purpose."""


class InvalidInput(MorphError, ValueError):
    """A value that cannot be used; the message names it, says what came and what to do."""


class UnsupportedModel(MorphError, ValueError):
    """A model of a kind the method does not work on."""


class MissingPackage(MorphError, ImportError):
    """A package that is missing, too old or broken; the message says which, why, and the command that installs it."""


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


def shown(value: object) -> str:
    """What came, for a message: a tensor's shape, else its `repr`, cut to a length that can be read."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    return _REPR.repr(value)
