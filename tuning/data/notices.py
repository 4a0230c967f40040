"""Peculiarities of rows, counted by kind and detail, as notices for a person to read before Start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tuning.core.errors import Notice

NoticeCounts = Counter[tuple[str, str]]
"""The number of occurrences by (kind, detail); a kind without details has the empty one."""

LISTED = 8
"""So many details of one kind are named."""

SENTENCES: dict[str, tuple[str, str]] = {
    "role": ("data.columns", "{n} turns name their role in another word: {details}."),
    "key": ("data.columns", "Turns carry keys that are not used: {details}."),
    "part": ("data.columns", "{n} turns are lists of parts; the texts of the parts are joined."),
    "other_part": (
        "data.columns",
        "{n} content parts are no texts and are left out of their turns: {details}.",
    ),
    "call": ("data.columns", "{n} answers call tools."),
    "call_turn": ("data.columns", "{n} turns are calls of tools by their role; they are read as answers that call."),
    "call_text": ("data.columns", "{n} turns are calls of tools by their role, but no JSON; they are read as written."),
    "arguments": ("data.columns", "{n} tool calls have their arguments as JSON text; they are read as objects."),
    "arguments_text": ("data.columns", "{n} tool calls have arguments that are no JSON; they stay text."),
    "reasoning": ("data.columns", "{n} answers carry their reasoning; the chat template writes it, where it knows it."),
    "tools": ("data.columns", "{n} conversations bring tools; the chat template writes them, where it knows them."),
    "tools_bare": ("data.columns", "{n} tools are no more than a function; they are read as tools of type function."),
    "system": ("data.columns", "{n} rows have a system prompt of their own, read in place of data.system_prompt."),
    "system_turn": (
        "data.system_prompt",
        "{n} conversations begin with a system turn of their own, read in place of data.system_prompt.",
    ),
    "system_twice": ("data.columns", "{n} conversations have more than one system turn; all stay where they are."),
    "system_late": ("data.columns", "{n} conversations have a system turn that is not the first turn; it stays there."),
    "system_both": (
        "data.columns",
        "{n} conversations begin with a system turn and have a system column too; the turn is read, the column is not.",
    ),
    "history": ("data.columns", "{n} earlier questions and answers stand before their prompts; they are only read."),
    "input": ("data.columns", "{n} prompts are followed by an input, after a blank line."),
    "answers": (
        "data.columns",
        "{n} further answers to questions that have several are left out; the first is learned.",
    ),
    "separator": ("data.separator", "{n} prompts and answers are joined by one space, for they are written without."),
    "earlier": ("data.loss_on", "{n} earlier answers stand in prompts and are only read; completions are learned."),
    "unlearned": ("data.loss_on", "{n} answers are marked as not to be learned ({details}) and are only read."),
    "weight": ("data.loss_on", "{n} answers have a weight that is neither 0 nor 1 ({details}); it is read as 1."),
    "mark": (
        "data.loss_on",
        "{n} marks of what is learned are neither a number nor true or false: {details}; no use is made of them.",
    ),
    "other_mark": (
        "data.loss_on",
        "{n} turns that are no answers are marked as to be learned; only answers are, unless data.loss_on is all.",
    ),
    "asked_last": (
        "data.loss_on",
        "{n} conversations end with a user's turn, which has no answer and is only read, unless data.loss_on is all.",
    ),
    "empty_answer": ("data.source", "{n} answers in conversations are empty and are not learned."),
    "class": ("data.label_names", "Classes in other spellings: {details}."),
    "late": ("data.columns", "Columns that only later rows have are not used: {details}."),
}


def notices_of(counts: NoticeCounts, scope: str = "") -> Iterable[Notice]:
    """One notice for each kind; `scope` says which rows were read, where these are not all."""
    for kind, (field, sentence) in SENTENCES.items():
        of_kind = Counter({detail: count for (of, detail), count in counts.items() if of == kind and count})
        if not of_kind:
            continue
        named = [f"{detail} ({count:,})" for detail, count in of_kind.most_common(LISTED) if detail]
        if len(of_kind) > LISTED:
            named.append(f"and {len(of_kind) - LISTED} more")
        message = sentence.format(n=f"{of_kind.total():,}", details=", ".join(named))
        yield Notice(field=field, message=message.removesuffix(".") + scope + ".", count=of_kind.total())
