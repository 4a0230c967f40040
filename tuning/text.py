"""Text as a model reads it: row types, tokenization, and which tokens are trained on.

Comes in: a `Row` and a model folder's tokenizer.json.  Goes out: token ids with a mask that says which of them count
in the loss.  Uses the `tokenizers` package alone; torch is not needed to count tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tuning.chat import ChatTemplateError, render
from tuning.errors import DataError, ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One example; which fields are set says its type."""

    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: tuple[tuple[str, str], ...] | None = None
    label: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One example as tokens; `trained[i]` says that predicting token i counts in the loss."""

    ids: list[int]
    trained: list[bool]
    label: int | None
    cut: bool
    """True where the row was longer than max_seq_length."""

    @property
    def trained_tokens(self) -> int:
        """Labels the loss counts; the first token has nothing before it to be predicted from."""
        return sum(self.trained[1:])


class TextTokenizer:
    """A model folder's fast tokenizer, without torch."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the package raises a bare Exception for every fault
            raise ModelError(f"tokenizer.json of {folder.name} cannot be read: {error}", str(folder)) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._config = _json(folder / "tokenizer_config.json")
        model = _json(folder / "config.json")
        self.bos_id = self._special("bos_token", model.get("bos_token_id"))
        self.eos_id = self._special("eos_token", model.get("eos_token_id"))
        self.pad_id = self._special("pad_token", model.get("pad_token_id"))
        if self.pad_id is None:  # padding is masked out of loss and attention, so any token does
            self.pad_id = self.eos_id if self.eos_id is not None else 0
        template = folder / "chat_template.jinja"
        saved = self._config.get("chat_template")
        self.chat_template: str | None = template.read_text(encoding="utf-8") if template.is_file() else saved

    def _special(self, name: str, fallback: Any) -> int | None:
        token = self._config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        found = self._tokenizer.token_to_id(token) if isinstance(token, str) else None
        if found is None and isinstance(fallback, list):
            fallback = fallback[0] if fallback else None
        return found if found is not None else fallback

    def encode(self, text: str) -> list[int]:
        """Token ids of the text alone, without special tokens around it."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_with_specials(self, text: str) -> list[int]:
        """Token ids as the tokenizer itself frames a text (BERT's [CLS] and [SEP])."""
        return list(self._tokenizer.encode(text).ids)

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def render_chat(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        """The conversation as the model's chat template writes it; raises DataError naming what failed."""
        if not self.chat_template:
            message = "these rows are conversations, but the model's tokenizer has no chat template; use a chat model"
            raise DataError(message, "messages", "a tokenizer with a chat template")
        names = {key: self._decoded_special(key) for key in ("bos_token", "eos_token", "pad_token")}
        try:
            return render(self.chat_template, messages, names, add_generation_prompt)
        except ChatTemplateError as error:
            raise DataError(f"the chat template cannot write this conversation: {error}", "messages") from None

    def _decoded_special(self, key: str) -> str:
        token = self._config.get(key) or ""
        return str(token.get("content", "") if isinstance(token, dict) else token)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def encode_row(
    row: Row, tokenizer: TextTokenizer, *, max_seq_length: int, loss_on: str, task: str, system_prompt: str | None
) -> Encoded:
    """The row's tokens and label mask, cut to `max_seq_length` tokens.

    A prompt that leaves no room for its answer is shortened from the left, so that the answer is never cut away
    whole. Raises DataError where a conversation cannot be written.
    """
    if task == "sequence_classification":
        ids = tokenizer.encode_with_specials(row.text or "")
        kept = ids if len(ids) <= max_seq_length else ids[: max_seq_length - 1] + ids[-1:]
        return Encoded(ids=kept, trained=[False] * len(kept), label=row.label, cut=len(ids) > max_seq_length)
    if row.messages is not None:
        parts = _chat_parts(row, tokenizer, loss_on, system_prompt)
    elif row.completion is not None:
        prompt = f"{system_prompt}\n{row.prompt}" if system_prompt else row.prompt or ""
        parts = [(tokenizer.encode(prompt), loss_on == "all"), (tokenizer.encode(row.completion), True)]
    else:
        parts = [(tokenizer.encode(row.text or ""), True)]
    begin = [] if tokenizer.bos_id is None or row.messages is not None else [tokenizer.bos_id]
    end = [] if tokenizer.eos_id is None or row.messages is not None else [tokenizer.eos_id]
    return _cut(begin, parts, end, max_seq_length)


def _cut(begin: list[int], parts: list[tuple[list[int], bool]], end: list[int], limit: int) -> Encoded:
    ids = [(token, False) for token in begin]
    ids += [(token, trained) for tokens, trained in parts for token in tokens]
    ids += [(token, True) for token in end]
    cut = len(ids) > limit
    if cut:
        answer = next((i for i, (_, trained) in enumerate(ids) if trained and i), len(ids))
        if answer >= limit - 1:  # the prompt alone fills the row: keep its end and the start of the answer
            room = max(1, limit // 2)
            ids = ids[: len(begin)] + ids[max(len(begin), answer - (limit - room)) :]
        ids = ids[:limit]
    return Encoded(ids=[token for token, _ in ids], trained=[trained for _, trained in ids], label=None, cut=cut)


def _chat_parts(
    row: Row, tokenizer: TextTokenizer, loss_on: str, system_prompt: str | None
) -> list[tuple[list[int], bool]]:
    """The conversation in pieces, cut where the template's rendering grows with each message."""
    messages = [{"role": role, "content": content} for role, content in row.messages or ()]
    if system_prompt and (not messages or messages[0]["role"] != "system"):
        messages.insert(0, {"role": "system", "content": system_prompt})
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    parts: list[tuple[list[int], bool]] = []
    written = ""
    for index, message in enumerate(messages):
        answer = message["role"] == "assistant"
        before = tokenizer.render_chat(messages[:index], add_generation_prompt=answer) if index or answer else ""
        whole = tokenizer.render_chat(messages[: index + 1], add_generation_prompt=False)
        if not (before.startswith(written) and whole.startswith(before)):
            raise DataError("the chat template rewrites earlier turns, so answers cannot be told apart", "messages")
        trained = loss_on == "all" or (answer and (loss_on != "last_turn" or index == last))
        if len(before) > len(written):
            parts.append((tokenizer.encode(before[len(written) :]), loss_on == "all"))
        parts.append((tokenizer.encode(whole[len(before) :]), trained))
        written = whole
    return parts
