"""Text as a model reads it: row types, tokenization, and which tokens are trained on.

Comes in: a `Row` and a model folder's tokenizer.json.  Goes out: token ids with a mask that says which of them count
in the loss.  Uses the `tokenizers` package alone; torch is not needed to count tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tuning.chat import ChatTemplateError, render
from tuning.errors import DataError, ModelError


class ConversationError(DataError):
    """One conversation that the chat template does not write, though it writes others."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation, in the words of chat templates."""

    role: str
    content: str
    learned: bool = True
    """False where the data say that this turn is not to be learned (weight 0, train false). Only turns of the
    assistant are ever learned, unless loss_on is `all`."""
    extra: str = ""
    """Further keys of the message that a chat template may write (tool_calls, name, tool_call_id, reasoning_content),
    as one JSON object; empty where there are none. Text, so that rows can be compared and hashed."""

    def message(self) -> dict[str, Any]:
        """The turn as a chat template takes it."""
        return {"role": self.role, "content": self.content, **(json.loads(self.extra) if self.extra else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One example; which fields are set says its type."""

    text: str | None = None
    text_pair: str | None = None
    """The second text of a pair, in the tokenizer's own form for pairs; for classes only."""
    prompt: str | None = None
    completion: str | None = None
    messages: tuple[Turn, ...] | None = None
    system: str | None = None
    """This row's own system prompt, in place of data.system_prompt."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier questions and answers of a prompt with a completion, oldest first."""
    tools: str | None = None
    """The tools of a conversation as JSON (a list of function schemas), for the chat template."""
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
        size = model.get("vocab_size")
        if self.pad_id is not None and isinstance(size, int) and self.pad_id >= size:
            self.pad_id = None  # a token without an embedding
        if self.pad_id is None:  # padding is masked out of loss and attention, so any token does
            self.pad_id = self.eos_id if self.eos_id is not None else 0
        added = self._tokenizer.get_added_tokens_decoder()
        ends = {id for id in (self.bos_id, self.eos_id, self.pad_id) if id is not None}
        self.special_ids: frozenset[int] = frozenset({id for id, one in added.items() if one.special} | ends)
        self._anchor = self._find_anchor()
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

    def _find_anchor(self) -> list[int] | None:
        """Tokens of a line end, for tokenizers that put a space before every text; None where they add nothing."""
        plain = self.encode("a")
        if not plain or (self.piece(plain[0]) or "a")[0] not in "\u2581\u0120":
            return None
        anchor = self.encode("\n")
        return anchor if self.encode("\na")[: len(anchor)] == anchor else None

    def encode(self, text: str) -> list[int]:
        """Token ids of the text alone, without special tokens around it."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_many(self, texts: list[str]) -> list[list[int]]:
        """The same for many texts at once."""
        return [one.ids for one in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_pieces(self, pieces: list[tuple[str, bool]]) -> list[list[int]]:
        """Token ids of texts; (text, True) goes on from the text before it, so that no space is put between them."""
        anchor = self._anchor
        if anchor is None:
            return self.encode_many([text for text, _ in pieces])
        found = self.encode_many(["\n" + text if follows and text else text for text, follows in pieces])
        return [
            ids[len(anchor) :] if follows and text else ids for ids, (text, follows) in zip(found, pieces, strict=True)
        ]

    def piece(self, token: int) -> str | None:
        """The token as the vocabulary writes it; None for an id that is not in it."""
        return self._tokenizer.id_to_token(token)

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
            raise ConversationError(f"the chat template cannot write this conversation: {error}", "messages") from None

    def _decoded_special(self, key: str) -> str:
        token = self._config.get(key) or ""
        return str(token.get("content", "") if isinstance(token, dict) else token)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of a row's text: trained on or only seen."""

    text: str
    trained: bool
    answer: bool = False
    """Ends with the end of a turn: blank space after its last special token is the template's, not the answer's."""
    after_answer: bool = False
    """Begins with the special token that ends the answer before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelled:
    """A whole row as tokens, before it is cut; the first `fixed` tokens are kept however it is cut."""

    ids: list[int]
    trained: list[bool]
    fixed: int
    label: int | None

    def kept(self, limit: int) -> tuple[int, int, int]:
        """What fits `limit` tokens: ids[:a] and ids[b:c].

        A prompt that leaves no room for its answer is shortened from the left, so that the answer is never cut away
        whole; a text with a class keeps its beginning and its last token.
        """
        count = len(self.ids)
        if count <= limit:
            return count, count, count
        if self.label is not None:
            return limit - 1, count - 1, count
        answer = next((place for place, trained in enumerate(self.trained) if trained and place), count)
        if answer < limit - 1:
            return limit, limit, limit
        room = max(1, min(count - answer, limit // 2))
        start = max(self.fixed, answer - (limit - self.fixed - room))
        return self.fixed, start, min(count, start + limit - self.fixed)

    def cut(self, limit: int) -> Encoded:
        first, start, stop = self.kept(limit)
        return Encoded(
            ids=self.ids[:first] + self.ids[start:stop],
            trained=self.trained[:first] + self.trained[start:stop],
            label=self.label,
            cut=len(self.ids) > limit,
        )


def encode_row(
    row: Row, tokenizer: TextTokenizer, *, max_seq_length: int, loss_on: str, task: str, system_prompt: str | None
) -> Encoded:
    """The row's tokens and label mask, cut to `max_seq_length`. Raises DataError where it cannot be written."""
    (one,) = encode_rows(
        [row], tokenizer, max_seq_length=max_seq_length, loss_on=loss_on, task=task, system_prompt=system_prompt
    )
    return one


def encode_rows(
    rows: Sequence[Row],
    tokenizer: TextTokenizer,
    *,
    max_seq_length: int,
    loss_on: str,
    task: str,
    system_prompt: str | None,
) -> list[Encoded]:
    """The same for many rows at once."""
    found = spell_rows(rows, tokenizer, loss_on=loss_on, task=task, system_prompt=system_prompt)
    return [one.cut(max_seq_length) for one in found]


def spell_rows(
    rows: Sequence[Row], tokenizer: TextTokenizer, *, loss_on: str, task: str, system_prompt: str | None
) -> list[Spelled]:
    """Whole rows as tokens with their label masks. Raises DataError where a conversation cannot be written."""
    if task == "sequence_classification":
        texts = (tokenizer.encode_with_specials(row.text or "") for row in rows)
        return [Spelled(ids=ids, trained=[False] * len(ids), fixed=0, label=row.label) for ids, row in zip(texts, rows)]
    pieces = [_pieces(row, tokenizer, loss_on, system_prompt) for row in rows]
    flat = tokenizer.encode_pieces([(one.text, place > 0) for of_row in pieces for place, one in enumerate(of_row)])
    spelled, tokens = [], iter(flat)
    for row, of_row in zip(rows, pieces, strict=True):
        ids: list[int] = []
        trained: list[bool] = []
        for piece, own in zip(of_row, tokens, strict=False):
            ids += own
            trained += _mask(piece, own, tokenizer)
        spelled.append(_framed(ids, trained, row, tokenizer))
    return spelled


def _framed(ids: list[int], trained: list[bool], row: Row, tokenizer: TextTokenizer) -> Spelled:
    """With begin and end; a chat template writes its own. The end is learned where anything is."""
    chat = row.messages is not None
    begin = [] if tokenizer.bos_id is None or chat else [tokenizer.bos_id]
    end = [] if tokenizer.eos_id is None or chat else [tokenizer.eos_id]
    mask = [False] * len(begin) + trained + [any(trained)] * len(end)
    return Spelled(ids=begin + ids + end, trained=mask, fixed=len(begin), label=None)


def _mask(piece: Piece, ids: list[int], tokenizer: TextTokenizer) -> list[bool]:
    special = [place for place, token in enumerate(ids) if token in tokenizer.special_ids]
    if piece.trained and piece.answer and special and not tokenizer.decode(ids[special[-1] + 1 :]).strip():
        return [place <= special[-1] for place in range(len(ids))]
    if piece.after_answer and special and not tokenizer.decode(ids[: special[0]]).strip():
        return [piece.trained or place <= special[0] for place in range(len(ids))]
    return [piece.trained] * len(ids)


def _pieces(row: Row, tokenizer: TextTokenizer, loss_on: str, system_prompt: str | None) -> list[Piece]:
    if row.messages is not None:
        return _chat_pieces(row.messages, tokenizer, loss_on, system_prompt)
    if row.completion is not None:
        prompt = headed(row.prompt or "", system_prompt)
        answer = Piece(text=row.completion, trained=bool(row.completion.strip()))
        return [Piece(text=prompt, trained=loss_on == "all"), answer]
    return [Piece(text=row.text or "", trained=bool((row.text or "").strip()))]


def headed(prompt: str, system_prompt: str | None) -> str:
    """A prompt that is no chat, behind the system prompt."""
    return f"{system_prompt}\n{prompt}" if system_prompt else prompt


def _chat_pieces(
    turns: tuple[Turn, ...], tokenizer: TextTokenizer, loss_on: str, system_prompt: str | None
) -> list[Piece]:
    """The conversation in pieces: what stands before each answer, and the answer with the end of its turn."""
    messages = [turn.message() for turn in turns]
    if system_prompt and (not messages or messages[0]["role"] != "system"):
        messages.insert(0, {"role": "system", "content": system_prompt})
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    learned = set(answers[-1:] if loss_on == "last_turn" else answers)
    learned = {place for place in learned if messages[place]["content"].strip() or loss_on == "all"}
    whole = tokenizer.render_chat(messages, add_generation_prompt=False)
    pieces = _grown(messages, answers, learned, tokenizer, whole) or _marked(
        messages, answers, learned, tokenizer, whole
    )
    if pieces is None:
        raise ConversationError("the chat template rewrites earlier turns, so answers cannot be told apart", "messages")
    if loss_on == "all":
        return [Piece(text=piece.text, trained=True) for piece in pieces if piece.text]
    return [piece for piece in pieces if piece.text]


def _grown(
    messages: list[dict[str, str]], answers: list[int], learned: set[int], tokenizer: TextTokenizer, whole: str
) -> list[Piece] | None:
    """Cut where the rendering grows with each answer: exactly what the model is given when it has to answer."""
    pieces, written = [], ""
    for place in answers:
        try:
            before = tokenizer.render_chat(messages[:place], add_generation_prompt=True)
            after = tokenizer.render_chat(messages[: place + 1], add_generation_prompt=False)
        except ConversationError:  # some templates refuse to write a part of a conversation
            return None
        if not (before.startswith(written) and after.startswith(before) and whole.startswith(after)):
            return None
        pieces.append(Piece(text=before[len(written) :], trained=False))
        pieces.append(Piece(text=after[len(before) :], trained=place in learned, answer=True))
        written = after
    return [*pieces, Piece(text=whole[len(written) :], trained=False)]


def _marked(
    messages: list[dict[str, str]], answers: list[int], learned: set[int], tokenizer: TextTokenizer, whole: str
) -> list[Piece] | None:
    """Cut where marks in the place of the answers come out, for templates that move things as a talk goes on."""
    marks = {place: f"\u2402answer{place}\u2403" for place in answers}
    marked = [{**message, "content": marks.get(place, message["content"])} for place, message in enumerate(messages)]
    rest, pieces = tokenizer.render_chat(marked, add_generation_prompt=False), list[Piece]()
    for number, place in enumerate(answers):
        before, found, rest = rest.partition(marks[place])
        if not found:
            return None
        kept = before.rstrip(" ")  # a space before the answer is written by the model
        content = messages[place]["content"]
        said = content if whole.startswith("".join(p.text for p in pieces) + before + content) else content.strip()
        pieces.append(Piece(text=kept, trained=False, after_answer=number > 0 and answers[number - 1] in learned))
        pieces.append(Piece(text=before[len(kept) :] + said, trained=place in learned))
    pieces.append(Piece(text=rest, trained=False, after_answer=bool(answers) and answers[-1] in learned))
    return pieces if "".join(piece.text for piece in pieces) == whole else None
