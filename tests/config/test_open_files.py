"""Tests of the limits on connections where the system allows few open files."""

from __future__ import annotations

import pytest

from config.open_files import SPARE_FILES, TooFewFilesError, fitting
from config.settings import Limits


def test_enough_files_change_nothing() -> None:
    """The default limits stay if a process may have the 12,200 open files that they need."""
    assert fitting(Limits(), 12_200) == (Limits(), None)


@pytest.mark.parametrize("files", [12_199, 4096, 1024, SPARE_FILES + 2])
def test_defaults_are_lowered(files: int) -> None:
    """Both default limits are lowered to fit, and the warning has the numbers and what to do."""
    limits, warning = fitting(Limits(), files)
    assert limits.max_connections + limits.max_http_connections + SPARE_FILES == files
    assert min(limits.max_connections, limits.max_http_connections) >= 1
    assert warning
    for part in (f"{limits.max_connections} sockets", f"{files} open files", "12200", "ulimit -Hn"):
        assert part in warning


def test_a_configured_limit_is_kept() -> None:
    """If one limit is configured, only the other one is lowered."""
    limits, warning = fitting(Limits(max_connections=3000), 4096)
    assert (limits.max_connections, limits.max_http_connections, bool(warning)) == (3000, 896, True)
    limits, _ = fitting(Limits(max_http_connections=100), 4096)
    assert (limits.max_connections, limits.max_http_connections) == (3796, 100)


@pytest.mark.parametrize(
    ("limits", "files"),
    [
        (Limits(max_connections=1_000_000), 4096),
        (Limits(max_connections=3000, max_http_connections=1000), 4096),
        (Limits(max_http_connections=3896), 4096),
        (Limits(), SPARE_FILES + 1),
        (Limits(), 0),
    ],
)
def test_limits_that_do_not_fit_are_refused(limits: Limits, files: int) -> None:
    """The error about limits that do not fit names the settings and both numbers of files."""
    with pytest.raises(TooFewFilesError, match=rf"--max-connections and .* open files, .* may have only {files} "):
        fitting(limits, files)
