"""The page as a Space of one's own:

    python -m app.deploy OWNER/NAME                              # free hardware: two CPU cores
    python -m app.deploy OWNER/NAME --hardware zero-a10g         # ZeroGPU; any other name the Hub knows is a GPU's
    python -m app.deploy OWNER/NAME --model lite-dino-r50-h3l1-2x3       # starts with this model: a published one, or owner/name
    python -m app.deploy OWNER/NAME --dry-run                    # what would be uploaded, and nothing else

Log in first, with ``hf auth login``. The same command again brings the Space up to date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, SpaceCard

from app.run.model_list import listed
from app.run.state import HUB_ID
from litedetr.weights import WeightsError
from litedetr.weights.hub import may_write
from litedetr.weights.published import catalogue, lookup

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "app": (".py", ".json", ".html", ".css", ".js"),
    "litedetr": (".py", ".md", ".json"),
    "ext": (".cpp", ".cu", ".cuh", ".h", ".inc", ".md"),
    "assets": (".md", ".json", ".jpg", ".svg", ".safetensors"),
    "docs": (".md", ".png"),
}
"""What the Space needs, and the kinds of files that belong there: anything else that lies about stays at home."""
FILES = ("app.py", "packages.txt", "LICENSE")
FREE = "cpu-basic"
ZERO = "zero-a10g"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
"""Where PyTorch without CUDA comes from: a tenth of the download, and nothing that two CPU cores could use is missing."""


def contents(hardware: str = FREE, model: str | None = None) -> dict[str, Path | bytes]:
    """Every file of the Space by its path there: a file of this project, or what is written for this hardware."""
    found: dict[str, Path | bytes] = {name: ROOT / name for name in FILES}
    for folder, kinds in FOLDERS.items():
        found |= {path.relative_to(ROOT).as_posix(): path for path in _files(ROOT / folder) if path.suffix in kinds}
    found["README.md"] = readme(hardware, model).encode()
    found["requirements.txt"] = requirements(hardware).encode()
    return dict(sorted(found.items()))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__pycache__")) or path.is_symlink():
            continue  # litedetr/ext and litedetr/assets are links to ext/ and assets/, which are there anyway
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def requirements(hardware: str = FREE) -> str:
    """The project's pinned packages for the Space's image, which brings Gradio itself, as its README says."""
    lines = [line for line in _pins() if not line.startswith("gradio==")]
    if hardware.startswith("cpu-"):
        lines = [f"--extra-index-url {CPU_WHEELS}", *(re.sub(r"^torch==[\d.]+$", r"\g<0>+cpu", line) for line in lines)]
    return "\n".join(lines) + "\n"


def readme(hardware: str = FREE, model: str | None = None) -> str:
    """The project's README with the front matter of this Space."""
    card = SpaceCard((ROOT / "README.md").read_text(encoding="utf-8"))
    card.data.sdk_version = next(line for line in _pins() if line.startswith("gradio==")).removeprefix("gradio==")
    card.data.suggested_hardware = hardware
    card.data.models = [model.source for model in listed(extras=False).values() if HUB_ID.match(model.source)]
    if model is not None and (HUB_ID.match(model) or (model in catalogue() and catalogue()[model].repo)):
        repo = model if HUB_ID.match(model) else catalogue()[model].repo
        card.data.preload_from_hub = [f"{repo} config.json,model.safetensors"]
    elif model is not None:
        card.data.startup_duration_timeout = "1h"  # it is downloaded and converted when the Space starts
    if hardware == ZERO:
        card.data.python_version = "3.12"  # ZeroGPU has no 3.11
    return str(card)


def _pins() -> list[str]:
    return (ROOT / "requirements.txt").read_text(encoding="utf-8").split()


def _listing(files: dict[str, Path | bytes]) -> str:
    sizes = {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}
    lines = [f"{size:>12,}  {name}" for name, size in sizes.items()]
    return "\n".join([*lines, f"{sum(sizes.values()):>12,}  bytes in {len(sizes)} files"])


def dry_run(hardware: str = FREE, model: str | None = None) -> str:
    """What would be uploaded: every path with its size, and what is written for the Space."""
    files = contents(hardware, model)
    front = readme(hardware, model).split("---\n")[1]
    return f"{_listing(files)}\n\nREADME.md begins with:\n{front}\nrequirements.txt:\n{requirements(hardware)}"


def deploy(
    repo: str, hardware: str | None = None, private: bool | None = None, token: str | None = None, model: str | None = None
) -> str:
    """Upload the Space, made where there is none, and ask for its hardware.

    Args:
        repo: "owner/name".
        hardware: a name that the Hub knows; None for free hardware, or what the Space has.
        private: of a new Space.
        token: one that may write; the one saved by ``hf auth login`` if None.
        model: that the page starts with: "owner/name", or a name of the published weights; None for what the Space has.

    Returns:
        The Space's address.

    Raises:
        WeightsError: the Hub does not take it; the message says why.
    """
    files = contents(hardware or FREE, model)
    api = HfApi(token=token)
    with may_write(repo):
        address = api.create_repo(repo, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        there = api.list_repo_files(repo, repo_type="space")
        gone = [name for name in there if name.split("/")[0] in FOLDERS and name not in files]
        operations = [CommitOperationAdd(name, file) for name, file in files.items()]
        api.create_commit(
            repo, [*operations, *map(CommitOperationDelete, gone)], commit_message="Lite DETR, live", repo_type="space"
        )
    if model is not None:
        with may_write(repo):
            api.add_space_variable(repo, "LITEDETR_MODEL", model)
    if hardware is not None:
        try:
            with may_write(repo):
                api.request_space_hardware(repo, hardware)
        except WeightsError as error:
            raise WeightsError(f"{repo} is uploaded, but it does not get the hardware {hardware}. {error}") from error
    return str(address)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m app.deploy", description="Put the page on the Hub as a Space.")
    parser.add_argument("repo", metavar="OWNER/NAME", help="the Space, which is made where there is none")
    parser.add_argument("--hardware", help=f"{FREE} (the default, free), {ZERO} (ZeroGPU), t4-small, l4x1, …")
    parser.add_argument("--model", help="that the page starts with: owner/name, or a preset with published weights")
    parser.add_argument("--private", action="store_true", default=None, help="a new Space that others cannot see")
    parser.add_argument("--dry-run", action="store_true", help="print what would be uploaded, and upload nothing")
    given = parser.parse_args(arguments)
    try:
        if not HUB_ID.match(given.repo):
            raise WeightsError(f'expected a Space\'s name like "owner/name", got {given.repo!r}: check the spelling.')
        if given.model is not None and not HUB_ID.match(given.model):
            lookup(given.model)
        if given.dry_run:
            print(dry_run(given.hardware or FREE, given.model))
        else:
            print(deploy(given.repo, given.hardware, given.private, model=given.model))
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
