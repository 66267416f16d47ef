"""Builds the CPU kernel ahead of its first use, and checks it:

    python -m litedetr.ops.build

Say it in a container's recipe, where the first visitor should not wait for a compiler; `LITEDETR_CACHE` sets the folder.
"""

import sys

from litedetr.ops import native


def main() -> int:
    """The command: returns 0, or 1 with a sentence that says what is missing."""
    reason = native.reason_unavailable()
    if reason is not None:
        sys.stderr.write(f"The fast attention kernel is not available: {reason}\n")
        return 1
    sys.stdout.write(f"{native.library_file()}: built, and agrees with the reference ({native.instructions()})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
