"""Errors a user can cause or meet, each with the exit code the command line gives it."""

from __future__ import annotations


class ExportError(Exception):
    """Base of every expected failure. ``hint`` says what to do about it."""

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(ExportError):
    """The command line or its arguments are wrong. Exit code 2."""


class UnsupportedCheckpointError(ExportError):
    """The checkpoint cannot be exported. Exit code 2.

    Args:
        field: the configuration key, file or tensor that rules it out.
        found: what stands there.
        supported: what could be exported instead.
    """

    def __init__(self, field: str, found: object, supported: str, hint: str | None = None) -> None:
        super().__init__(f"{field}: found {found}; supported: {supported}", hint)
        self.field = field


class EnvironmentFailureError(ExportError):
    """The machine, not the input, is the reason: disk full, hub unreachable. Exit code 3."""

    exit_code = 3


class PackageError(ExportError):
    """A model package on disk is incomplete or does not match its manifest. Exit code 1 (a check that failed)."""

    exit_code = 1
