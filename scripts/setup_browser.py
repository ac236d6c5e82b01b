"""Install the browser for tests into `.browser/` if PATH lacks it, without root and without changes to the system.

It uses the standard library only. It creates:

    .browser/bin/       chromium-headless-shell, a script that starts the one in root/ (only if PATH lacks it)
    .browser/root/      the unpacked Debian packages: browser, libraries, fonts
    .browser/fonts.conf the fonts that the browser sees, the same on each machine
    .browser/ready      written last, so that an interrupted run is repeated
    .browser/missing    instead of all others: why there is no browser. Its tests are skipped with this reason

Paths in these files are relative to the files themselves, so that the checkout can be moved.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

from packages import Packages, SetupError

HOME = Path(__file__).resolve().parent.parent / ".browser"
NAME = "chromium-headless-shell"
FILES = "chromium-common"  # the package with the browser's files
STARTS_WITHIN = 30  # seconds

FONTS = {  # Debian's packages, and the directories of their fonts: Latin; Arabic and Hebrew; Chinese; emoji
    "fonts-open-sans": "usr/share/fonts/truetype/open-sans",
    "fonts-dejavu-core": "usr/share/fonts/truetype/dejavu",
    "fonts-wqy-microhei": "usr/share/fonts/truetype/wqy",
    "fonts-noto-color-emoji": "usr/share/fonts/truetype/noto",
}

SCRIPT = """\
#!/bin/sh
# Written by scripts/setup_browser.py.
here=$(cd "$(dirname "$0")/.." && pwd) || exit 1
export LD_LIBRARY_PATH="{libraries}"
export FONTCONFIG_FILE="$here/fonts.conf"
export XDG_CACHE_HOME="$here/cache"
exec "$here/{program}" "$@"
"""

FONTS_CONF = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<!-- Written by scripts/setup_browser.py. -->
<fontconfig>
{directories}
  <cachedir prefix="xdg">fontconfig</cachedir>
  <match target="pattern">
    <test qual="all" name="family" compare="not_eq"><string>sans-serif</string></test>
    <test qual="all" name="family" compare="not_eq"><string>serif</string></test>
    <test qual="all" name="family" compare="not_eq"><string>monospace</string></test>
    <edit name="family" mode="append_last"><string>sans-serif</string></edit>
  </match>
{preferences}
</fontconfig>
"""

PREFERENCE = """\
  <alias binding="same">
    <family>{family}</family>
    <prefer>
      <family>{first}</family>
      <family>WenQuanYi Micro Hei</family>
      <family>Noto Color Emoji</family>
    </prefer>
  </alias>"""
PREFERRED = {
    "sans-serif": "Open Sans",  # it has no emoji, so these come from the font that has them in colour
    "serif": "DejaVu Serif",
    "monospace": "DejaVu Sans Mono",
}


def missing() -> list[str]:
    """Return the packages that this machine lacks."""
    names = [] if shutil.which(NAME) else [NAME]
    try:
        ctypes.CDLL("libatomic.so.1")
    except OSError:
        names.append("libatomic1")  # for Playwright's Node
    return names


def write_fonts_conf() -> None:
    """List the installed fonts, and the directories where the system may have the same fonts already."""
    directories = [
        line
        for inside in FONTS.values()
        for line in (f'  <dir prefix="relative">root/{inside}</dir>', f"  <dir>/{inside}</dir>")
    ]
    preferences = [PREFERENCE.format(family=family, first=first) for family, first in PREFERRED.items()]
    text = FONTS_CONF.format(directories="\n".join(directories), preferences="\n".join(preferences))
    (HOME / "fonts.conf").write_text(text)


def write_script() -> None:
    """Write the script that starts the browser, and try it. Raises SetupError if the browser does not start."""
    root = HOME / "root"
    program = next(root.glob(f"usr/lib/*/{NAME}"), None)
    if program is None:
        raise SetupError(f"the package {NAME} has no program of that name", "")
    libraries = {path.parent.relative_to(HOME) for path in root.glob("**/lib*.so*")} - {
        program.parent.relative_to(HOME)
    }
    script = HOME / "bin" / NAME
    script.parent.mkdir()
    script.write_text(
        SCRIPT.format(
            libraries=":".join(f"$here/{directory}" for directory in sorted(libraries)),
            program=program.relative_to(HOME),
        )
    )
    script.chmod(0o755)
    try:
        done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=STARTS_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        raise SetupError(f"the browser does not start within {STARTS_WITHIN} s", "") from None
    if done.returncode:
        raise SetupError("the browser does not start", "", done.stderr.strip())


def install(wanted: list[str]) -> None:
    """Install these packages into `.browser/`. Raises SetupError."""
    work, root = HOME / "work", HOME / "root"
    root.mkdir()
    print(f"setup: fetching {' '.join(wanted)} (Debian packages, unpacked into .browser, at most 140 MB)", flush=True)
    packages = Packages(work, "")
    names = wanted
    if NAME in wanted:
        # FILES also depends on desktop programs, which depend on 200 MB of other packages.
        packages.fetch_alone([NAME, FILES])
        names = [name for name in [*wanted, *packages.needed_by(NAME), *FONTS] if name not in (NAME, FILES)]
    packages.fetch(names)
    packages.unpack(root)
    shutil.rmtree(work)
    if NAME in wanted:
        write_fonts_conf()
        write_script()


def main() -> int:
    ready = HOME / "ready"
    if ready.exists():
        ready.touch()
        return 0
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    wanted = missing()
    try:
        if wanted:
            install(wanted)
    except SetupError as error:
        # All other tests work without a browser, so this is not a failure.
        shutil.rmtree(HOME)
        HOME.mkdir()
        reason = error.output.splitlines()[-1] if error.output else error.what
        (HOME / "missing").write_text(f"{reason}\n")
        print(
            f"setup: no browser, so its tests will be skipped: {reason} (check the network, or put {NAME} on PATH)",
            file=sys.stderr,
        )
        return 0
    ready.write_text("".join(f"{name}\n" for name in wanted))
    print("setup: the browser is ready" + ("" if wanted else " (on PATH)"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
