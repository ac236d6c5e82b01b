"""Tests that the files in deploy/ fit the server, and that systemd accepts the unit."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config import Settings, load
from config.open_files import fitting
from tests.support.processes import ROOT

UNIT = ROOT / "deploy/tandem.service"


@pytest.fixture
def unit() -> configparser.ConfigParser:
    """The unit, parsed as an INI file."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(UNIT)
    return parser


def test_the_server_alone_is_told_to_end(unit: configparser.ConfigParser) -> None:
    """systemd sends SIGTERM to the server only, and leaves it the time to drain and to end its databases."""
    service = unit["Service"]
    assert service["KillMode"] == "mixed"
    drain = Settings().timeouts.drain_timeout
    assert float(service["TimeoutStopSec"]) > 2 * drain


def test_the_unit_fits_the_defaults(unit: configparser.ConfigParser) -> None:
    """The unit's flags are valid, and it allows as many open files as the default connections need."""
    service = unit["Service"]
    assert load(service["ExecStart"].split()[2:], environ={}).server.data_dir == "/var/lib/tandem/data"
    limits = Settings().limits
    assert fitting(limits, int(service["LimitNOFILE"])) == (limits, None)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not on PATH")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """systemd verifies the unit, with this checkout in place of /opt/tandem."""
    copy = tmp_path / UNIT.name
    text = UNIT.read_text().replace("/opt/tandem/.venv/bin/python", sys.executable)
    copy.write_text(text.replace("/opt/tandem", str(ROOT)))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
