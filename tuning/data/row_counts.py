"""What becomes of rows as tokens, counted: what is cut, split, left out, or not written by the chat template.

The counts become the notices of a plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tuning.core.errors import Notice
from tuning.settings.schema import DataSettings
from tuning.text import EncodedRow, Row, TextTokenizer, TokenizedRow, as_conversation, template_omissions
from tuning.text.conversations import PART_OF


class RowCounts:
    """Counts over the rows that were tokenized."""

    def __init__(self, settings: DataSettings) -> None:
        self._settings = settings
        self.rows = self.pairs = self.blocks = 0
        self._long = self._tokens = self._lost = 0
        self.answers = self._cut_answers = self._lost_answers = 0
        self._plain = self._empty = self._refused = self._apart = self._blank = self._endless = self._talks = (
            self._glued
        ) = 0
        self._unknown = self._bare = self._own_ends = self._end_texts = 0
        self._unwritten = Counter[str]()

    def add(
        self, row: Row, tokenized: TokenizedRow | None, parts: Sequence[EncodedRow], tokenizer: TextTokenizer
    ) -> None:
        """Count one row: `tokenized` is the whole row, None where the chat template refuses it, and `parts` are what
        is trained on of it."""
        self.rows += 1
        self.pairs += row.completion is not None
        if tokenized is None:
            self._refused += 1
            return
        self._count_tokens(row, tokenized, tokenizer)
        self._count_lengths(tokenized, parts)
        self._count_labels(tokenized, parts)
        self._count_conversation(row, tokenized, tokenizer)

    def _count_tokens(self, row: Row, tokenized: TokenizedRow, tokenizer: TextTokenizer) -> None:
        """Count a row's tokens, and what the tokenizer makes of the borders in it."""
        self._tokens += len(tokenized.ids)
        self._unknown += tokenized.ids.count(tokenizer.unknown_id) if tokenizer.unknown_id is not None else 0
        self._plain += tokenized.plain
        self._apart += tokenized.border == "letters"
        self._blank += tokenized.border == "blanks"
        if row.text_pair is not None:
            front, back = tokenizer.frame
            inner = tokenized.ids[front : len(tokenized.ids) - back]
            self._glued += not any(token in tokenizer.special_ids for token in inner)

    def _count_lengths(self, tokenized: TokenizedRow, parts: Sequence[EncodedRow]) -> None:
        """Count the rows that are longer than the limit, and the tokens that they lose."""
        self._lost += len(tokenized.ids) - sum(len(part.ids) for part in parts)
        if len(tokenized.ids) > self._settings.max_seq_length:
            self._long += 1
            self.blocks += len(parts) if tokenized.plain and len(parts) > 1 else 0

    def _count_labels(self, tokenized: TokenizedRow, parts: Sequence[EncodedRow]) -> None:
        """Count the rows without anything to learn, and the answers that are cut."""
        labels, labels_left = sum(tokenized.trained[1:]), sum(part.trained_tokens for part in parts)
        self._bare += tokenized.label is not None and not tokenized.ids
        self._empty += tokenized.label is None and not labels
        if labels and not tokenized.plain:
            self.answers += 1
            self._cut_answers += labels_left < labels
            self._lost_answers += labels_left == 0

    def _count_conversation(self, row: Row, tokenized: TokenizedRow, tokenizer: TextTokenizer) -> None:
        """Count what the chat template writes otherwise than the row has it, where the row goes through it."""
        conversation = row
        if self._through_template(row):
            conversation = as_conversation(row, tokenizer.written_end)
            self._own_ends += conversation != as_conversation(row)
        if conversation.messages is None or tokenized.label is not None:
            return
        self._talks += 1
        last = max((i for i, trained in enumerate(tokenized.trained) if trained), default=None)
        self._endless += last is not None and tokenized.ids[last] not in tokenizer.special_ids
        self._end_texts += bool(tokenizer.end_text) and any(
            turn.role == "assistant" and tokenizer.end_text in turn.content for turn in conversation.messages
        )
        self._unwritten += template_omissions(tokenizer.chat, conversation, self._settings.system_prompt)

    def _through_template(self, row: Row) -> bool:
        return row.completion is not None and self._settings.chat_template == "on"

    def notices(self, tokenizer: TextTokenizer, *, sampled: bool) -> tuple[Notice, ...]:
        """Notices about the rows; `sampled` says that they are a sample of all."""
        seen = f" (of the {self.rows:,} rows that were counted)" if sampled else ""
        return tuple(
            Notice(field=field, message=message + seen, count=count)
            for field, message, count in [
                *self._lengths(),
                *self._left_out(),
                *self._glued_pairs(),
                *self._ends(tokenizer),
            ]
        )

    def _lengths(self) -> Iterator[tuple[str, str, int]]:
        limit, field = self._settings.max_seq_length, "data.max_seq_length"
        if not self._long:
            return
        share = f"{100 * self._lost / self._tokens:.2g} %"
        rows = f"{self._long:,} of {self.rows:,} {'texts' if self._plain else 'rows'}"
        longer = f"{rows} are longer than {limit:,} tokens"
        if self.blocks:
            yield field, f"{longer} and become {self.blocks:,} blocks", self._long
        elif self._plain:
            message = f"{longer} and are cut: {share} of all tokens are dropped; data.long_text split keeps them"
            yield field, message, self._long
        else:
            message = f"{longer} and are cut: {share} of all tokens are lost"
            if self.answers:
                message += f"; {self._cut_answers:,} answers are cut, {self._lost_answers:,} of them whole"
            yield field, message, self._long

    def _left_out(self) -> Iterator[tuple[str, str, int]]:
        if self._empty:
            empty = f"{self._empty:,} of {self.rows:,} rows have nothing to learn"
            message = f"{empty} (no answer, nothing but blanks, or marked as not to be learned) and are left out"
            yield "data.source", message, self._empty
        if self._bare:
            message = f"{self._bare:,} of {self.rows:,} rows become no token at all by this tokenizer and are left out"
            yield "data.source", message, self._bare
        if self._unknown:
            share = f"{100 * self._unknown / self._tokens:.2g} %"
            message = (
                f"{self._unknown:,} tokens ({share}) are the unknown token: this model's tokenizer has none for them"
            )
            yield "model", message, self._unknown
        if self._refused:
            message = f"{self._refused:,} conversations that the chat template does not write are left out"
            yield "data.bad_rows", message, self._refused
        if self._apart:
            message = (
                f"{self._apart:,} answers begin within what the tokenizer would make one token with the prompt's end; "
                "the two are tokenized apart there, as they are when the model is asked"
            )
            yield "data.separator", message, self._apart
        if self._blank:
            message = (
                f"{self._blank:,} prompts end in a blank that the tokenizer makes a part of the answer's first word; "
                "ask the model without that blank, as it learns to answer"
            )
            yield "data.separator", message, self._blank
        for what, count in sorted(self._unwritten.items()):
            yield "data.chat_template", f"the chat template {_left_unwritten(what, count)}", count

    def _glued_pairs(self) -> Iterator[tuple[str, str, int]]:
        if self._glued:
            message = f"this tokenizer puts nothing between the two texts of a pair, in {self._glued:,} rows"
            yield "data.columns", message, self._glued

    def _ends(self, tokenizer: TextTokenizer) -> Iterator[tuple[str, str, int]]:
        if self._own_ends:
            message = (
                f"{self._own_ends:,} completions have the end token {tokenizer.end_text} as their last word, which is "
                "taken off, for the chat template writes an end itself"
            )
            yield "data.chat_template", message, self._own_ends
        if self._end_texts:
            message = (
                f"{self._end_texts:,} conversations have the end token {tokenizer.end_text} in the words of an answer; "
                "it is learned there, besides what the chat template writes behind the answer"
            )
            yield "data.chat_template", message, self._end_texts
        if self._endless:
            message = (
                f"the chat template writes no end token behind the last answer of {self._endless:,} conversations, so "
                "nothing teaches the model to stop there"
            )
            yield "data.chat_template", message, self._endless
        end = tokenizer.eos_id if self._settings.special_tokens == "tokenizer" else tokenizer.config_eos_id
        framed = self._plain + self.answers - self._talks
        if end is None and framed > 0:
            message = "the tokenizer has no end token, so nothing teaches the model where a text or an answer ends"
            yield "model", message, framed


def _left_unwritten(what: str, count: int) -> str:
    if what.startswith(PART_OF):
        return f"does not write all of {count:,} turns of {what.removeprefix(PART_OF)}"
    return f"does not write {what} of {count:,} {'conversations' if what == 'tools' else 'turns'}"
