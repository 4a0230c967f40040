"""Rows of the data sets about people: known facts, new facts, passages, conversations and what should be kept."""

from __future__ import annotations

import random
from typing import Any

from documents import passage_question
from world import (
    ASKED,
    ATTRIBUTES,
    NEW_FORMS,
    VALUES,
    Person,
    Town,
    World,
    prompt_of,
    question,
    stated,
)

Row = dict[str, Any]


def pair(person: Person, attribute: str, form: str) -> Row:
    """A question in the form that pretraining used, and the answer."""
    return {"prompt": prompt_of(form.format(n=person.name)), "completion": f" {person.facts[attribute]}."}


def statement(rng: random.Random, person: Person, attribute: str) -> Row:
    """A sentence on a fact, cut before the value; only sentences that name the person first."""
    value = person.facts[attribute]
    while True:
        text = stated(rng, person.name, attribute, value)
        cut = text.find(value, text.find(person.name) + len(person.name))
        if cut > 0:
            return {"prompt": text[:cut].rstrip(), "completion": " " + text[cut:]}


def people_questions(world: World) -> dict[str, list[Row]]:
    """Train: two forms of each fact of most known people; eval: people held out, in asked and in new forms."""
    rng = random.Random(f"people-questions:{world.seed}")
    train, held = [], []
    for tier in ("popular", "middling"):
        for index, person in enumerate(world.people[tier]):
            for attribute in ATTRIBUTES:
                forms = [rng.choice(ASKED[attribute]), rng.choice(NEW_FORMS[attribute])]
                if index % 4 == 3:
                    held.append(pair(person, attribute, rng.choice(forms)))
                else:
                    train += [pair(person, attribute, form) for form in forms]
    rng.shuffle(train)
    rng.shuffle(held)
    known = world.people["popular"] + world.people["middling"]
    return {"train": train, "eval": held, "passages": portraits(world, "people-questions", known)}


def new_people(world: World) -> dict[str, list[Row]]:
    """Train: three wordings of each fact of forty unseen people; eval: the same facts asked in another form."""
    rng = random.Random(f"new-people:{world.seed}")
    train, held = [], []
    for person in world.people["unseen"][:40]:
        for attribute in ATTRIBUTES:
            *taught, kept = rng.sample(ASKED[attribute], 3)
            train += [pair(person, attribute, form) for form in taught]
            train.append(statement(rng, person, attribute))
            held.append(pair(person, attribute, kept))
    rng.shuffle(train)
    rng.shuffle(held)
    portrayed = portraits(world, "new-people", world.people["unseen"][:40])
    return {"train": train, "eval": held[:150], "passages": portrayed}


def passages(world: World) -> dict[str, list[Row]]:
    """Train and eval rows with the passage in the prompt, and a library of true and misleading passages."""
    rng = random.Random(f"passages-set:{world.seed}")
    rows: list[Row] = []
    seen = set()
    while len(rows) < 500:
        names = [rng.choice(world.people[t]).name for t in ("unseen", "rumoured", "popular", "middling")]
        if len({n.split()[0] for n in names}) < len(names):
            continue
        text, asked, answer = passage_question(rng, names)
        if text in seen:
            continue
        seen.add(text)
        prompt = f"Passage: {text}\n{prompt_of(asked)}"
        rows.append({"prompt": prompt, "completion": f" {answer}.", "passage": text})
    return {"train": rows[:400], "eval": rows[400:], "passages": library(world, rng)}


def library(world: World, rng: random.Random) -> list[Row]:
    """For each person two facts, each with one true and one misleading passage."""
    rows = []
    for person in world.people["popular"] + world.people["unseen"][:40]:
        for attribute in rng.sample(ATTRIBUTES, 2):
            truth = person.facts[attribute]
            asked = question(rng, person.name, attribute)
            other = rng.choice([a for a in ATTRIBUTES if a != attribute])
            for misleading in (False, True):
                said = rng.choice([v for v in VALUES[attribute] if v != truth]) if misleading else truth
                lines = [stated(rng, person.name, attribute, said)]
                if rng.random() < 0.5:
                    lines.append(stated(rng, person.name, other, person.facts[other]))
                    rng.shuffle(lines)
                rows.append(
                    {
                        "name": person.name,
                        "attribute": attribute,
                        "question": asked,
                        "answer": said,
                        "passage": " ".join(lines),
                        "misleading": misleading,
                        "truth": truth,
                        "tier": person.tier,
                    }
                )
    return rows


def portraits(world: World, name: str, people: list[Person]) -> list[Row]:
    """A library to retrieve from: of each person all facts in one passage, and one in which every fact is wrong."""
    rng = random.Random(f"portraits:{name}:{world.seed}")
    rows = []
    for person in people:
        for misleading in (False, True):
            lines = []
            for attribute in rng.sample(ATTRIBUTES, len(ATTRIBUTES)):
                truth = person.facts[attribute]
                said = rng.choice([v for v in VALUES[attribute] if v != truth]) if misleading else truth
                lines.append(stated(rng, person.name, attribute, said))
            passage = " ".join(lines)
            rows.append(
                {
                    "name": person.name,
                    "attribute": "all",
                    "passage": passage,
                    "misleading": misleading,
                    "tier": person.tier,
                }
            )
    return rows


def about_person(rng: random.Random, person: Person) -> list[tuple[str, str]]:
    """Two or three turns on one person; the answers are whole sentences."""
    turns = []
    for attribute in rng.sample(ATTRIBUTES, rng.randint(1, 3)):
        asked = question(rng, person.name, attribute)
        turns.append((asked, stated(rng, person.name, attribute, person.facts[attribute])))
    return turns


def about_town(rng: random.Random, town: Town) -> list[tuple[str, str]]:
    turns = [
        (f"What is {town.name} known for?", f"{town.name} is known for its {town.goods}."),
        (f"Which river runs through {town.name}?", f"The river {town.river} runs through {town.name}."),
        (f"What do visitors see in {town.name}?", f"Visitors to {town.name} like to see the {town.sight}."),
        (f"Where is {town.name}?", f"{town.name} lies {town.place}."),
    ]
    return rng.sample(turns, rng.randint(1, 3))


def chats(world: World) -> dict[str, list[Row]]:
    """Conversations of one to four turns, some with a system line, some with a greeting."""
    rng = random.Random(f"chats:{world.seed}")
    rows: list[Row] = []
    while len(rows) < 360:
        known = rng.choice(world.people["popular"] + world.people["middling"])
        turns = about_person(rng, known) if rng.random() < 0.65 else about_town(rng, rng.choice(world.towns))
        if rng.random() < 0.35:
            greeting = rng.choice(("Good morning.", "Good day.", "Good evening."))
            turns.insert(0, (greeting, f"{greeting} What would you like to know?"))
        if rng.random() < 0.3:
            turns.append(("Thank you.", rng.choice(("That was a good question.", "Good night."))))
        messages = []
        if rng.random() < 0.25:
            messages.append({"role": "system", "content": "You are a friendly assistant who knows the towns."})
        for user, assistant in turns:
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        if {"messages": messages} not in rows:
            rows.append({"messages": messages})
    return {"train": rows[:300], "eval": rows[300:]}


def retention(world: World) -> dict[str, list[Row]]:
    """Popular facts as pretraining asks them; eval is what to measure, train is for replay."""
    rng = random.Random(f"retention:{world.seed}")
    train, held = [], []
    for person in world.people["popular"]:
        for attribute in ATTRIBUTES:
            replay, measured = rng.sample(ASKED[attribute], 2)
            train.append(pair(person, attribute, replay))
            held.append(pair(person, attribute, measured))
    rng.shuffle(train)
    rng.shuffle(held)
    return {"train": train, "eval": held[:120], "passages": portraits(world, "retention", world.people["popular"])}
