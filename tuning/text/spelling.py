"""Rows as token ids with what is learned of them, whole and cut to max_seq_length.

Comes in: rows, a tokenizer, how prompts are written.  Goes out: `Spelled` rows, and `Encoded` ones cut or split to a
limit.  What is encoded is always the whole text of a row at once, as transformers would; which tokens are learned
follows from the characters that each token stands for.

The rules, with `special_tokens` `tokenizer`:
- A text is `tokenizer(text).input_ids`; a prompt with a completion the same of both joined as written. The tokenizer's
  end token follows where it is not the last token already. A begin or end token that the text itself has is not put
  a second time.
- A conversation is what its chat template writes, without anything around it.
- A text with a class, or a pair of them, is `tokenizer(text, text_pair, truncation=True)`.
- A token that holds the end of a prompt and the beginning of its answer is not learned, unless what it has of the
  prompt is blank: an answer's first word then begins in it.
With `config` a text or prompt gets the begin and end that config.json names, whatever the tokenizer does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuning.text.conversations import Said, as_conversation, write
from tuning.text.rows import Encoded, Row
from tuning.text.tokenizer import TextTokenizer

Range = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelled:
    """A whole row as tokens."""

    ids: list[int]
    trained: list[bool]
    fixed: int
    """Tokens at the beginning that no cut takes away: the begin token."""
    label: int | None
    types: list[int] | None = None
    """Of a pair: which text each token belongs to, where the model is told."""
    sides: tuple[Range, ...] = ()
    """Of a row with a class: where its texts stand between the special tokens; those alone are cut."""
    cuts_left: bool = False
    """Whether texts with a class lose their beginning."""
    plain: bool = False
    """A text without an answer or class, which can be split into blocks."""
    shared: bool = False
    """Whether a token holds the end of the prompt and the beginning of the answer, so that it is not learned."""

    def kept(self, limit: int) -> list[Range]:
        """What cutting to `limit` keeps, as ranges of tokens.

        A prompt that leaves no room for its answer is shortened from the left, so that the answer is never cut away
        whole; a text with a class as its tokenizer truncates; everything else keeps its beginning.
        """
        count = len(self.ids)
        if count <= limit:
            return [(0, count)]
        if self.sides:
            return self._truncated(limit)
        answer = next((place for place, trained in enumerate(self.trained) if trained and place), count)
        if self.plain or answer < limit - 1:
            return [(0, limit)]
        room = max(1, min(count - answer, limit // 2))
        start = max(self.fixed, answer - (limit - self.fixed - room))
        return [(0, self.fixed), (start, min(count, start + limit - self.fixed))]

    def _truncated(self, limit: int) -> list[Range]:
        lengths = [stop - start for start, stop in self.sides]
        room = max(0, limit - (len(self.ids) - sum(lengths)))
        left = [min(lengths[0], room)] if len(lengths) == 1 else _longest_first(lengths[0], lengths[1], room)
        found, at = [], 0
        for (start, stop), most in zip(self.sides, left, strict=True):
            keep = (stop - most, stop) if self.cuts_left else (start, start + most)
            found += [(at, start), keep]
            at = stop
        return [one for one in [*found, (at, len(self.ids))] if one[0] < one[1]]

    def blocks(self, limit: int) -> list[Range]:
        """The row in blocks of `limit` tokens, one after another, each token once; the last has two or more, so that
        it holds something to learn. A block's first token is no label: nothing stands before it."""
        count = len(self.ids)
        edges = list(range(0, count, limit)) or [0]
        if len(edges) > 1 and count - edges[-1] == 1:
            edges[-1] -= 1
        return list(zip(edges, [*edges[1:], count], strict=True))

    def parts(self, limit: int, long_text: str = "cut") -> list[Encoded]:
        """The row as it is trained on: one example, or the blocks of a long text."""
        if self.plain and long_text == "split" and len(self.ids) > limit:
            return [self._part([block], cut=False) for block in self.blocks(limit)]
        return [self.cut(limit)]

    def cut(self, limit: int) -> Encoded:
        return self._part(self.kept(limit), cut=len(self.ids) > limit)

    def _part(self, ranges: Sequence[Range], cut: bool) -> Encoded:
        def of(values: list[Any]) -> list[Any]:
            return [value for start, stop in ranges for value in values[start:stop]]

        types = None if self.types is None else of(self.types)
        return Encoded(ids=of(self.ids), trained=of(self.trained), label=self.label, cut=cut, types=types)


def _longest_first(first: int, second: int, room: int) -> list[int]:
    """What the tokenizers package leaves of two texts: the longer one is cut, both where neither has room."""
    if first + second <= room:
        return [first, second]
    short, long = sorted((first, second))
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return [short, long] if first <= second else [long, short]


# -- rows to tokens ---------------------------------------------------------------------------------------------------
def encode_row(row: Row, tokenizer: TextTokenizer, *, max_seq_length: int, **how: Any) -> Encoded:
    """The row's tokens and label mask, cut to `max_seq_length`; `how` as in `spell_rows`. Raises DataError where it
    cannot be written."""
    return encode_rows([row], tokenizer, max_seq_length=max_seq_length, **how)[0]


def encode_rows(rows: Sequence[Row], tokenizer: TextTokenizer, *, max_seq_length: int, **how: Any) -> list[Encoded]:
    """The same for many rows at once."""
    return [one.cut(max_seq_length) for one in spell_rows(rows, tokenizer, **how)]


def spell_rows(
    rows: Sequence[Row],
    tokenizer: TextTokenizer,
    *,
    loss_on: str,
    task: str,
    system_prompt: str | None,
    chat: bool = False,
    special_tokens: str = "tokenizer",
) -> list[Spelled]:
    """Whole rows as tokens with their label masks; with `chat` a prompt with a completion is written through the chat
    template. Raises DataError where a conversation cannot be written."""
    if task == "sequence_classification":
        return _classified(rows, tokenizer)
    drafts = [_draft(row, tokenizer, loss_on, system_prompt, chat) for row in rows]
    found: list[Spelled | None] = [None] * len(rows)
    for kind in {(one.framed, one.places) for one in drafts}:
        chosen = [number for number, one in enumerate(drafts) if (one.framed, one.places) == kind]
        specials = kind[0] and special_tokens == "tokenizer"
        encodings = tokenizer.encodings([drafts[number].text for number in chosen], specials, places=kind[1])
        for number, encoding in zip(chosen, encodings, strict=True):
            found[number] = _spelled(drafts[number], encoding, tokenizer, special_tokens)
    return [one for one in found if one is not None]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A row's whole text, and the stretches of it that are learned."""

    text: str
    learned: tuple[Said, ...]
    framed: bool
    """Whether begin and end are put around it; a chat template writes its own."""
    every: bool = False
    """Whether all is learned but the stretches."""
    marked: bool = False
    """Whether the template marks the stretches itself."""
    plain: bool = False

    @property
    def places(self) -> bool:
        """Whether it matters which characters a token stands for."""
        return bool(self.learned)


def _draft(row: Row, tokenizer: TextTokenizer, loss_on: str, system_prompt: str | None, chat: bool) -> _Draft:
    if chat and row.completion is not None:
        if not row.completion.strip() and loss_on != "all":
            return _Draft("", (), framed=False)
        row = as_conversation(row)
    if row.messages is not None:
        written = write(row, tokenizer, loss_on, system_prompt)
        return _Draft(written.text, written.learned, framed=False, every=loss_on == "all", marked=written.marked)
    if row.completion is None:
        text = row.text or ""
        return _Draft(text, (), framed=True, every=bool(text.strip()), plain=True)
    prompt = headed(row, system_prompt)
    text = prompt + row.completion
    if loss_on == "all":
        return _Draft(text, (), framed=True, every=bool(text.strip()))
    said = (Said(len(prompt), len(text), ended=True),) if row.completion.strip() else ()
    return _Draft(text, said, framed=True)


def headed(row: Row, system_prompt: str | None) -> str:
    """What stands before a completion where there is no chat template: the system prompt on a line of its own, each
    earlier question with its answer on the next line and a blank line behind, the prompt as it is."""
    head = row.system or system_prompt
    earlier = "".join(f"{asked}\n{said}\n\n" for asked, said in row.history)
    return (f"{head}\n" if head else "") + earlier + (row.prompt or "")


def framed_question(text: str, tokenizer: TextTokenizer, special_tokens: str) -> list[int]:
    """A prompt's tokens as training reads them: with what the tokenizer puts before a text, without what it puts
    behind it."""
    if special_tokens != "tokenizer":
        return [*_known(tokenizer.config_bos_id), *tokenizer.encode(text)]
    (encoding,) = tokenizer.encodings([text], True)
    ids, (begin, stop) = list(encoding.ids), _frame(encoding)
    return _once(ids[:begin], ids[begin:stop])


def _spelled(draft: _Draft, encoding: Any, tokenizer: TextTokenizer, special_tokens: str) -> Spelled:
    ids, (begin, stop) = list(encoding.ids), _frame(encoding)
    trained, shared = _trained(draft, encoding, tokenizer)
    first, last = ids[:begin], ids[stop:]
    ids, trained = ids[begin:stop], trained[begin:stop]
    if draft.framed:
        if special_tokens == "tokenizer":
            own = len(first) + len(ids)
            ids = _once(first, ids)[len(first) :]
            trained = trained[own - len(first) - len(ids) :]
            if last and ids and ids[-1] == last[0] == tokenizer.eos_id:
                ids, trained = ids[:-1], trained[:-1]
            if [*first, *ids, *last][-1:] != _known(tokenizer.eos_id):
                last = [*last, *_known(tokenizer.eos_id)]
        else:
            first, last = _known(tokenizer.config_bos_id), _known(tokenizer.config_eos_id)
    mask = [False] * len(first) + trained + [any(trained)] * len(last)
    return Spelled(
        ids=[*first, *ids, *last], trained=mask, fixed=len(first), label=None, plain=draft.plain, shared=shared
    )


def _known(token: int | None) -> list[int]:
    return [] if token is None else [token]


def _once(first: list[int], ids: list[int]) -> list[int]:
    """Begin and text, without the begin token that the text has itself where one is put."""
    return [*first, *(ids[1:] if first and ids[:1] == first[-1:] else ids)]


def _frame(encoding: Any) -> Range:
    """Where the text stands between the special tokens that the tokenizer has put around it."""
    added = encoding.special_tokens_mask
    begin, stop = 0, len(added)
    while begin < stop and added[begin]:
        begin += 1
    while stop > begin and added[stop - 1]:
        stop -= 1
    return begin, stop


def _trained(draft: _Draft, encoding: Any, tokenizer: TextTokenizer) -> tuple[list[bool], bool]:
    """For each token whether it is learned; and whether one was left out because it holds the prompt's end too."""
    if not draft.learned:
        return [draft.every] * len(encoding.ids), False
    found, shared = [False] * len(encoding.ids), False
    begins = _beginnings(draft.text, encoding)
    for said in draft.learned:
        first = bisect_left(begins, (said.start, 0))
        inside = range(first, bisect_left(begins, (said.stop, 0)))
        if inside and not draft.marked:
            inside = _to_its_end(inside, said, encoding.ids, tokenizer)
        for place in inside:
            found[place] = True
        stop = begins[first - 1][1] if first else 0
        shared = shared or bool(draft.text[said.start : stop].strip())
    return ([not one for one in found] if draft.every else found), shared and not draft.every


def _beginnings(text: str, encoding: Any) -> list[Range]:
    """For each token its first character that is no blank (its first one, where all are) and the end of its text.

    Blanks before a word, which some tokenizers leave out of a token's characters, count as the token's own.
    """
    found, end, last = [], 0, 0
    for start, stop in encoding.offsets:
        begin = end if start > end and not text[end:start].strip() else start
        end = max(end, stop)
        piece = text[begin:stop]
        last = max(last, begin + len(piece) - len(piece.lstrip()) if piece.strip() else begin)  # always in order
        found.append((last, stop))
    return found


def _to_its_end(inside: range, said: Said, ids: list[int], tokenizer: TextTokenizer) -> range:
    """The tokens up to the end of the turn: without what a template writes behind the end, and with the end where it
    stands right behind."""
    special = tokenizer.special_ids
    if said.ended:
        last = max((place for place in inside if ids[place] in special), default=inside[-1])
        blank = not tokenizer.decode(ids[last + 1 : inside.stop]).strip()
        return range(inside.start, last + 1) if blank else inside
    end = next((place for place in range(inside.stop, len(ids)) if ids[place] in special), None)
    if end is None or tokenizer.decode(ids[inside.stop : end]).strip():
        return inside
    return range(inside.start, end + 1)


def _classified(rows: Sequence[Row], tokenizer: TextTokenizer) -> list[Spelled]:
    encodings = tokenizer.pair_encodings([(row.text or "", row.text_pair) for row in rows])
    found = []
    for row, encoding in zip(rows, encodings, strict=True):
        sides = [encoding.sequence_ids.index(side) for side in (0, 1) if side in encoding.sequence_ids]
        lengths = [encoding.sequence_ids.count(side) for side in (0, 1) if side in encoding.sequence_ids]
        found.append(
            Spelled(
                ids=list(encoding.ids),
                trained=[False] * len(encoding.ids),
                fixed=0,
                label=row.label,
                types=list(encoding.type_ids) if tokenizer.pairs_typed and any(encoding.type_ids) else None,
                sides=tuple((start, start + length) for start, length in zip(sides, lengths, strict=True)),
                cuts_left=tokenizer.cuts_left,
            )
        )
    return found
