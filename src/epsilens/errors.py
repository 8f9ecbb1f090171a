"""One error type for whatever a user can mend. A message says what, where, what was found, what is allowed."""

from __future__ import annotations


class EpsilensError(Exception):
    """Base of all errors that are answered with a message instead of a traceback."""

    status = 1


class ConfigError(EpsilensError):
    """params.yaml or the command line is wrong."""

    status = 2


class DataError(EpsilensError):
    """A file or an artifact is missing, damaged or of another kind than it should be."""

    status = 3


class NumericError(EpsilensError):
    """A computation left its valid range: NaN, infinity, a perturbation outside its threat model."""

    status = 4


class BusyError(EpsilensError):
    """Another process is at work on the same thing."""

    status = 5
