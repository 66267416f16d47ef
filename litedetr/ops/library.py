"""Compiles the CPU kernel: by itself on first use, or ahead of time with `python -m litedetr.ops.build`.

The library lands in `$LITEDETR_CACHE` (default: ~/.cache/litedetr), under a name made of a hash of everything it
depends on: another source, compiler or set of flags is another file, so nothing is ever stale.
"""

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from litedetr.shipped import shipped

FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-fvisibility=hidden", "-Wno-psabi", "-Wno-unknown-pragmas",
         "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")  # fmt: skip
THREADING = ("-fopenmp",)
"""Tried first, then left out: clang on macOS has no OpenMP, and the kernel is right without it, on one thread.

PyTorch has loaded its OpenMP runtime for everybody by then, and the library's calls go to that one: both share one set of
threads.
"""

PATIENCE = 180.0
"""Seconds after which a compiler is given up; it needs 8 on a core of its own."""

_log = logging.getLogger(__name__)


class BuildError(RuntimeError):
    """There is no compiler here, or it failed; the message says which and what to do."""


def source_folder() -> Path:
    """The folder with the kernel's sources."""
    folder = shipped("ext")
    if (folder / "attention.cpp").is_file():
        return folder
    raise BuildError(f"the kernel's source attention.cpp is not in {folder}; install litedetr again, or run its repository")


def cache_folder() -> Path:
    """Where built libraries are kept: `$LITEDETR_CACHE`, else ~/.cache/litedetr, else a folder in the temporary one."""
    if not hasattr(os, "getuid"):
        raise BuildError("the kernel is built on Linux and macOS only; here the reference runs")
    candidates = [Path(os.environ["LITEDETR_CACHE"])] if os.environ.get("LITEDETR_CACHE") else []
    candidates += [Path("~/.cache/litedetr").expanduser(), Path(tempfile.gettempdir()) / f"litedetr-{os.getuid()}"]
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        # Somebody else's folder could hold somebody else's library.
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    tried = ", ".join(map(str, candidates))
    raise BuildError(f"none of {tried} can be written to; set LITEDETR_CACHE to a folder of yours that can")


def compiler() -> str:
    """The C++ compiler: `$CXX`, else the first of g++, clang++ and c++ that is installed."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and shutil.which(name):
            return shutil.which(name)
    raise BuildError("no C++ compiler was found; install g++ (Debian: apt-get install g++) or set CXX to one")


def library_path(command: str, path: int) -> Path:
    """The file that a build with this compiler makes, of one of the kernel's paths."""
    digest = hashlib.sha256()
    for file in sorted(file for kind in ("*.h", "*.inc", "*.cpp") for file in source_folder().glob(kind)):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    _, version = _run([command, "--version"], PATIENCE)
    digest.update("\0".join((*FLAGS, *THREADING, _only(path), command, version, sys.platform)).encode())
    return cache_folder() / f"attention-{digest.hexdigest()[:20]}.so"


def build(path: int) -> Path:
    """Compiles one of the kernel's paths (`litedetr.ops.instructions`) unless that has been done, and returns the library's
    file. Takes seconds: all paths in one library would take three times as many.

    Several processes may do this at once: each compiles into a file of its own and renames it when it is whole. A library that is
    not what was built, because the disk was full or failed, is built again: to load it would end the process.

    Raises:
        BuildError: no compiler, no source, no folder to write to, or the compiler's own complaint.
    """
    command = compiler()
    library = library_path(command, path)
    if intact(library):
        return library
    _log.info("building the attention kernel with %s; this happens once and takes seconds", command)
    handle, partial = tempfile.mkstemp(suffix=".so", prefix=".building-", dir=library.parent)
    os.close(handle)
    try:
        for threading in (THREADING, ()):
            source = str(source_folder() / "attention.cpp")
            status, said = _run([command, *FLAGS, *threading, _only(path), source, "-o", partial], PATIENCE)
            if status == 0:
                keep(Path(partial), library)
                return library
        raise BuildError(f"{command} could not compile {source}: {said.strip()[-2000:]}")
    finally:
        Path(partial).unlink(missing_ok=True)


def intact(file: Path) -> bool:
    """Whether the file is what `keep` put there, by the digest that lies beside it."""
    try:
        return _digest_file(file).read_text() == hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, UnicodeDecodeError):
        return False


def keep(partial: Path, file: Path) -> None:
    """Give a file that is whole its name, and write its digest beside it. Each comes at one stroke: other processes do the
    same; who comes between the two builds again."""
    os.replace(partial, file)
    handle, written = tempfile.mkstemp(prefix=".building-", dir=file.parent)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(hashlib.sha256(file.read_bytes()).hexdigest())
        os.replace(written, _digest_file(file))
    finally:
        Path(written).unlink(missing_ok=True)


def _digest_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _run(command: list[str], patience: float) -> tuple[int, str]:
    """A program's exit status and what it said.

    Raises:
        BuildError: it did not end in time; it and all that it started were ended.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True,
    )  # fmt: skip
    with process:
        try:
            said, _ = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise BuildError(f"{command[0]} was given up after {patience:.0f} s; set CXX to another compiler") from None
    return process.returncode, said


def _only(path: int) -> str:
    return f"-DLITEDETR_ONLY={path}"
