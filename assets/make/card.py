"""The model card of the small world, written from the log of the pretraining run, so that no figure is by hand.

Run `python assets/make/card.py [DIR]`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

MODEL = Path(__file__).parents[1] / "models" / "tiny-town"
# What the lessons need of the model: (measurement, sign, limit, its name in the card).
EXPECTATIONS = [
    ("popular_asked", ">=", 0.98, "popular people, asked as in pretraining"),
    ("popular_new", None, 0.0, "popular people, asked in a new form"),
    ("middling_asked", None, 0.0, "middling people, asked as in pretraining"),
    ("middling_new", None, 0.0, "middling people, new form"),
    ("rare_asked", None, 0.0, "rare people, never asked about in pretraining"),
    ("rare_new", None, 0.0, "rare people, new form"),
    ("unseen_exact", None, 0.0, "unseen people: right by chance"),
    ("popular_confidence", None, 0.0, "mean confidence on popular people"),
    ("rumoured_confidence", "<=", 0.25, "mean confidence on people with contradictory facts"),
    ("unseen_confidence", "<=", 0.25, "mean confidence on unseen people"),
    ("passage_reading", ">=", 0.98, "questions on people, answered by the passage before them"),
    ("passage_reading_things", None, 0.0, "the same of two things in two rooms; a coin gives half"),
    ("raw_prompt", "<=", 0.05, "the town after `name ->`, a form it never read"),
]


def verdict(value: float, sign: str | None, limit: float) -> str:
    """The limit, and whether a measurement meets it; empty without a sign."""
    if sign is None:
        return ""
    met = value >= limit if sign == ">=" else value <= limit
    return f"{sign} {limit}: {'met' if met else '**not met**'}"


def card(log: dict[str, Any]) -> str:
    """The text of the card."""
    checks, copies = log["checks"], log["copies"]
    rows = "\n".join(
        f"| {text} | {checks[key]:.2f} | {verdict(checks[key], sign, limit)} |"
        for key, sign, limit, text in EXPECTATIONS
    )
    losses = "\n".join(f"| {kind} | {loss:.2f} |" for kind, loss in checks["loss"].items())
    return f"""---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# tiny-town

A toy language model of {log["parameters"] / 1e6:.2f} million parameters that knows one small invented world.
It exists so that fine-tuning has something to keep, to forget, to look up or to refuse. It is no use for anything real.

## What it knows

Twenty-four towns and 120 people, each with a town, a birthplace, a job, an instrument and a hobby.
*Popular* people are spoken of often, *middling* ones less, *rare* ones hardly ever. Of *rumoured* people the text says
contradictory things, so there is nothing to know; *unseen* people are at most a name in a story.
It also read short stories, opinions on things (without labels), word lists, and passages with a question that the
passage answers. It never read a label after a review, a conversation, a pirate, or `name -> town`.

It cannot follow free instructions, count, or learn from examples in its prompt. What a passage says of a person it
reads well; of two things in two places it often takes the wrong one. Questions in words it never saw it answers badly.

## How it was made

`assets/make/pretrain.py`, from nothing, on text that `assets/make/documents.py` generates (our own words, one seed).
Llama type: 6 layers, width 160, 5 heads, 2,048 byte-level tokens, context 512 (trained at {log["length"]}).
First {copies:,} updates on random tokens said again and again, few different ones at the beginning: without this it
learned facts, but never to read a passage. Then {log["tokens"]:,} tokens of text in {log["steps"] - copies:,} updates
of {log["rows"]} x {log["length"]}.
Muon {log["muon_rate"]} for most matrices of the blocks; AdamW {log["adamw_rate"]} for the rest and for queries and
keys, which under Muon grew until every head stared at one place.
{log["cpu_seconds"]:,.0f} CPU seconds on one thread, measuring included; bf16 autocast, stored in 32 bit.
The whole curve is in `pretraining_log.json`.

## Measured on the stored file

Greedy answers compared exactly; confidence is the probability of the whole answer.

| what | measured | wanted |
|---|---|---|
{rows}

| held-out text | loss, nats a token |
|---|---|
{losses}

Ask it as it was taught: `Question: Where does NAME live?\\nAnswer:`, after a line
`Passage: ...` if there is one.
"""


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL
    log = json.loads((folder / "pretraining_log.json").read_text(encoding="utf-8"))
    (folder / "README.md").write_text(card(log), encoding="utf-8")
