"""Builds the CPU kernel ahead of its first use, and checks it:

    python -m litedetr.ops.build

Say it in a container's recipe, where the first visitor should not wait for a compiler; `LITEDETR_CACHE` sets the folder. All of
the kernel's paths are built, because a container may run on another processor; those that this one has not got are not checked.
"""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor

from litedetr.ops import library, native


def main() -> int:
    """The command: returns 0, or 1 with a sentence that says what is missing."""
    paths = range(1, 4) if platform.machine().lower() in ("x86_64", "amd64") else (1,)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as builders:
            list(builders.map(library.build, paths))
    except library.BuildError:
        pass  # the next line says which and why
    reason = native.reason_unavailable()
    if reason is not None:
        sys.stderr.write(f"The fast attention kernel is not available: {reason}\n")
        return 1
    sys.stdout.write(f"{native.library_file()}: built, and agrees with the reference ({native.instructions()})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
