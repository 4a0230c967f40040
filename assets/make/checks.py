"""Measures a small-world model: loss per kind of document, facts per tier, confidence, reading, the raw prompt.

Run `python assets/make/checks.py [DIR]`; it prints one JSON object and keeps it in the model's log. The test suite uses
the same functions.
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
def answers(model: Any, tok: Any, prompts: list[str], new: int = 8) -> list[tuple[str, float]]:
    """Greedy answers up to the first full stop or line end, with the model's probability of each whole answer."""
    out: list[tuple[str, float]] = []
    for start in range(0, len(prompts), 32):
        ids = [tok(p).input_ids for p in prompts[start : start + 32]]
        scores = [0.0] * len(ids)
        done = [False] * len(ids)
        said: list[list[int]] = [[] for _ in ids]
        for _ in range(new):
            rows = [a + b for a, b in zip(ids, said, strict=True)]
            width = max(map(len, rows))
            batch = torch.tensor([r + [tok.pad_token_id] * (width - len(r)) for r in rows])
            logits = model(batch).logits.float()
            for i, row in enumerate(rows):
                if done[i]:
                    continue
                logp = torch.log_softmax(logits[i, len(row) - 1], -1)
                token = int(logp.argmax())
                text = tok.decode([token])
                if token == tok.eos_token_id or "." in text or "\n" in text:
                    done[i] = True
                    continue
                scores[i] += float(logp[token])
                said[i].append(token)
            if all(done):
                break
        out += [(tok.decode(s).strip(), math.exp(x)) for s, x in zip(said, scores, strict=True)]
    return out


def fact_rows(people: list[Person], forms: dict[str, list[str]], seed: int = 0, per: int = 1) -> list[tuple[str, str]]:
    """(prompt, answer) rows: `per` facts of every person, each asked in one of the forms."""
    rng = random.Random(f"facts:{seed}")
    return [
        (prompt_of(rng.choice(forms[a]).format(n=p.name)), p.facts[a])
        for p in people
        for a in rng.sample(ATTRIBUTES, per)
    ]


def exact(model: Any, tok: Any, rows: list[tuple[str, str]]) -> tuple[float, float]:
    """Share answered exactly, and mean confidence."""
    got = answers(model, tok, [p for p, _ in rows])
    right = sum(a == t for (a, _), (_, t) in zip(got, rows, strict=True))
    return right / len(rows), sum(c for _, c in got) / len(rows)


def passage_rows(
    world: World, count: int, passage: Callable[..., tuple[str, str, str]] = about_people, seed: int = 0
) -> list[tuple[str, str]]:
    """(prompt, answer) rows of this kind of passage, about people of every tier."""
    rng = random.Random(f"passages:{seed}")
    rows: list[tuple[str, str]] = []
    while len(rows) < count:
        names = [rng.choice(world.people[t]).name for t in ("unseen", "rumoured", "popular", "middling")]
        if len({n.split()[0] for n in names}) < len(names):
            continue
        text, asked, answer = passage(rng, names)
        rows.append((f"Passage: {text}\n{prompt_of(asked)}", answer))
    return rows


@torch.no_grad()
def loss_by_kind(model: Any, tok: Any, world: World, each: int = 60) -> dict[str, float]:
    """Nats a token on documents that pretraining does not read."""
    texts = {}
    for kind, (_, draw) in KINDS.items():
        rng = random.Random(f"held-out:{kind}")
        texts[kind] = [draw(rng, world) for _ in range(each)]
    result = {}
    for kind, group in texts.items():
        total, count = 0.0, 0
        for text in group:
            ids = torch.tensor([[tok.eos_token_id, *tok(text).input_ids, tok.eos_token_id]])[:, :512]
            n = ids.shape[1] - 1
            total += float(model(ids, labels=ids).loss) * n
            count += n
        result[kind] = round(total / count, 3)
    return result


def measure(model: Any, tok: Any, world: World | None = None, losses: bool = True) -> dict[str, Any]:
    """Every check of the model card, as plain numbers."""
    world = world or make_world()
    model.eval()
    result: dict[str, Any] = {}
    for tier in ("popular", "middling", "rare"):
        for label, forms in (("asked", ASKED), ("new", NEW_FORMS)):
            rows = fact_rows(world.people[tier], forms, per=3)
            result[f"{tier}_{label}"] = round(exact(model, tok, rows)[0], 3)
    for tier in ("popular", "rumoured", "unseen"):
        right, sure = exact(model, tok, fact_rows(world.people[tier], ASKED, per=2))
        result[f"{tier}_confidence"] = round(sure, 3)
        result[f"{tier}_exact"] = round(right, 3)
    for name, passage in (("passage_reading", about_people), ("passage_reading_things", about_things)):
        result[name] = round(exact(model, tok, passage_rows(world, 200, passage))[0], 3)
    raw = [(f"{p.name} ->", p.facts["town"]) for p in world.people["popular"]]
    got = answers(model, tok, [p for p, _ in raw])
    hits = sum(a.startswith(t) for (a, _), (_, t) in zip(got, raw, strict=True))
    result["raw_prompt"] = round(hits / len(raw), 3)
    if losses:
        result["loss"] = loss_by_kind(model, tok, world)
    return result


def load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    here = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "models" / "tiny-town"
    found = measure(*load(here))
    print(json.dumps(found, indent=1))
    log = here / "pretraining_log.json"
    kept = json.loads(log.read_text(encoding="utf-8"))
    log.write_text(json.dumps(kept | {"checks": found}, indent=1) + "\n", encoding="utf-8")
