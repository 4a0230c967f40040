"""Rows as token ids with what is learned of them, whole and cut to max_seq_length.

What is encoded is always the whole text of a row at once, as transformers would; which tokens are learned follows from
the characters that each token stands for. `Spelled` rows are whole, `Encoded` ones cut or split to a limit.

The rules, with `special_tokens` `tokenizer`:
- A text is `tokenizer(text).input_ids`; a prompt with a completion the same of both joined as written. The tokenizer's
  end token follows where it is not the last token already. A begin or end token that the text itself has is not put
  a second time.
- A conversation is what its chat template writes, without anything around it.
- A text with a class, or a pair of them, is `tokenizer(text, text_pair, truncation=True)`.
- Where one token would hold the last letters of a prompt and the first ones of its answer, the two are tokenized
  apart, as they are when the model is asked: nothing of a prompt is learned, and an answer whole. Where such a token
  has only blanks of the prompt it stays, and is learned: the answer's first word begins in it. In a conversation,
  whose tokens are always those of the whole, it stays, and is learned only where it has but blanks before the answer.
With `config` a text or prompt gets the begin and end that config.json names, whatever the tokenizer does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuning.text.chat_template_process import write_rows
from tuning.text.chat_templates import ConversationError
from tuning.text.conversations import Said, as_conversation
from tuning.text.rows import Encoded, Row
from tuning.text.tokenizer import TextTokenizer

Range = tuple[int, int]
ANCHORS = ("\n", ":", ".", "a", "0", " ")
"""Texts to put before another, to see its tokens as they are in the middle of a text."""


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
    border: str = ""
    """What a token across the border of prompt and answer holds of the prompt: `letters` (the two are tokenized apart)
    or `blanks` (it is learned); empty where there is none."""

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
    drafts = _drafts(rows, tokenizer, loss_on, system_prompt, chat)
    found: list[Spelled | None] = [None] * len(rows)
    for kind in {(one.framed, one.places) for one in drafts}:
        chosen = [number for number, one in enumerate(drafts) if (one.framed, one.places) == kind]
        specials = kind[0] and special_tokens == "tokenizer"
        encodings = tokenizer.encodings([drafts[number].text for number in chosen], specials, places=kind[1])
        for number, encoding in zip(chosen, encodings, strict=True):
            draft, border = drafts[number], _border(drafts[number], encoding, tokenizer)
            write_down = _apart if border == "letters" else _spelled
            spelled = write_down(draft, encoding, tokenizer, special_tokens)
            found[number] = replace(spelled, plain=draft.plain, border=border)
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
    """Whether the stretches are whole as they are: of a pair, or of a template that marks them itself."""
    plain: bool = False

    @property
    def places(self) -> bool:
        """Whether it matters which characters a token stands for."""
        return bool(self.learned)


def _drafts(
    rows: Sequence[Row], tokenizer: TextTokenizer, loss_on: str, system_prompt: str | None, chat: bool
) -> list[_Draft]:
    """Raises the error of the first conversation that its template refuses."""
    found, talks = dict[int, _Draft](), dict[int, Row]()
    for number, row in enumerate(rows):
        if chat and row.completion is not None and not row.completion.strip() and loss_on != "all":
            found[number] = _Draft("", (), framed=False)
        elif chat and row.completion is not None:
            talks[number] = as_conversation(row, tokenizer.written_end)
        elif row.messages is not None:
            talks[number] = row
        else:
            found[number] = _draft(row, loss_on, system_prompt)
    written = write_rows(tokenizer.chat, list(talks.values()), loss_on, system_prompt)
    for number, one in zip(talks, written, strict=True):
        if isinstance(one, ConversationError):
            raise one
        found[number] = _Draft(one.text, one.learned, framed=False, every=loss_on == "all", marked=one.marked)
    return [found[number] for number in range(len(rows))]


def _draft(row: Row, loss_on: str, system_prompt: str | None) -> _Draft:
    """A row that no chat template writes."""
    if row.completion is None:
        text = row.text or ""
        return _Draft(text, (), framed=True, every=bool(text.strip()), plain=True)
    prompt = headed(row, system_prompt)
    text = prompt + row.completion
    if loss_on == "all":
        return _Draft(text, (), framed=True, every=bool(text.strip()))
    said = (Said(len(prompt), len(text), len(text)),) if row.completion.strip() else ()
    return _Draft(text, said, framed=True, marked=True)


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
    ids, (begin, stop) = list(encoding.ids), _frame(encoding, tokenizer)
    return [*ids[:begin], *ids[begin:stop][_own_begin(ids[:begin], ids[begin:stop]) :]]


def _spelled(draft: _Draft, encoding: Any, tokenizer: TextTokenizer, special_tokens: str) -> Spelled:
    """The tokens of the whole text at once."""
    ids, (begin, stop) = list(encoding.ids), _frame(encoding, tokenizer)
    trained = _trained(draft, encoding, tokenizer)[begin:stop]
    if not draft.framed:  # a chat template writes its own begin and end
        return Spelled(ids=ids, trained=trained, fixed=0, label=None)
    return _framed(ids[:begin], ids[begin:stop], ids[stop:], trained, tokenizer, special_tokens)


def _apart(draft: _Draft, _: Any, tokenizer: TextTokenizer, special_tokens: str) -> Spelled:
    """A prompt and its answer, tokenized one after the other."""
    edge = draft.learned[0].start
    (encoding,) = tokenizer.encodings([draft.text[:edge]], special_tokens == "tokenizer")
    ids, (begin, stop) = list(encoding.ids), _frame(encoding, tokenizer)
    said = _going_on(draft.text[edge:], tokenizer)
    trained = [False] * (stop - begin) + [True] * len(said)
    return _framed(ids[:begin], [*ids[begin:stop], *said], ids[stop:], trained, tokenizer, special_tokens)


def _framed(
    first: list[int],
    ids: list[int],
    last: list[int],
    trained: list[bool],
    tokenizer: TextTokenizer,
    special_tokens: str,
) -> Spelled:
    """The tokens with begin and end around them; the end is learned where anything is. `first` and `last` are those
    that the tokenizer puts itself."""
    if special_tokens == "tokenizer":
        own = _own_begin(first, ids)
        ids, trained = ids[own:], trained[own:]
        if last and ids and ids[-1] == last[0] == tokenizer.eos_id:
            ids, trained = ids[:-1], trained[:-1]
        if [*ids, *last][-1:] != _known(tokenizer.eos_id):
            last = [*last, *_known(tokenizer.eos_id)]
    else:
        first, last = _known(tokenizer.config_bos_id), _known(tokenizer.config_eos_id)
    mask = [False] * len(first) + trained + [any(trained)] * len(last)
    return Spelled(ids=[*first, *ids, *last], trained=mask, fixed=len(first), label=None)


def _border(draft: _Draft, encoding: Any, tokenizer: TextTokenizer) -> str:
    """What a token across the border of a prompt and its answer holds of the prompt."""
    if not draft.framed or not draft.learned:
        return ""
    edge = draft.learned[0].start
    if _begins_at(edge, encoding) is not None:
        return ""
    for place, (start, stop) in enumerate(_texts_of(draft.text, encoding)):
        if start < edge < stop and draft.text[edge:stop].strip():
            if draft.text[start:edge].strip():
                return "letters"
            before = tokenizer.encode(draft.text[:edge])  # tokenizers that write no blanks have nothing across it
            return "" if before == encoding.ids[_frame(encoding, tokenizer)[0] : place] else "blanks"
    return ""


def _begins_at(edge: int, encoding: Any) -> int | None:
    """The token that begins at this character; None where there is none, or where blanks are in no token."""
    place = encoding.char_to_token(edge)
    return place if place is not None and encoding.token_to_chars(place)[0] == edge else None


def _going_on(text: str, tokenizer: TextTokenizer) -> list[int]:
    """A text's tokens as they are behind another text, without the space that some tokenizers put before a first
    word: behind an anchor that ends where a token does."""
    for anchor in ANCHORS:
        (encoding,) = tokenizer.encodings([anchor + text], False, places=True)
        places = _texts_of(anchor + text, encoding)
        behind = next((place for place, (start, _) in enumerate(places) if start >= len(anchor)), 0)
        if behind and places[behind][0] == len(anchor) and places[behind - 1][1] <= len(anchor):
            return list(encoding.ids[behind:])
    return tokenizer.encode(text)


def _known(token: int | None) -> list[int]:
    return [] if token is None else [token]


def _own_begin(first: list[int], ids: list[int]) -> int:
    """1 where the text has itself the begin token that the tokenizer puts before it, else 0."""
    return int(bool(first) and ids[:1] == first[-1:])


def _frame(encoding: Any, tokenizer: TextTokenizer) -> Range:
    """Where the text stands between the special tokens that the tokenizer has put around it."""
    before, behind = tokenizer.frame
    if not before and not behind:
        return 0, len(encoding)
    added = encoding.special_tokens_mask
    begin, stop = 0, len(added)
    while begin < min(before, stop) and added[begin]:
        begin += 1
    while stop > max(begin, len(added) - behind) and added[stop - 1]:
        stop -= 1
    return begin, stop


def _trained(draft: _Draft, encoding: Any, tokenizer: TextTokenizer) -> list[bool]:
    """For each token whether it is learned."""
    if not draft.learned:
        return [draft.every] * len(encoding.ids)
    first = _begins_at(draft.learned[0].start, encoding) if draft.framed else None
    if first is not None:  # of a pair, whose answer goes to the end
        return [False] * first + [True] * (len(encoding) - first)
    found = [draft.every] * len(encoding.ids)
    begins = _beginnings(draft.text, encoding)
    for said in draft.learned:
        inside = range(bisect_left(begins, said.start), bisect_left(begins, said.stop))
        if inside and not draft.marked:
            inside = _to_its_end(inside, said, begins, encoding.ids, tokenizer)
        for place in inside:
            found[place] = not draft.every
    return found


def _texts_of(text: str, encoding: Any) -> list[Range]:
    """Which characters each token stands for, in order; special tokens put around the text have none.

    Blanks before a word, which some tokenizers leave out of a token's characters, are the token's own.
    """
    found, end = [], 0
    for (start, stop), added in zip(encoding.offsets, encoding.special_tokens_mask, strict=True):
        if added:
            start = stop = end
        found.append((end if start > end and not text[end:start].strip() else start, stop))
        end = max(end, stop)
    return found


def _beginnings(text: str, encoding: Any) -> list[int]:
    """For each token its first character that is no blank, or its first one where all are; never falling."""
    found, last = [], 0
    for start, stop in _texts_of(text, encoding):
        piece = text[start:stop]
        last = max(last, start + len(piece) - len(piece.lstrip()) if piece.strip() else start)
        found.append(last)
    return found


def _to_its_end(inside: range, said: Said, begins: list[int], ids: list[int], tokenizer: TextTokenizer) -> range:
    """The tokens of a stretch up to the token that ends its turn, and without what a template writes behind that.

    A special token ends it: within the turn, or the next turn's first one where the model's config says that it ends
    there by writing that. Where there is none, the turn's last characters do.
    """
    special = tokenizer.special_ids
    if said.stop == said.turn_stop:  # what is said is not told from the end: its last special token is that
        last = max((place for place in inside if ids[place] in special), default=inside.stop)
        if last + 1 < inside.stop and not tokenizer.decode(ids[last + 1 : inside.stop]).strip():
            return range(inside.start, last + 1)
        if last + 1 == inside.stop:
            return inside
    end = next((place for place in range(inside.stop, len(ids)) if ids[place] in special), len(ids))
    own = end < len(ids) and (said.turn_stop is None or begins[end] < said.turn_stop or ids[end] in tokenizer.end_ids)
    if own and not tokenizer.decode(ids[inside.stop : end]).strip():
        return range(inside.start, end + 1)
    return (
        inside if said.turn_stop is None else range(inside.start, max(inside.stop, bisect_left(begins, said.turn_stop)))
    )


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
