"""The small world's data sets, written to assets/data/NAME/{train.jsonl, eval.jsonl, card.json}, the same bytes every
time.

Run `python assets/make/datasets.py [--out DIR]`. The rows come from `lessons_text.py` and `lessons_facts.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lessons_facts as facts
import lessons_text as text
from world import SEED, World, make_world

Row = dict[str, Any]
Splits = dict[str, list[Row]]


@dataclass(frozen=True)
class DataSet:
    """One data set: its name, how it is read, and the function that makes its rows."""

    name: str
    title: str
    description: str
    shape: str
    columns: dict[str, str]
    make: Callable[[World], Splits]
    label_names: list[str] | None = None
    prompt_template: str | None = None
    completion_template: str | None = None
    extra: dict[str, str] = field(default_factory=dict)


PORTRAITS = {"passages.jsonl": "columns name, attribute, passage, misleading, tier"}
PAIR = {"prompt": "prompt", "completion": "completion"}
DATA_SETS = [
    DataSet(
        "reviews",
        "Reviews with a verdict",
        "Opinions on films, meals, boots and more, each negative or positive. The model has read such opinions, "
        "but never a label after one.",
        "text_label",
        {"text": "text", "label": "label"},
        text.reviews,
        text.SENTIMENTS,
        "{text}\nOverall:",
        " {label}",
    ),
    DataSet(
        "topics",
        "What is this text about?",
        "Short texts on food, music, sport, weather, animals or travel, to be sorted by topic.",
        "text_label",
        {"text": "text", "label": "label"},
        text.topics,
        list(text.TOPICS),
        "{text}\nTopic:",
        " {label}",
    ),
    DataSet(
        "pirate",
        "Stories told by a pirate",
        "A way of telling a story that the model has never read: a new register, with words it knows.",
        "text",
        {"text": "text"},
        text.pirate,
    ),
    DataSet(
        "people-questions",
        "Questions about known people",
        "Facts the model has read, asked in forms that pretraining used and in forms that it did not.",
        "prompt_completion",
        PAIR,
        facts.people_questions,
        extra=PORTRAITS,
    ),
    DataSet(
        "new-people",
        "Facts about new people",
        "Facts about people of whom the model knows nothing but a name. The held-out rows ask for the same facts "
        "in another form.",
        "prompt_completion",
        PAIR,
        facts.new_people,
        extra=PORTRAITS,
    ),
    DataSet(
        "passages",
        "Questions answered by a passage",
        "A passage stands before each question. `passages.jsonl` is a small library to retrieve from: true passages "
        "about known and unseen people, and misleading ones that say something else.",
        "prompt_completion",
        {**PAIR, "passage": "passage"},
        facts.passages,
        extra={"passages.jsonl": "columns name, attribute, question, answer, passage, misleading, truth, tier"},
    ),
    DataSet(
        "chats",
        "Conversations",
        "Small conversations about the people and towns of the world, for the tokenizer's chat template.",
        "messages",
        {"messages": "messages"},
        facts.chats,
    ),
    DataSet(
        "retention",
        "What should be kept",
        "Facts about popular people in the forms that pretraining asked: measure these before and after a run to see "
        "what it cost.",
        "prompt_completion",
        PAIR,
        facts.retention,
        extra=PORTRAITS,
    ),
]


def card_of(data: DataSet, splits: Splits) -> dict[str, Any]:
    """The data set's card.json, by which its rows are read."""
    card = {
        "name": data.name,
        "title": data.title,
        "description": data.description,
        "shape": data.shape,
        "columns": data.columns,
        "label_names": data.label_names,
        "prompt_template": data.prompt_template,
        "completion_template": data.completion_template,
        "rows": {split: len(splits[split]) for split in ("train", "eval")},
        "license": "Apache-2.0",
        "made_by": "assets/make/datasets.py",
        "seed": SEED,
    }
    return {**card, "extra_files": data.extra} if data.extra else card


def write_all(out: Path) -> None:
    """Write every data set into a folder below `out`."""
    world = make_world()
    for data in DATA_SETS:
        folder = out / data.name
        folder.mkdir(parents=True, exist_ok=True)
        splits = data.make(world)
        for split, rows in splits.items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_bytes(lines.encode("utf-8"))
        card = json.dumps(card_of(data, splits), indent=2, ensure_ascii=False) + "\n"
        (folder / "card.json").write_bytes(card.encode("utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "data")
    write_all(parser.parse_args().out)
