"""A file on the hub, open for reading without being fetched whole.

It fetches the bytes that are read, a piece at a time, and no more than a few MiB in all. Range requests are enough
for every format (Parquet has its table of contents at its end), need no further library, and follow the same refusals
and time limits as a look-up.
"""

from __future__ import annotations

import io

from tuning.hub.connection import ANSWER_SECONDS
from tuning.hub.repo import HubFile, HubRepo, translate_hub_errors

PIECE_BYTES = 256 * 1024
MOST_BYTES = 16 * 2**20


class ByteLimitError(OSError):
    """The first rows cannot be read without fetching a large part of the file."""


class RemoteFile(io.RawIOBase):
    """A file on the hub, open for reading. Raises ModelError where the hub refuses it, ByteLimitError beyond
    MOST_BYTES."""

    def __init__(self, address: str, repo: HubRepo, file: HubFile, token: str | None) -> None:
        self._address, self._repo, self._file, self._token = address, repo, file, token
        self._position, self._pieces, self.fetched = 0, dict[int, bytes](), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._file.size if size is None or size < 0 else min(self._file.size, self._position + size)
        content = bytearray()
        while self._position < end:
            index, offset = divmod(self._position, PIECE_BYTES)
            part = self._piece(index)[offset : offset + end - self._position]
            if not part:
                raise OSError("the hub sent less than it listed")
            content += part
            self._position += len(part)
        return bytes(content)

    def _piece(self, index: int) -> bytes:
        """The piece of this index, from memory or from the hub."""
        if index not in self._pieces:
            if self.fetched > MOST_BYTES:
                raise ByteLimitError
            self._pieces[index] = self._fetch(index * PIECE_BYTES)
            self.fetched += len(self._pieces[index])
        return self._pieces[index]

    def _fetch(self, start: int) -> bytes:
        """The bytes of a piece from `start` on."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        repo, last = self._repo, min(start + PIECE_BYTES, self._file.size) - 1
        url = hf_hub_url(
            repo.id, self._file.name, repo_type=repo.repo_type, revision=repo.commit, endpoint=self._address
        )
        headers = build_hf_headers(token=self._token or False)
        headers |= {"Accept-Encoding": "identity", "Range": f"bytes={start}-{last}"}
        with translate_hub_errors(repo.id, repo.commit, self._token, repo.words):
            request = get_session().stream("GET", url, headers=headers, timeout=ANSWER_SECONDS, follow_redirects=True)
            with request as answer:
                hf_raise_for_status(answer)
                skipped = start if answer.status_code == 200 else 0  # a server that knows no ranges sends all of it
                content = bytearray()
                for chunk in answer.iter_raw():
                    content += chunk
                    if len(content) > skipped + last - start:
                        break
        return bytes(content[skipped : skipped + last - start + 1])
