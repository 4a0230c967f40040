"""Which column plays which role, recognised by names that people use and by what the values are.

Where only one reading is possible it is taken; where there are several, a DataError at data.columns lists the columns
with what each could be. Addresses and identifiers are never a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tuning.core.errors import DataError
from tuning.data.conversations import is_talk, starts_with_answer
from tuning.data.files.header import TEXT_NAMES
from tuning.data.values import is_answers, is_missing

WORDS = ("text", "class", "constant")
"""Kinds of columns that may hold text."""
NOTHING = ("empty", "address", "identifier", "date", "constant")
"""Kinds of columns that are no class."""
ROLES = (
    *("text", "text_pair", "label", "prompt", "input", "completion", "messages"),
    *("system", "history", "tools", "loss_mask"),
)
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("instruction", "completion"),
    ("instruction", "answer"),
    ("question", "answer"),
    ("query", "response"),
    ("question", "response"),
    ("query", "answer"),
    ("prompt", "answer"),
    ("prompt", "output"),
    ("problem", "solution"),
    ("user", "assistant"),
    ("human", "assistant"),
    ("human", "bot"),
    ("context", "response"),
    ("input", "output"),
    ("input", "target"),
    ("source", "target"),
)
"""Column names of prompt and completion, the surest first."""
INSTRUCTIONS = ("instruction", "question", "query", "problem", "user", "human", "context")
"""Prompts that are written as a field of their own, so that their answer is not written to go on from them."""
ASKED = ("prompt", "instruction", "question", "query", "problem", "input")
"""Prompts that a chosen answer out of several may belong to."""
CHOSEN = ("chosen", "chosen_response", "preferred", "accepted")
REJECTED = ("rejected", "rejected_response", "dispreferred")
SENTENCE_PAIRS = (
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("text_a", "text_b"),
    ("text", "text_pair"),
    ("question", "sentence"),
    ("s1", "s2"),
)
COMPANIONS = {
    "input": ("input", "context", "passage", "paragraph", "background", "evidence"),
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
    "tools": ("tools", "functions"),
    "loss_mask": ("loss_mask", "masks", "mask", "loss_weight", "weights"),
}
"""Columns beside prompt and completion or beside a conversation, by role."""
COMPANION_KINDS = {
    "input": ("number", *WORDS),
    "system": WORDS,
    "history": ("list", "talk", *WORDS),
    "tools": ("list", "object", *WORDS),
    "loss_mask": ("list", "number", *WORDS),
}
BESIDE = {"pair": ("input", "system", "history"), "conversation": ("system", "tools", "loss_mask")}
CHOICES = ("choices", "options", "endings")
"""What a number or a letter as an answer may choose from."""
TALKS = ("messages", "conversations", "conversation", "dialog", "dialogue", "chat")
LABELS = ("label", "labels", "class", "category", "sentiment", "topic", "intent", "stars", "rating", "target")
MORE_TEXT_NAMES = (
    *("message", "post", "utterance", "review_text", "comment_text", "tweet_text", "full_text", "text_content"),
    *("comment_body", "review_body", "email", "sms"),
)
TARGETS = frozenset(
    (
        *("summary", "highlights", "abstract", "headline", "translation", "answer", "answers", "output", "response"),
        *("completion", "target", "solution", "explanation", "rationale", "reference", "tldr", "paraphrase"),
        *("correction", "question", "query", "chosen", "rejected", "reply", "caption", "description", "title"),
    )
)
"""Columns of prose that could as well be what is to be written."""
SIDE = frozenset(
    (
        *(
            "title",
            "name",
            "author",
            "user",
            "user_name",
            "username",
            "subject",
            "source",
            "dataset",
            "subset",
            "split",
        ),
        *("lang", "language", "url", "link", "date", "time", "timestamp", "created", "created_at", "location", "place"),
        *(
            "city",
            "country",
            "path",
            "file",
            "filename",
            "file_name",
            "license",
            "meta",
            "metadata",
            "domain",
            "config",
        ),
        *("model", "poet", "publisher", "tags", "tag", "gender", "level", "type", "format", "version"),
    )
)
"""Columns that describe a text and are the text only where there is no other."""
FEW_CLASSES = 20
LONGEST_CLASS = 40
SAME_ROWS = 4
"""A column with one value in at least so many rows is constant."""
LISTED = 8
"""Columns that a question names."""

_ADDRESS = re.compile(r"(https?://|ftp://|www\.)\S+|[^\s@]+@[^\s@]+\.[a-z]{2,}|/?[\w.~-]+(/[\w.~-]+)+\.\w{1,5}", re.I)
_DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ,]+\d{1,2}:\d{2}.*)?"
    r"|([A-Z][a-z]{2,8},? )?([A-Z][a-z]{2,8} \d{1,2}|\d{1,2} [A-Z][a-z]{2,8}),? .{0,16}\d{4}.{0,16}"
)
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|\.\d+)([eE][+-]?\d+)?%?")
_ID_NAME = re.compile(r"(^|.*_)(id|ids|idx|index|uuid|guid|hash|sha\d*|md5|asin|isbn|doi)$|^id_|^unnamed(_\d+)?$|^no$")
_CHOICE = re.compile(r"\d{1,2}|[A-Ja-j]")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def plain_name(name: str) -> str:
    """A column's name in small letters with underscores: reviewText and Review Text are review_text."""
    return re.sub(r"[\s.-]+", "_", _CAMEL.sub("_", name.strip())).lower()


@dataclass(frozen=True, slots=True)
class Column:
    """What the first records say about one column."""

    name: str
    kind: str
    """talk, text, class, constant, number, identifier, address, date, list, object, or empty."""
    characters: float
    """Characters of a value on average."""
    words: bool
    """Whether some value has a letter in it."""

    @property
    def plain(self) -> str:
        return plain_name(self.name)

    @property
    def scalar(self) -> bool:
        """Whether its values can be written as a text."""
        return self.kind not in ("talk", "list", "object", "empty", "address")


def _match(values: Sequence[str], pattern: re.Pattern[str]) -> bool:
    """Whether at least nine of ten values match the pattern as a whole."""
    return sum(pattern.fullmatch(value) is not None for value in values) >= 0.9 * len(values)


def _kind(name: str, values: Sequence[Any]) -> str:
    """The kind of a column by its plain name and its values, without missing ones."""
    if not values:
        return "empty"
    if any(is_talk(value) for value in values):
        return "talk"
    for kind, cls in (("list", list), ("object", dict)):
        if sum(isinstance(value, cls) for value in values) > len(values) / 2:
            return kind
    different = len({str(value) for value in values})
    few = 2 <= different <= min(FEW_CLASSES, len(values) // 2)
    if not any(isinstance(value, str) for value in values):
        return "identifier" if _ID_NAME.match(name) else "class" if few else "number"
    return _kind_of_texts(name, [str(value).strip() for value in values], few=few, different=different)


def _kind_of_texts(name: str, texts: Sequence[str], *, few: bool, different: int) -> str:
    """The kind of a column of texts, of which so many are different; `few` says that they are as few as classes."""
    if _match(texts, _ADDRESS):
        return "address"
    single = all(len(text.split()) < 2 for text in texts)
    if single and _ID_NAME.match(name):
        return "identifier"
    if few and max(map(len, texts)) <= LONGEST_CLASS:
        return "class"
    if different == 1 and len(texts) >= SAME_ROWS:
        return "constant"
    if _match(texts, _NUMBER):
        return "number"
    if _match(texts, _DATE):
        return "date"
    return "identifier" if single and _are_codes(texts) else "text"


def _are_codes(texts: Sequence[str]) -> bool:
    """Whether single words are all different and most of them have a digit, as codes of things have."""
    numbered = sum(any(letter.isdigit() for letter in text) for text in texts) >= 0.8 * len(texts)
    return numbered and len(set(texts)) == len(texts) > 1 and all(text.isascii() for text in texts)


def _which_conversation(talks: Sequence[Column]) -> DataError:
    """The question which of several conversations in a row is to be learned."""
    names = ", ".join(column.name for column in talks)
    message = (
        f"conversations are in {names}, and only one column is learned from; say which with data.columns, for "
        f'example {{"messages": "{talks[0].name}"}}'
    )
    return DataError(message, [column.name for column in talks], f"messages: one of {names}", "data.columns")


def _which_label(candidates: Sequence[Column], text: str) -> str:
    """The question which of several columns is the label; `text` is the part of its example about the text."""
    names = ", ".join(column.name for column in candidates)
    example = f'{{{text}, "label": "{candidates[0].name}"}}'
    return f"{len(candidates)} columns could be the label ({names}); say which with data.columns, for example {example}"


class Columns:
    """The columns of some first records, by name and by what they hold."""

    def __init__(self, records: Sequence[Mapping[str, Any]], csv: bool = False) -> None:
        self.records, self._csv = records, csv
        self.all = [self._column(name) for name in dict.fromkeys(name for record in records for name in record)]

    def _column(self, name: str) -> Column:
        values = self.values(name)
        mean = sum(len(str(value)) for value in values) / max(1, len(values))
        words = any(isinstance(value, str) and any(map(str.isalpha, value)) for value in values)
        return Column(name, _kind(plain_name(name), values), mean, words)

    def values(self, name: str) -> list[Any]:
        """The values of a column that are neither missing nor an empty text."""
        values = (record.get(name) for record in self.records)
        return [value for value in values if not is_missing(value, self._csv) and value != ""]

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """The columns by plain name; of two with the same one, the first."""
        return {column.plain: column for column in reversed(self.all)}

    @cached_property
    def texts(self) -> list[Column]:
        """The columns that hold prose and do not describe another one; where there are none, others with words."""
        prose = [column for column in self.all if column.kind == "text" and not _ID_NAME.match(column.plain)]
        main = [column for column in prose if column.plain not in SIDE]
        return main or prose or [column for column in self.all if column.kind in ("class", "constant") and column.words]

    def named(self, names: Sequence[str], *kinds: str) -> Column | None:
        """The first of these names that there is, of one of these kinds; without kinds, with values that are text."""
        columns = (self.by_name[name] for name in names if name in self.by_name)
        return next((column for column in columns if (column.kind in kinds if kinds else column.scalar)), None)

    # -- what they are ------------------------------------------------------------------------------------------------
    def roles(self, task: str, classes: Sequence[str] = ()) -> dict[str, str]:
        """Role -> column; empty where nothing can be learned from them. `classes` are columns whose classes have names.

        Raises DataError where more than one reading is possible.
        """
        if task != "sequence_classification":
            roles = self._conversation() or self._answers()
            if roles is not None:
                return roles
        return self._texts(task, classes)

    def _conversation(self) -> dict[str, str] | None:
        talks = [column for column in self.all if column.kind == "talk" and column.plain not in COMPANIONS["history"]]
        if not talks:
            return self._no_talk()
        not_rejected = [column for column in talks if column.plain not in REJECTED]
        chosen = next((column for column in not_rejected if column.plain in CHOSEN), None)
        roles = self._split_talk(talks, not_rejected, chosen)
        if roles is None:
            messages = self._only_conversation(talks, not_rejected, chosen)
            if messages is None:
                raise _which_conversation(talks)
            roles = {"messages": messages.name}
        return self._with_companions(roles, "conversation")

    def _only_conversation(
        self, talks: Sequence[Column], not_rejected: Sequence[Column], chosen: Column | None
    ) -> Column | None:
        """The conversation to learn from; None where more than one of the columns `talks` could be meant."""
        if chosen and all(column is chosen or self._same(column, chosen) for column in not_rejected):
            return chosen
        # beside a rejected conversation, another one is chosen only where its name says so
        if len(not_rejected) == 1 and (chosen or len(talks) == 1):
            return not_rejected[0]
        return None

    def _split_talk(
        self, talks: Sequence[Column], not_rejected: Sequence[Column], chosen: Column | None
    ) -> dict[str, str] | None:
        """Prompt and completion where one conversation stands in two columns; None where it does not."""
        prompt = self.named(ASKED, "talk", "number", *WORDS)
        completions = tuple(answer for _, answer in PAIRS)
        completion = chosen or self.named(completions, "talk", *(WORDS if prompt in talks else ()))
        if prompt is None or completion is None or not self._is_split_talk(prompt, completion, not_rejected):
            return None
        self._check_verdict(prompt, completion)
        return {"prompt": prompt.name, "completion": completion.name}

    def _no_talk(self) -> dict[str, str] | None:
        """A column that is called a conversation, where no value is one: its rows are then refused one by one."""
        named = self.named(TALKS, "list", "object", "empty") or self.named(TALKS[:2], *WORDS)
        return {"messages": named.name} if named is not None else None

    def _is_split_talk(self, prompt: Column, completion: Column, talks: Sequence[Column]) -> bool:
        """Whether these two are the beginning and the end of one conversation, and no other column is one."""
        if "talk" not in (prompt.kind, completion.kind) or not set(talks) <= {prompt, completion}:
            return False
        return completion.kind != "talk" or any(map(starts_with_answer, self.values(completion.name)))

    def _same(self, column: Column, other: Column) -> bool:
        """Whether two columns hold the same values."""
        return all(record.get(column.name) == record.get(other.name) for record in self.records)

    def _answers(self) -> dict[str, str] | None:
        """Prompt and completion by their names; of chosen and rejected answers the chosen."""
        chosen = self.named(CHOSEN)
        if chosen is not None and self.named(REJECTED) is not None:
            prompt = self.named(ASKED)
            if prompt is None:
                return {"text": chosen.name}
            return self._with_companions({"prompt": prompt.name, "completion": chosen.name}, "pair")
        for names in PAIRS:
            prompt, completion = (self.named([name]) or self.named([name], "address") for name in names)
            if prompt is None or completion is None:
                continue
            self._check_verdict(prompt, completion)
            self._check_choice(prompt, completion)
            return self._with_companions({"prompt": prompt.name, "completion": completion.name}, "pair")
        return self._several_answers()

    def _several_answers(self) -> dict[str, str] | None:
        """A question with a column of several answers, as SQuAD writes them."""
        prompt, answers = self.named(ASKED), self.by_name.get("answers")
        if prompt is None or answers is None or not all(map(is_answers, self.values(answers.name) or [None])):
            return None
        return self._with_companions({"prompt": prompt.name, "completion": answers.name}, "pair")

    def _check_choice(self, prompt: Column, completion: Column) -> None:
        """Raises DataError where the answer is the number or the letter of a choice that stands beside it."""
        choices = next((column for name in CHOICES if (column := self.by_name.get(name)) is not None), None)
        if choices is None or choices.kind not in ("list", "object"):
            return
        if not all(_CHOICE.fullmatch(str(value)) for value in self.values(completion.name)):
            return
        message = (
            f"column {completion.name!r} only says which of {choices.name!r} is right, and the model would learn that "
            "number or letter without having read what there is to choose from; write the choices into the prompt, or "
            "the right one into the answer, or say with data.columns that it is meant so: "
            f'{{"prompt": "{prompt.name}", "completion": "{completion.name}"}}'
        )
        raise self._question(message)

    def _check_verdict(self, prompt: Column, completion: Column) -> None:
        """Raises DataError where a column of true and false may say which answers are good ones."""
        verdict = self.named(["label"])
        if verdict in (None, prompt, completion) or not all(
            isinstance(value, bool) for value in self.values(verdict.name)
        ):
            return
        message = (
            f"column {verdict.name!r} says of each answer whether it is wanted, and all would be learned; keep the "
            f'wanted rows, or say with data.columns that all are: {{"prompt": "{prompt.name}", "completion": '
            f'"{completion.name}"}}'
        )
        raise self._question(message)

    def _with_companions(self, roles: dict[str, str], kind: str) -> dict[str, str]:
        """The roles with those of the columns beside them; `kind` is a key of BESIDE."""
        for role in BESIDE[kind]:
            names = [name for name in COMPANIONS[role] if name != plain_name(roles.get("prompt", ""))]
            column = self.named(names, *COMPANION_KINDS[role]) or self.named(names, "empty")
            if column is None or column.name in roles.values():
                continue
            if role == "history" and column.kind in WORDS and not self._all_json(column):
                continue
            if role == "input" and self._inside(column, roles["prompt"]):
                continue
            roles[role] = column.name
        return roles

    def _all_json(self, column: Column) -> bool:
        """Whether all values look like JSON lists."""
        return all(str(value).lstrip().startswith("[") for value in self.values(column.name))

    def _inside(self, column: Column, prompt: str) -> bool:
        """Whether the prompts have this column's texts in them already."""
        pairs = [(record.get(column.name), record.get(prompt)) for record in self.records]
        present = [pair for pair in pairs if not is_missing(pair[0], self._csv) and pair[0] != ""]
        return bool(present) and all(str(text) in str(prompt_text) for text, prompt_text in present)

    # -- texts, with a class or without -------------------------------------------------------------------------------
    def _texts(self, task: str, classes: Sequence[str]) -> dict[str, str]:
        """Text, second text and label; empty where there is no text. Raises DataError where several could be meant."""
        label = self._label(task, classes)
        for names in SENTENCE_PAIRS:
            first, second = (self.named([name]) for name in names)
            if first is None or second is None:
                continue
            label = label or self._class_column(task, (first, second))
            if label is None:
                example = f'{{"prompt": "{first.name}", "completion": "{second.name}"}}'
                raise self._question(self._readings(example))
            return {"text": first.name, "text_pair": second.name, "label": label.name}
        text = self._text(task, label)
        if text is None:
            return {}
        label = label or self._class_column(task, (text,))
        return {"text": text.name} | ({"label": label.name} if label else {})

    def _text(self, task: str, label: Column | None) -> Column | None:
        """The column of texts to learn, which is not the label; None where there is none.

        Raises DataError where more than one could be meant.
        """
        named = self.named([*TEXT_NAMES, *MORE_TEXT_NAMES])
        named = named if named is not label else None
        others = [column for column in self.texts if column is not label and column is not named]
        if named is None:
            return self._unnamed_text(others, task, label)
        # a label by its name says what the text by its name is for; a notice lists the other columns as not used
        only_targets = named.plain == "text" or label is not None
        rivals = [
            column for column in others if column.plain not in SIDE and (not only_targets or column.plain in TARGETS)
        ]
        if rivals:
            raise self._question(self._readings(self._example(named, rivals[0], task, label)))
        return named

    def _unnamed_text(self, texts: Sequence[Column], task: str, label: Column | None) -> Column | None:
        """The text where no column has a usual name of one: the only column of prose, None without prose.

        Raises DataError where there are several, or where the only one is half of something.
        """
        halves = self._other_halves(texts[0], label) if len(texts) == 1 else []
        if len(texts) < 2 and not halves:
            return texts[0] if texts else None
        second = (*texts, *halves)[1]
        raise self._question(self._readings(self._example(texts[0], second, task, label)))

    def _other_halves(self, text: Column, label: Column | None) -> list[Column]:
        """Columns that may belong to the only text, where its name says that it is half of something (a question)."""
        if text.plain not in {*TARGETS, *ASKED}:
            return []
        beside = [column for column in self.all if column not in (text, label) and column.plain not in SIDE]
        certain = [
            column
            for column in beside
            if column.kind in ("list", "object") or (column.kind == "constant" and column.words)
        ]
        classes = [column for column in beside if column.kind == "class" and column.words]
        return [*certain, *classes] if certain or len(classes) > 1 else []

    def _label(self, task: str, classes: Sequence[str]) -> Column | None:
        """The label by its name, or because its classes have names; None where there is none.

        Raises DataError where classification has more than one to choose from.
        """
        named = self._named_labels()
        certain = next((column for column in named if column.plain in ("label", "labels")), None)
        if certain is not None:
            return certain
        candidates = named or [column for column in self.all if column.name in classes]
        if len(candidates) > 1:
            candidates = [column for column in candidates if column.kind == "class"] or candidates
        if len(candidates) > 1 and task == "sequence_classification":
            raise self._question(_which_label(candidates, '"text": …'))
        return candidates[0] if len(candidates) == 1 else None

    def _named_labels(self) -> list[Column]:
        """The columns with a usual name of a label and values as short as classes, the surest name first."""
        named = [self.by_name[name] for name in LABELS if name in self.by_name]
        return [
            column for column in named if column.scalar and column.kind != "date" and column.characters <= LONGEST_CLASS
        ]

    def _class_column(self, task: str, texts: Sequence[Column]) -> Column | None:
        """The column of classes that no name gives away: the only one with few values. None where there is none.

        Raises DataError where classification has several to choose from.
        """
        useful = [column for column in self.all if column not in texts and column.kind not in NOTHING]
        classes = [column for column in useful if column.kind == "class" and column.plain not in SIDE]
        if task == "sequence_classification":
            if len(classes) > 1:
                raise self._question(_which_label(classes, f'"text": "{texts[0].name}"'))
            return classes[0] if classes else None
        return classes[0] if len(useful) == 1 and classes else None

    # -- asking -------------------------------------------------------------------------------------------------------
    def _could_be(self, column: Column) -> list[str]:
        """The roles that a column could play; none where it holds no text and no class."""
        if column.kind == "talk":
            return ["messages"]
        if column.kind == "text" and column.plain not in SIDE and not _ID_NAME.match(column.plain):
            return ["text", "prompt", "completion", "input"]
        if column.kind == "class" or (column.kind == "number" and column.plain in LABELS):
            return ["label", "completion", "text"] if column.words else ["label"]
        return ["text", "completion"] if column.kind == "constant" and column.plain not in SIDE else []

    def _example(self, first: Column, second: Column, task: str, label: Column | None) -> str:
        """A value of data.columns that would decide between the readings."""
        if task == "sequence_classification":
            return f'{{"text": "{first.name}", "label": "{label.name if label else "…"}"}}'
        return f'{{"prompt": "{first.name}", "completion": "{second.name}"}}'

    def _readings(self, example: str) -> str:
        """The message that lists what each column could be."""
        readable, unreadable = [], []
        for column in self.all:
            roles = self._could_be(column)
            if roles:
                readable.append(
                    f"{column.name[:40]} could be {', '.join(roles[:-1]) + ' or ' if roles[1:] else ''}{roles[-1]}"
                )
            elif column.kind != "empty":
                unreadable.append(column.name[:40])
        possible = "; ".join(readable[:LISTED]) + (
            f"; and {len(readable) - LISTED} more" if len(readable) > LISTED else ""
        )
        rest = f"; not to be read: {', '.join(unreadable[:LISTED])}" if unreadable else ""
        return (
            f"more than one reading is possible: {possible}{rest}; say which with data.columns, for example {example}"
        )

    def _question(self, message: str) -> DataError:
        """The error that asks for data.columns."""
        limit = "text | text + label | prompt + completion | messages"
        return DataError(message, [column.name for column in self.all], limit, "data.columns")
