"""Errors that a client of the wire can be shown, and errors that stop the process from starting."""

from __future__ import annotations


class ApiError(Exception):
    """An answer with an AWS error code.

    ``code`` is the shape name (``ResourceNotFoundException``, ``QueueDoesNotExist``); the wire
    adds what its protocol needs (status, query code). ``status`` overrides the protocol's default.
    """

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


def validation(message: str) -> ApiError:
    """The caller's parameters break a rule of the operation."""
    return ApiError("ValidationException", message)


def not_found(message: str) -> ApiError:
    """The named resource is not there."""
    return ApiError("ResourceNotFoundException", message)


class StoreError(Exception):
    """The store could not do what was asked; nothing of it is on disk."""


class StoreUnavailable(StoreError):
    """The disk is full or failing: the same request may succeed later."""


class StoreUnusable(StoreError):
    """The data directory cannot be opened: locked, damaged, or written by a newer version. Says what to do."""


class RevisionConflict(StoreError):
    """A configuration value was changed by someone else since it was read."""


class ConfigError(Exception):
    """A setting has no usable value; the message names it and says what would be usable."""
