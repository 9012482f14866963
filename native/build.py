"""Build the library of the coder's loops with the machine's C compiler; without one there is none, and NumPy serves.

python native/build.py        into the source tree, for what runs from there
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("rans.c")
IN_PACKAGE = "haversack/tools/codec/_native.so"
"""Where a package has it; src/haversack/tools/codec/native.py looks there."""
FLAGS = ("-std=c11", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-s")


def compiler() -> str | None:
    """Return the C compiler: ``$CC``, or gcc; None where there is none."""
    return shutil.which(os.environ.get("CC") or "gcc")


def build(target: Path) -> str:
    """Build the library into a file, all of it or nothing.

    Returns:
        Why it could not be built; nothing where it was.
    """
    found = compiler()
    if found is None:
        return "there is no C compiler"
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        done = subprocess.run(
            [found, *FLAGS, str(SOURCE), "-o", str(made)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return f"{found} failed: {done.stderr.strip()}"
        made.replace(target)
    return ""


if __name__ == "__main__":
    told = build(SOURCE.parents[1] / "src" / IN_PACKAGE)
    sys.stdout.write(f"the coder runs in NumPy, for {told}\n" if told else "built the coder's loops\n")
