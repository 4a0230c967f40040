"""Rows as token ids with a mask of what is learned, whole and cut to max_seq_length.

The whole text of a row is tokenized at once, as transformers would; which tokens are learned follows from the
characters that each token stands for. `TokenizedRow` rows are whole, `EncodedRow` ones cut or split to a limit.

The rules, with `special_tokens` `tokenizer`:
- A text is `tokenizer(text).input_ids`; a prompt with a completion that of both texts joined as
  written. The tokenizer's end token follows where it is not the last token already. A begin or end token that the text
  itself has is not put a second time.
- A conversation is what its chat template writes, without anything around it.
- A text with a class, or a pair of them, is `tokenizer(text, text_pair, truncation=True)`.
- Where one token would hold the last letters of a prompt and the first ones of its answer, the two are tokenized
  apart, as they are when the model is asked: nothing of a prompt is learned, and all of an answer. Where such a token
  has only blanks of the prompt it stays, and is learned: the answer's first word begins in it. In a conversation,
  whose tokens are always those of the whole, it stays, and is learned only where it has only blanks before the answer.
With `config` a text or prompt gets the begin and end that config.json names, whatever the tokenizer does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuning.text.chat_template_process import render_rows
from tuning.text.chat_templates import ConversationError
from tuning.text.conversations import Span, as_conversation
from tuning.text.rows import EncodedRow, Row
from tuning.text.tokenizer import TextTokenizer

Range = tuple[int, int]
ANCHORS = ("\n", ":", ".", "a", "0", " ")
"""Texts that are put before another to tokenize that as if it stood in the middle of a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedRow:
    """A row as tokens, before it is cut to a maximum length."""

    ids: list[int]
    trained: list[bool]
    fixed: int
    """How many tokens at the beginning no cut removes: the begin token, or none."""
    label: int | None
    types: list[int] | None = None
    """For a pair, the text (0 or 1) that each token belongs to, where the model reads that (token_type_ids)."""
    text_ranges: tuple[Range, ...] = ()
    """For a row with a class, where its texts stand between the special tokens; only they are cut."""
    cuts_left: bool = False
    """Whether a text with a class loses its beginning where it is cut."""
    plain: bool = False
    """Whether it is a text without an answer or class, which can be split into blocks."""
    border: str = ""
    """What the token across the border of prompt and answer holds of the prompt: `letters` (the two are then tokenized
    apart) or `blanks` (the token is learned); empty where no token lies across."""

    def cut_ranges(self, limit: int) -> list[Range]:
        """The ranges of tokens that remain when the row is cut to `limit` tokens.

        A prompt that leaves no room for its answer is shortened from the left, so that the answer is never cut away
        whole; a text with a class is cut as its tokenizer truncates; everything else keeps its beginning.
        """
        count = len(self.ids)
        if count <= limit:
            return [(0, count)]
        if self.text_ranges:
            return self._truncated_ranges(limit)
        answer = next((i for i, trained in enumerate(self.trained) if trained and i), count)
        if self.plain or answer < limit - 1:
            return [(0, limit)]
        room = max(1, min(count - answer, limit // 2))
        start = max(self.fixed, answer - (limit - self.fixed - room))
        return [(0, self.fixed), (start, min(count, start + limit - self.fixed))]

    def _truncated_ranges(self, limit: int) -> list[Range]:
        """The ranges that remain of a row with a class: all special tokens, and a part of each text."""
        lengths = [stop - start for start, stop in self.text_ranges]
        room = max(0, limit - (len(self.ids) - sum(lengths)))
        remaining = [min(lengths[0], room)] if len(lengths) == 1 else _longest_first(lengths[0], lengths[1], room)
        ranges, end = [], 0
        for (start, stop), count in zip(self.text_ranges, remaining, strict=True):
            ranges += [(end, start), (stop - count, stop) if self.cuts_left else (start, start + count)]
            end = stop
        return [(start, stop) for start, stop in [*ranges, (end, len(self.ids))] if start < stop]

    def block_ranges(self, limit: int) -> list[Range]:
        """Ranges of `limit` tokens each that cover the row once; the last has two or more, so that it holds something
        to learn. A block's first token is no label: nothing stands before it."""
        count = len(self.ids)
        edges = list(range(0, count, limit)) or [0]
        if len(edges) > 1 and count - edges[-1] == 1:
            edges[-1] -= 1
        return list(zip(edges, [*edges[1:], count], strict=True))

    def parts(self, limit: int, long_text: str = "cut") -> list[EncodedRow]:
        """The examples that are trained on: the row cut to `limit` tokens, or with `split` the blocks of a long
        text."""
        if self.plain and long_text == "split" and len(self.ids) > limit:
            return [self._example([block], cut=False) for block in self.block_ranges(limit)]
        return [self.cut(limit)]

    def cut(self, limit: int) -> EncodedRow:
        """The row as one example of at most `limit` tokens."""
        return self._example(self.cut_ranges(limit), cut=len(self.ids) > limit)

    def _example(self, ranges: Sequence[Range], cut: bool) -> EncodedRow:
        def select(values: list[Any]) -> list[Any]:
            return [value for start, stop in ranges for value in values[start:stop]]

        types = None if self.types is None else select(self.types)
        return EncodedRow(ids=select(self.ids), trained=select(self.trained), label=self.label, cut=cut, types=types)


def _longest_first(first: int, second: int, room: int) -> list[int]:
    """Tokens that the tokenizers package leaves of two texts under `longest_first` truncation to `room` tokens: the
    longer one is cut; both are where the shorter one alone has no room."""
    if first + second <= room:
        return [first, second]
    short, long = sorted((first, second))
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return [short, long] if first <= second else [long, short]


# -- rows to tokens ---------------------------------------------------------------------------------------------------
def encode_row(row: Row, tokenizer: TextTokenizer, *, max_seq_length: int, **options: Any) -> EncodedRow:
    """The row's tokens and label mask, cut to `max_seq_length`; `options` are those of `tokenize_rows`.

    Raises DataError where the chat template refuses the row.
    """
    return encode_rows([row], tokenizer, max_seq_length=max_seq_length, **options)[0]


def encode_rows(
    rows: Sequence[Row], tokenizer: TextTokenizer, *, max_seq_length: int, **options: Any
) -> list[EncodedRow]:
    """Tokens and label masks of many rows, cut to `max_seq_length`; `options` are those of `tokenize_rows`.

    Raises DataError where the chat template refuses a row.
    """
    return [tokenized.cut(max_seq_length) for tokenized in tokenize_rows(rows, tokenizer, **options)]


def tokenize_rows(
    rows: Sequence[Row],
    tokenizer: TextTokenizer,
    *,
    loss_on: str,
    task: str,
    system_prompt: str | None,
    chat: bool = False,
    special_tokens: str = "tokenizer",
) -> list[TokenizedRow]:
    """Whole rows as tokens with their label masks; with `chat` a prompt with a completion is written through the chat
    template. Raises DataError where the template refuses a conversation."""
    if task == "sequence_classification":
        return _tokenize_for_classes(rows, tokenizer)
    texts = _row_texts(rows, tokenizer, loss_on, system_prompt, chat)
    groups = dict[tuple[bool, bool], list[int]]()
    for i, text in enumerate(texts):
        groups.setdefault((text.framed, text.needs_offsets), []).append(i)
    by_index = dict[int, TokenizedRow]()
    for (framed, offsets), indices in groups.items():
        specials = framed and special_tokens == "tokenizer"
        encodings = tokenizer.encodings([texts[i].text for i in indices], specials, offsets=offsets)
        for i, encoding in zip(indices, encodings, strict=True):
            border = _border(texts[i], encoding, tokenizer)
            tokenize = _tokenize_apart if border == "letters" else _tokenize_whole
            tokenized = tokenize(texts[i], encoding, tokenizer, special_tokens)
            by_index[i] = replace(tokenized, plain=texts[i].plain, border=border)
    return [by_index[i] for i in range(len(rows))]


@dataclass(frozen=True, slots=True)
class _RowText:
    """A row's whole text, and the spans of it that are learned."""

    text: str
    learned: tuple[Span, ...]
    framed: bool
    """Whether begin and end tokens are put around it; a chat template writes its own."""
    inverted: bool = False
    """Whether all is learned except the spans."""
    marked: bool = False
    """Whether the spans are exact: of a prompt with a completion, or of a template that marks its answers itself."""
    plain: bool = False

    @property
    def needs_offsets(self) -> bool:
        """Whether it matters which characters each token stands for."""
        return bool(self.learned)


def _row_texts(
    rows: Sequence[Row], tokenizer: TextTokenizer, loss_on: str, system_prompt: str | None, chat: bool
) -> list[_RowText]:
    """The texts of the rows, in their order. Raises the error of the first conversation that its template refuses."""
    texts, conversations = dict[int, _RowText](), dict[int, Row]()
    for i, row in enumerate(rows):
        if chat and row.completion is not None and not row.completion.strip() and loss_on != "all":
            texts[i] = _RowText("", (), framed=False)
        elif chat and row.completion is not None:
            conversations[i] = as_conversation(row, tokenizer.written_end)
        elif row.messages is not None:
            conversations[i] = row
        else:
            texts[i] = _plain_row_text(row, loss_on, system_prompt)
    rendered = render_rows(tokenizer.chat, list(conversations.values()), loss_on, system_prompt)
    for i, result in zip(conversations, rendered, strict=True):
        if isinstance(result, ConversationError):
            raise result
        inverted = loss_on == "all"
        texts[i] = _RowText(result.text, result.learned, framed=False, inverted=inverted, marked=result.marked)
    return [texts[i] for i in range(len(rows))]


def _plain_row_text(row: Row, loss_on: str, system_prompt: str | None) -> _RowText:
    """The text of a row that no chat template writes."""
    if row.completion is None:
        text = row.text or ""
        return _RowText(text, (), framed=True, inverted=bool(text.strip()), plain=True)
    prompt = text_before_completion(row, system_prompt)
    text = prompt + row.completion
    if loss_on == "all":
        return _RowText(text, (), framed=True, inverted=bool(text.strip()))
    answer = (Span(len(prompt), len(text), len(text)),) if row.completion.strip() else ()
    return _RowText(text, answer, framed=True, marked=True)


def text_before_completion(row: Row, system_prompt: str | None) -> str:
    """The text before a row's completion where no chat template writes it: the system prompt on a line of its own, each
    earlier question with its answer on the next line and a blank line behind, the prompt as it is."""
    head = row.system or system_prompt
    earlier = "".join(f"{question}\n{answer}\n\n" for question, answer in row.history)
    return (f"{head}\n" if head else "") + earlier + (row.prompt or "")


def plain_prompt_ids(text: str, tokenizer: TextTokenizer, special_tokens: str) -> list[int]:
    """The tokens of a prompt without a chat template, as training reads them: with the special tokens that the
    tokenizer puts before a text, without those that it puts behind it."""
    if special_tokens != "tokenizer":
        return [*_as_list(tokenizer.config_bos_id), *tokenizer.encode(text)]
    (encoding,) = tokenizer.encodings([text], True)
    ids, (begin, stop) = list(encoding.ids), _text_range(encoding, tokenizer)
    return [*ids[:begin], *ids[begin:stop][_repeated_begin(ids[:begin], ids[begin:stop]) :]]


def _tokenize_whole(row: _RowText, encoding: Any, tokenizer: TextTokenizer, special_tokens: str) -> TokenizedRow:
    """The tokens of the whole text at once."""
    ids, (begin, stop) = list(encoding.ids), _text_range(encoding, tokenizer)
    trained = _trained(row, encoding, tokenizer)[begin:stop]
    if not row.framed:  # a chat template writes its own begin and end
        return TokenizedRow(ids=ids, trained=trained, fixed=0, label=None)
    return _with_special_tokens(ids[:begin], ids[begin:stop], ids[stop:], trained, tokenizer, special_tokens)


def _tokenize_apart(row: _RowText, _: Any, tokenizer: TextTokenizer, special_tokens: str) -> TokenizedRow:
    """A prompt and its answer, tokenized one after the other."""
    edge = row.learned[0].start
    (encoding,) = tokenizer.encodings([row.text[:edge]], special_tokens == "tokenizer")
    ids, (begin, stop) = list(encoding.ids), _text_range(encoding, tokenizer)
    answer = _continuation_ids(row.text[edge:], tokenizer)
    trained = [False] * (stop - begin) + [True] * len(answer)
    return _with_special_tokens(
        ids[:begin], [*ids[begin:stop], *answer], ids[stop:], trained, tokenizer, special_tokens
    )


def _with_special_tokens(
    first: list[int],
    ids: list[int],
    last: list[int],
    trained: list[bool],
    tokenizer: TextTokenizer,
    special_tokens: str,
) -> TokenizedRow:
    """The tokens with begin and end tokens around them; the end is learned where anything is.

    `first` and `last` are the special tokens that the tokenizer itself puts around a text.
    """
    if special_tokens == "tokenizer":
        repeated = _repeated_begin(first, ids)
        ids, trained = ids[repeated:], trained[repeated:]
        if last and ids and ids[-1] == last[0] == tokenizer.eos_id:
            ids, trained = ids[:-1], trained[:-1]
        if [*ids, *last][-1:] != _as_list(tokenizer.eos_id):
            last = [*last, *_as_list(tokenizer.eos_id)]
    else:
        first, last = _as_list(tokenizer.config_bos_id), _as_list(tokenizer.config_eos_id)
    mask = [False] * len(first) + trained + [any(trained)] * len(last)
    return TokenizedRow(ids=[*first, *ids, *last], trained=mask, fixed=len(first), label=None)


def _border(row: _RowText, encoding: Any, tokenizer: TextTokenizer) -> str:
    """What the token across the border of prompt and answer holds of the prompt, as in `TokenizedRow.border`."""
    if not row.framed or not row.learned:
        return ""
    edge = row.learned[0].start
    if _token_at(edge, encoding) is not None:
        return ""
    for i, (start, stop) in enumerate(_character_ranges(row.text, encoding)):
        if start < edge < stop and row.text[edge:stop].strip():
            if row.text[start:edge].strip():
                return "letters"
            before = tokenizer.encode(row.text[:edge])  # tokenizers that write no blanks have nothing across it
            return "" if before == encoding.ids[_text_range(encoding, tokenizer)[0] : i] else "blanks"
    return ""


def _token_at(edge: int, encoding: Any) -> int | None:
    """The token that begins at this character; None where there is none, or where blanks are in no token."""
    token = encoding.char_to_token(edge)
    return token if token is not None and encoding.token_to_chars(token)[0] == edge else None


def _continuation_ids(text: str, tokenizer: TextTokenizer) -> list[int]:
    """The tokens of a text as they are behind another text, without the space that some tokenizers put before a first
    word. It is tokenized behind an anchor that ends where a token does."""
    for anchor in ANCHORS:
        (encoding,) = tokenizer.encodings([anchor + text], False, offsets=True)
        ranges = _character_ranges(anchor + text, encoding)
        first = next((i for i, (start, _) in enumerate(ranges) if start >= len(anchor)), 0)
        if first and ranges[first][0] == len(anchor) and ranges[first - 1][1] <= len(anchor):
            return list(encoding.ids[first:])
    return tokenizer.encode(text)


def _as_list(token: int | None) -> list[int]:
    return [] if token is None else [token]


def _repeated_begin(first: list[int], ids: list[int]) -> int:
    """1 where the text itself begins with the begin token that the tokenizer puts before it, else 0."""
    return int(bool(first) and ids[:1] == first[-1:])


def _text_range(encoding: Any, tokenizer: TextTokenizer) -> Range:
    """The index range of the text's tokens, without the special tokens that the tokenizer has put around it."""
    before, behind = tokenizer.frame
    if not before and not behind:
        return 0, len(encoding)
    is_special = encoding.special_tokens_mask
    begin, stop = 0, len(is_special)
    while begin < min(before, stop) and is_special[begin]:
        begin += 1
    while stop > max(begin, len(is_special) - behind) and is_special[stop - 1]:
        stop -= 1
    return begin, stop


def _trained(row: _RowText, encoding: Any, tokenizer: TextTokenizer) -> list[bool]:
    """Whether each token is learned, as the row's spans say."""
    if not row.learned:
        return [row.inverted] * len(encoding.ids)
    first = _token_at(row.learned[0].start, encoding) if row.framed else None
    if first is not None:  # of a prompt with a completion, which goes to the end
        return [False] * first + [True] * (len(encoding) - first)
    mask = [row.inverted] * len(encoding.ids)
    begins = _first_letters(row.text, encoding)
    for span in row.learned:
        inside = range(bisect_left(begins, span.start), bisect_left(begins, span.stop))
        if inside and not row.marked:
            inside = _through_turn_end(inside, span, begins, encoding.ids, tokenizer)
        for i in inside:
            mask[i] = not row.inverted
    return mask


def _character_ranges(text: str, encoding: Any) -> list[Range]:
    """The characters that each token stands for, in order; special tokens around the text have an empty range.

    Blanks before a word, which some tokenizers leave out of a token's characters, are the token's own.
    """
    ranges, end = [], 0
    for (start, stop), is_special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True):
        if is_special:
            start = stop = end
        ranges.append((end if start > end and not text[end:start].strip() else start, stop))
        end = max(end, stop)
    return ranges


def _first_letters(text: str, encoding: Any) -> list[int]:
    """The first character of each token that is no blank, or its first one where all are; never smaller than that of
    the token before."""
    firsts, last = [], 0
    for start, stop in _character_ranges(text, encoding):
        token_text = text[start:stop]
        last = max(last, start + len(token_text) - len(token_text.lstrip()) if token_text.strip() else start)
        firsts.append(last)
    return firsts


def _through_turn_end(inside: range, span: Span, begins: list[int], ids: list[int], tokenizer: TextTokenizer) -> range:
    """The tokens of a span (`inside`) up to the token that ends its turn, without what a template writes behind that.

    A special token ends the turn: one within it, or the next turn's first token where the model's config names that as
    an end. Where there is none, the turn ends with its last characters.
    """
    special = tokenizer.special_ids
    if span.stop == span.turn_stop:  # where the words end is not known: their last special token ends them
        last = max((i for i in inside if ids[i] in special), default=inside.stop)
        if last + 1 < inside.stop and not tokenizer.decode(ids[last + 1 : inside.stop]).strip():
            return range(inside.start, last + 1)
        if last + 1 == inside.stop:
            return inside
    end = next((i for i in range(inside.stop, len(ids)) if ids[i] in special), len(ids))
    if _ends_turn(end, span, begins, ids, tokenizer) and not tokenizer.decode(ids[inside.stop : end]).strip():
        return range(inside.start, end + 1)
    if span.turn_stop is None:
        return inside
    return range(inside.start, max(inside.stop, bisect_left(begins, span.turn_stop)))


def _ends_turn(i: int, span: Span, begins: list[int], ids: list[int], tokenizer: TextTokenizer) -> bool:
    """Whether the special token at index `i`, the first behind the span, ends its turn."""
    if i == len(ids):
        return False
    return span.turn_stop is None or begins[i] < span.turn_stop or ids[i] in tokenizer.end_ids


def _tokenize_for_classes(rows: Sequence[Row], tokenizer: TextTokenizer) -> list[TokenizedRow]:
    """Texts with a class, or pairs of texts, with the special tokens of the tokenizer; no token is learned."""
    encodings = tokenizer.pair_encodings([(row.text or "", row.text_pair) for row in rows])
    tokenized = []
    for row, encoding in zip(rows, encodings, strict=True):
        texts = [text for text in (0, 1) if text in encoding.sequence_ids]
        starts, lengths = map(encoding.sequence_ids.index, texts), map(encoding.sequence_ids.count, texts)
        tokenized.append(
            TokenizedRow(
                ids=list(encoding.ids),
                trained=[False] * len(encoding.ids),
                fixed=0,
                label=row.label,
                types=list(encoding.type_ids) if tokenizer.pairs_typed and any(encoding.type_ids) else None,
                text_ranges=tuple((start, start + length) for start, length in zip(starts, lengths, strict=True)),
                cuts_left=tokenizer.cuts_left,
            )
        )
    return tokenized
