"""Write the digests of each pinned version's files into requirements*.txt.

`make hashes` runs it after a version was changed, or a line `name==version` was added. It lists all files that the
index has of a version, so that the lines are valid for every Python, processor and system. Lines above the first pin
are kept.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = "3.11"  # the oldest Python that the versions have to support


def main() -> int:
    for path in sorted(ROOT.glob("requirements*.txt")):
        head, pins = parts(path.read_text("utf-8"))
        done = subprocess.run(
            [
                sys.executable, "-m", "uv", "pip", "compile", "-q", "-", "--no-deps", "--universal",
                "--python-version", OLDEST, "--generate-hashes", "--no-annotate", "--no-header",
            ],
            input="\n".join(pins),
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            print(f"{path.name}: {done.stderr.strip()}", file=sys.stderr)
            return 1
        path.write_text("".join(f"{line}\n" for line in head) + done.stdout, "utf-8")
        print(f"{path.name}: {len(pins)} versions, {done.stdout.count('--hash=')} digests")
    return 0


def parts(text: str) -> tuple[list[str], list[str]]:
    """Return the comments and options of a requirements file, and its pins without digests."""
    lines = [line.removesuffix("\\").strip() for line in text.splitlines()]
    head = [line for line in lines if line.startswith(("#", "-r"))]
    pins = [line for line in lines if line and not line.startswith(("#", "-"))]
    return head, pins


if __name__ == "__main__":
    sys.exit(main())
