"""Measurements of the small world's model: loss by kind of document, facts by tier, confidence, reading, a raw prompt.

Run `python assets/make/checks.py [DIR]`; it prints one JSON object and writes it into the model's log. The test suite
uses the same functions.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from documents import KINDS, about_people, about_things
from world import ASKED, ATTRIBUTES, NEW_FORMS, Person, World, make_world, prompt_of


@torch.no_grad()
def answers(model: Any, tokenizer: Any, prompts: list[str], max_new_tokens: int = 8) -> list[tuple[str, float]]:
    """Greedy answers up to the first full stop or line end, with the model's probability of each whole answer."""
    results: list[tuple[str, float]] = []
    for start in range(0, len(prompts), 32):
        ids = [tokenizer(prompt).input_ids for prompt in prompts[start : start + 32]]
        scores = [0.0] * len(ids)
        ended = [False] * len(ids)
        written: list[list[int]] = [[] for _ in ids]
        for _ in range(max_new_tokens):
            rows = [prompt + answer for prompt, answer in zip(ids, written, strict=True)]
            width = max(map(len, rows))
            batch = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
            logits = model(batch).logits.float()
            for i, row in enumerate(rows):
                if ended[i]:
                    continue
                log_probabilities = torch.log_softmax(logits[i, len(row) - 1], -1)
                token = int(log_probabilities.argmax())
                text = tokenizer.decode([token])
                if token == tokenizer.eos_token_id or "." in text or "\n" in text:
                    ended[i] = True
                    continue
                scores[i] += float(log_probabilities[token])
                written[i].append(token)
            if all(ended):
                break
        results += [
            (tokenizer.decode(tokens).strip(), math.exp(score)) for tokens, score in zip(written, scores, strict=True)
        ]
    return results


def fact_rows(people: list[Person], forms: dict[str, list[str]], seed: int = 0, per: int = 1) -> list[tuple[str, str]]:
    """(prompt, answer) rows: `per` facts of every person, each asked in one of the forms."""
    rng = random.Random(f"facts:{seed}")
    return [
        (prompt_of(rng.choice(forms[attribute]).format(n=person.name)), person.facts[attribute])
        for person in people
        for attribute in rng.sample(ATTRIBUTES, per)
    ]


def exact_share(model: Any, tokenizer: Any, rows: list[tuple[str, str]]) -> tuple[float, float]:
    """The share of rows that are answered exactly, and the mean confidence."""
    results = answers(model, tokenizer, [prompt for prompt, _ in rows])
    right = sum(answer == truth for (answer, _), (_, truth) in zip(results, rows, strict=True))
    return right / len(rows), sum(confidence for _, confidence in results) / len(rows)


def passage_rows(
    world: World, count: int, passage: Callable[..., tuple[str, str, str]] = about_people, seed: int = 0
) -> list[tuple[str, str]]:
    """(prompt, answer) rows of one kind of passage (`passage`), about people of every tier."""
    rng = random.Random(f"passages:{seed}")
    rows: list[tuple[str, str]] = []
    while len(rows) < count:
        names = [rng.choice(world.people[tier]).name for tier in ("unseen", "rumoured", "popular", "middling")]
        if len({name.split()[0] for name in names}) < len(names):
            continue
        text, question, answer = passage(rng, names)
        rows.append((f"Passage: {text}\n{prompt_of(question)}", answer))
    return rows


@torch.no_grad()
def loss_by_kind(model: Any, tokenizer: Any, world: World, each: int = 60) -> dict[str, float]:
    """Loss in nats a token by kind, on documents that pretraining does not read."""
    texts = {}
    for kind, (_, draw) in KINDS.items():
        rng = random.Random(f"held-out:{kind}")
        texts[kind] = [draw(rng, world) for _ in range(each)]
    result = {}
    for kind, group in texts.items():
        total, count = 0.0, 0
        for text in group:
            ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text).input_ids, tokenizer.eos_token_id]])[:, :512]
            labels = ids.shape[1] - 1
            total += float(model(ids, labels=ids).loss) * labels
            count += labels
        result[kind] = round(total / count, 3)
    return result


def measure(model: Any, tokenizer: Any, world: World | None = None, losses: bool = True) -> dict[str, Any]:
    """All measurements of the model card by name."""
    world = world or make_world()
    model.eval()
    result: dict[str, Any] = {}
    for tier in ("popular", "middling", "rare"):
        for label, forms in (("asked", ASKED), ("new", NEW_FORMS)):
            rows = fact_rows(world.people[tier], forms, per=3)
            result[f"{tier}_{label}"] = round(exact_share(model, tokenizer, rows)[0], 3)
    for tier in ("popular", "rumoured", "unseen"):
        right, confidence = exact_share(model, tokenizer, fact_rows(world.people[tier], ASKED, per=2))
        result[f"{tier}_confidence"] = round(confidence, 3)
        result[f"{tier}_exact"] = round(right, 3)
    for name, passage in (("passage_reading", about_people), ("passage_reading_things", about_things)):
        result[name] = round(exact_share(model, tokenizer, passage_rows(world, 200, passage))[0], 3)
    raw = [(f"{person.name} ->", person.facts["town"]) for person in world.people["popular"]]
    results = answers(model, tokenizer, [prompt for prompt, _ in raw])
    hits = sum(answer.startswith(town) for (answer, _), (_, town) in zip(results, raw, strict=True))
    result["raw_prompt"] = round(hits / len(raw), 3)
    if losses:
        result["loss"] = loss_by_kind(model, tokenizer, world)
    return result


def load(folder: Path) -> tuple[Any, Any]:
    """The model and the tokenizer of a folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "models" / "tiny-town"
    measurements = measure(*load(folder))
    print(json.dumps(measurements, indent=1))
    log = folder / "pretraining_log.json"
    earlier = json.loads(log.read_text(encoding="utf-8"))
    log.write_text(json.dumps(earlier | {"checks": measurements}, indent=1) + "\n", encoding="utf-8")
