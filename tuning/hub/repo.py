"""What models and data sets on the hub share: files with their hashes, a folder in the cache, errors as sentences.

A look-up fills a `HubRepo`, and a download fetches it. No error text of the library is shown, so none can carry a
token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tuning.core.errors import ModelError
from tuning.models.base_model import cache_folder

TOKEN = "token"
"""The field a problem names where a token would help."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the hub: `key` is its hash, by which the cache names it (SHA-256 of a large file, else git's SHA-1)."""

    name: str
    size: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRepo:
    """A model or a data set as the hub describes it, at one commit. `files` are those to fetch; sizes in bytes."""

    repo_type: ClassVar[str] = "model"
    """The type in the hub's own interface, `model` or `dataset`."""
    words: ClassVar[str] = "model"
    """The type in sentences for a person."""

    id: str
    revision: str | None
    commit: str
    files: tuple[HubFile, ...]
    licence: str | None
    gated: bool
    locked: bool
    """Whether it is gated and this token gives no access: a file of it could not be read."""
    problem: str | None
    """What keeps it from being used here, with the fix; None where nothing does."""

    @property
    def title(self) -> str:
        """The id without its owner."""
        return self.id.rpartition("/")[2]

    @property
    def folder(self) -> Path:
        """Its folder in the cache."""
        return cache_folder() / f"{self.repo_type}s--{self.id.replace('/', '--')}"

    @property
    def total_bytes(self) -> int:
        """Bytes of all files to fetch."""
        return sum(file.size for file in self.files)


def hub_file(sibling: Any) -> HubFile:
    """A file as the library lists it (RepoSibling)."""
    key = sibling.lfs.sha256 if sibling.lfs else str(sibling.blob_id)
    return HubFile(sibling.rfilename, int(sibling.size or 0), key)


def licence_of(card: dict[str, Any]) -> str | None:
    """The licence that a card names, or several of them in one text."""
    licence = card.get("license_name") or card.get("license")
    if isinstance(licence, list):
        licence = ", ".join(map(str, licence))
    return str(licence) if licence else None


@contextmanager
def translate_hub_errors(
    name: str, revision: str | None, token: str | None, words: str = HubRepo.words
) -> Iterator[None]:
    """Within the block, an error of the library becomes a ModelError: its own text holds addresses and headers, and is
    not shown."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise _translated(error, name, revision, token is not None, words) from None


def _translated(error: Exception, name: str, revision: str | None, has_token: bool, words: str) -> ModelError:
    """The ModelError for an error of the library, by its class or its HTTP status."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    rights = "the token may not read it" if has_token else "it needs a token"
    if isinstance(error, errors.GatedRepoError):
        message = f"{name} is gated, and {rights}: accept its licence on the hub's page, then paste a token."
        return ModelError(message, name, "a token with access", TOKEN)
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{name} has no revision {revision!r}", revision, "a branch, tag or commit", "revision")
    if isinstance(error, errors.RepositoryNotFoundError):
        message = f"The hub has no {words} {name}, or it is private and {rights}; check the spelling of org/name."
        return ModelError(message, name, f"a {words} on the hub", TOKEN if has_token else "model")
    if status in (401, 403):
        return ModelError(f"The hub refuses {name}: {rights}. Check the token.", name, "a token with access", TOKEN)
    if status is not None:
        return ModelError(f"The hub answers {status} for {name}; try again later.", name, "an answer from the hub")
    kind = type(error).__name__
    return ModelError(f"The hub could not be asked about {name} ({kind}); try again.", name, "an answer from the hub")
