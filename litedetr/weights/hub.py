"""The Hub: weights from it and to it, and a sentence for everything that can go wrong on the way.

config.json comes first; the big file is asked for only once the config is understood. What was downloaded stays in
huggingface_hub's cache and is found there offline.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from tqdm import tqdm

from litedetr.config import DetectorConfig
from litedetr.cost import parameters
from litedetr.network import Network
from litedetr.weights.errors import WeightsError, is_full
from litedetr.weights.folder import CONFIG_BYTES, PLACE, read, understand, write
from litedetr.weights.limits import Limits, Progress, check_size, make_room

PATIENCE = 10.0
"""Seconds that the Hub has for its first answer."""

_HTTPError = HfHubHTTPError.__bases__[0]  # of the HTTP library that huggingface_hub uses


class MissingFileError(WeightsError):
    """The repository is there and a file of it is not."""


class MoreThanSaid(Exception):
    """A file brings more bytes than the Hub said it has."""


def download(
    repo: str,
    revision: str | None = None,
    token: str | bool | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> Path:
    """The folder in huggingface_hub's cache that holds config.json and the weights of one commit.

    Args:
        repo: "owner/name".
        revision: branch, tag or commit; the newest of the main branch if None.
        token: the one saved by ``hf auth login`` if None.
        progress: told (bytes done, bytes in all) of the weights.
        limits: of a model that is not trusted: what is larger is not downloaded, and no pickle is.

    Raises:
        WeightsError: the message says what is wrong and what to do.
    """
    from_hub = Source(repo, token, limits)
    folder = from_hub.fetch("config.json", revision).parent
    commit = folder.name
    own = understand(folder, repo, limits) is not None
    try:
        from_hub.fetch("model.safetensors", commit, progress)
    except MissingFileError:
        if own or limits is not None:
            raise
        from_hub.fetch("pytorch_model.bin", commit, progress)
    return folder


def push(source: Network | str | Path, repo: str, private: bool | None = None, token: str | bool | None = None) -> str:
    """Upload config.json, model.safetensors, README.md and the pictures (.svg) beside it; a repository is made where none is.

    Args:
        source: a detector, or a weights folder in this project's format.
        repo: "owner/name".
        private: of a new repository.
        token: one that may write; the one saved by ``hf auth login`` if None.

    Returns:
        The address of the model's page.

    Raises:
        WeightsError: the folder holds no loadable model, or the Hub does not take it.
    """
    if isinstance(source, Network):
        with tempfile.TemporaryDirectory() as folder:
            write(source.config, source.state_dict(), folder)
            return _upload(Path(folder), source.config, repo, private, token)
    folder = Path(source)
    if understand(folder, folder.name) is None:
        raise WeightsError(
            f"expected a folder in litedetr's own format, got one of transformers in {folder.name}: convert it first, with "
            f'"python -m litedetr convert {folder} FOLDER"'
        )
    return _upload(folder, read(folder, folder.name)[0], repo, private, token)


def model_card(c: DetectorConfig, repo: str) -> str:
    """A README for a model that has none."""
    names = ", ".join(c.names[:20]) + (", …" if len(c.names) > 20 else "")
    return f"""---
library_name: litedetr
pipeline_tag: object-detection
tags:
- object-detection
---
# {repo.split("/")[-1]}

An object detector of the family `{c.family}` with the backbone `{c.backbone}` and the encoder schedule `{c.schedule}`,
{parameters(c) / 1e6:.1f} million parameters.

```python
from litedetr import Detector

detector = Detector.from_pretrained("{repo}")
print(detector.predict("photo.jpg").names)
```

Classes ({c.num_classes}): {names}.
"""


@dataclass(frozen=True)
class Source:
    """A repository, and on what terms its files are taken."""

    repo: str
    token: str | bool | None
    limits: Limits | None

    def fetch(self, file: str, revision: str | None, progress: Progress | None = None) -> Path:
        """One file, from the cache where it is up to date or the Hub cannot be asked."""
        repo, cache = self.repo, self.limits.cache if self.limits else None
        try:
            # One short question first: huggingface_hub itself would try for half a minute where nobody answers.
            about = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision), token=self.token, timeout=PATIENCE)
        except RemoteEntryNotFoundError as error:
            raise MissingFileError(
                f"expected {file} in {repo}, got a repository without it: choose one that holds a litedetr model or a "
                f"transformers model of the type deformable_detr{'' if self.limits is None else ', as safetensors'}."
            ) from error
        except (HFValidationError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise WeightsError(_refusal(error, repo, revision)) from error
        except (OfflineModeIsEnabled, _HTTPError, OSError) as error:
            cached = try_to_load_from_cache(repo, file, cache_dir=cache, revision=revision)
            if isinstance(cached, str):
                return Path(cached)
            raise WeightsError(_refusal(error, repo, revision)) from error
        cached = try_to_load_from_cache(repo, file, cache_dir=cache, revision=about.commit_hash)
        self.admit(file, about.size, isinstance(cached, str))
        bar = _bar(progress, about.size)
        try:
            return Path(hf_hub_download(repo, file, revision=revision, token=self.token, cache_dir=cache, tqdm_class=bar))
        except MoreThanSaid as error:
            raise WeightsError(
                f"expected {about.size:,} bytes of {file} from {repo}, as the Hub said, got more, and the download was stopped: "
                "choose another model."
            ) from error
        except (_HTTPError, OSError) as error:
            if is_full(error):
                raise WeightsError(_no_room(file, repo)) from error
            done = f"after {bar.done:,} of {bar.all:,} bytes" if bar.all else "before its first byte"
            raise WeightsError(
                f"The download of {file} from {repo} broke off {done} ({_reason(error)}): check the connection and load it again."
            ) from error

    def admit(self, file: str, size: int | None, there: bool) -> None:
        """Refuse a file by the size that the Hub tells, and make room for it on the disk.

        Raises:
            WeightsError: it is too large, or nobody says how large it is.
        """
        if file == "config.json":
            if size is None or size > CONFIG_BYTES:
                raise WeightsError(
                    f"expected a config.json of at most {CONFIG_BYTES / 1e6:.0f} MB in {self.repo}, got "
                    f"{'one of unknown size' if size is None else f'{size / 1e6:,.0f} MB'}: choose another model."
                )
        elif self.limits is not None:
            if size is None:
                raise WeightsError(f"The Hub does not say how large {file} of {self.repo} is: choose another model.")
            check_size(size, (), self.repo, self.limits)
        if self.limits is not None and self.limits.cache is not None:
            keep = repo_folder_name(repo_id=self.repo, repo_type="model")
            if not make_room(
                self.limits.cache, 0 if there else size or 0, self.limits.cache_bytes, keep, begins=file == "config.json"
            ):
                raise WeightsError(_no_room(file, self.repo))


def _refusal(error: Exception, repo: str, revision: str | None) -> str:
    """The sentence for what the Hub answers, or that it does not."""
    hub = constants.ENDPOINT
    match error:
        case HFValidationError():
            return f'expected a model\'s name on the Hub like "owner/name", got {repo!r}: check the spelling.'
        case GatedRepoError():
            return f'{repo} is gated: accept its terms at {hub}/{repo}, log in with "hf auth login", and load it again.'
        case RevisionNotFoundError():
            return (
                f"expected a branch, tag or commit of {repo}, got {revision!r}, which it does not have: leave the revision out "
                "for the newest."
            )
        case RepositoryNotFoundError():
            return (
                f"The Hub has no model {repo}, or none that you may read: check the spelling, or log in with "
                '"hf auth login" if it is private.'
            )
        case OfflineModeIsEnabled():
            return (
                f"{repo} is not in the cache, and HF_HUB_OFFLINE forbids asking the Hub: load it once while online, or unset "
                "HF_HUB_OFFLINE."
            )
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            return f'The Hub refused the token for {repo}: log in again with "hf auth login", or unset HF_TOKEN.'
        case HfHubHTTPError():
            return (
                f"The Hub at {hub} answered {repo} with the error {error.response.status_code}, and it is not in the cache: try "
                "again in a while."
            )
    return f"The Hub at {hub} cannot be reached, and {repo} is not in the cache: check the connection and try again."


def _bar(progress: Progress | None, size: int | None) -> type[tqdm]:
    """A progress bar for huggingface_hub that counts, and tells `progress` instead of drawing where one is given. It ends a
    download that brings more than ``size`` bytes: the library itself would look only at its end."""

    class Bar(tqdm):
        done = all = 0

        def __init__(self, *args, name: str | None = None, **options):
            options["disable"] = options.get("disable") or progress is not None or None
            super().__init__(*args, **options)
            Bar.done, Bar.all = options.get("initial") or 0, options.get("total") or 0

        def update(self, n: float | None = 1) -> bool | None:
            Bar.done += int(n or 0)
            if size is not None and Bar.done > size:
                raise MoreThanSaid
            if progress is not None:
                progress(Bar.done, Bar.all)
            return super().update(n)

    return Bar


def _upload(folder: Path, config: DetectorConfig, repo: str, private: bool | None, token: str | bool | None) -> str:
    card = folder / "README.md"
    files = [CommitOperationAdd(name, folder / name) for name in ("config.json", "model.safetensors")]
    text = card.read_text(encoding="utf-8").replace(PLACE, repo) if card.is_file() else model_card(config, repo)
    files += [CommitOperationAdd(path.name, path) for path in sorted(folder.glob("*.svg"))]  # that the card shows
    api = HfApi(token=token)
    with may_write(repo):
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.create_commit(
            repo, [*files, CommitOperationAdd("README.md", text.encode())], commit_message=f"Upload {config.family} weights"
        )
    return str(address)


@contextmanager
def may_write(repo: str) -> Iterator[None]:
    """Around requests that write to a repository: what goes wrong is a `WeightsError` with a sentence."""
    try:
        yield
    except HFValidationError as error:
        raise WeightsError(_refusal(error, repo, None)) from error
    except OfflineModeIsEnabled as error:
        raise WeightsError("Nothing was uploaded, because HF_HUB_OFFLINE forbids it: unset HF_HUB_OFFLINE.") from error
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403, 404):
            raise WeightsError(
                f'The Hub does not let you write to {repo}: log in with "hf auth login" and a token that may write, and choose a '
                "name under your own account."
            ) from error
        raise WeightsError(f"The Hub did not take {repo} (error {code}: {_reason(error)}): try again in a while.") from error
    except (_HTTPError, OSError) as error:
        raise WeightsError(
            f"The Hub at {constants.ENDPOINT} cannot be reached, so {repo} was not uploaded ({_reason(error)}): check the "
            "connection and try again."
        ) from error


def _no_room(file: str, repo: str) -> str:
    return f"There is no room for {file} of {repo} on this machine's disk: choose a smaller model, or make room."


def _reason(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:120]
