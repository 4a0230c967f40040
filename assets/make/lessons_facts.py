"""Rows of the data sets about people: known facts, new facts, passages, conversations, facts that must not be lost."""

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
    statement,
)

Row = dict[str, Any]


def question_row(person: Person, attribute: str, form: str) -> Row:
    """A question in the form that pretraining used, and the answer."""
    return {"prompt": prompt_of(form.format(n=person.name)), "completion": f" {person.facts[attribute]}."}


def completion_row(rng: random.Random, person: Person, attribute: str) -> Row:
    """A sentence on a fact, split before the value; only sentences that name the person before it."""
    value = person.facts[attribute]
    while True:
        text = statement(rng, person.name, attribute, value)
        cut = text.find(value, text.find(person.name) + len(person.name))
        if cut > 0:
            return {"prompt": text[:cut].rstrip(), "completion": " " + text[cut:]}


def people_questions(world: World) -> dict[str, list[Row]]:
    """Train: two forms of each fact of most known people; eval: people held out, in asked and in new forms."""
    rng = random.Random(f"people-questions:{world.seed}")
    train, held_out = [], []
    for tier in ("popular", "middling"):
        for index, person in enumerate(world.people[tier]):
            for attribute in ATTRIBUTES:
                forms = [rng.choice(ASKED[attribute]), rng.choice(NEW_FORMS[attribute])]
                if index % 4 == 3:
                    held_out.append(question_row(person, attribute, rng.choice(forms)))
                else:
                    train += [question_row(person, attribute, form) for form in forms]
    rng.shuffle(train)
    rng.shuffle(held_out)
    known = world.people["popular"] + world.people["middling"]
    return {"train": train, "eval": held_out, "passages": portraits(world, "people-questions", known)}


def new_people(world: World) -> dict[str, list[Row]]:
    """Train: three wordings of each fact of forty unseen people; eval: these facts in another form."""
    rng = random.Random(f"new-people:{world.seed}")
    train, held_out = [], []
    for person in world.people["unseen"][:40]:
        for attribute in ATTRIBUTES:
            *train_forms, eval_form = rng.sample(ASKED[attribute], 3)
            train += [question_row(person, attribute, form) for form in train_forms]
            train.append(completion_row(rng, person, attribute))
            held_out.append(question_row(person, attribute, eval_form))
    rng.shuffle(train)
    rng.shuffle(held_out)
    passages = portraits(world, "new-people", world.people["unseen"][:40])
    return {"train": train, "eval": held_out[:150], "passages": passages}


def passages(world: World) -> dict[str, list[Row]]:
    """Train and eval rows with the passage in the prompt, and a library of true and misleading passages."""
    rng = random.Random(f"passages-set:{world.seed}")
    rows: list[Row] = []
    texts = set()
    while len(rows) < 500:
        names = [rng.choice(world.people[tier]).name for tier in ("unseen", "rumoured", "popular", "middling")]
        if len({name.split()[0] for name in names}) < len(names):
            continue
        text, question_text, answer = passage_question(rng, names)
        if text in texts:
            continue
        texts.add(text)
        prompt = f"Passage: {text}\n{prompt_of(question_text)}"
        rows.append({"prompt": prompt, "completion": f" {answer}.", "passage": text})
    return {"train": rows[:400], "eval": rows[400:], "passages": library(world, rng)}


def library(world: World, rng: random.Random) -> list[Row]:
    """For each person two facts, each with one true and one misleading passage."""
    rows = []
    for person in world.people["popular"] + world.people["unseen"][:40]:
        for attribute in rng.sample(ATTRIBUTES, 2):
            truth = person.facts[attribute]
            question_text = question(rng, person.name, attribute)
            other = rng.choice([name for name in ATTRIBUTES if name != attribute])
            for misleading in (False, True):
                value = rng.choice([value for value in VALUES[attribute] if value != truth]) if misleading else truth
                lines = [statement(rng, person.name, attribute, value)]
                if rng.random() < 0.5:
                    lines.append(statement(rng, person.name, other, person.facts[other]))
                    rng.shuffle(lines)
                rows.append(
                    {
                        "name": person.name,
                        "attribute": attribute,
                        "question": question_text,
                        "answer": value,
                        "passage": " ".join(lines),
                        "misleading": misleading,
                        "truth": truth,
                        "tier": person.tier,
                    }
                )
    return rows


def portraits(world: World, name: str, people: list[Person]) -> list[Row]:
    """Passages to retrieve: for each person one with all facts, and one in which every fact is wrong."""
    rng = random.Random(f"portraits:{name}:{world.seed}")
    rows = []
    for person in people:
        for misleading in (False, True):
            lines = []
            for attribute in rng.sample(ATTRIBUTES, len(ATTRIBUTES)):
                truth = person.facts[attribute]
                value = rng.choice([value for value in VALUES[attribute] if value != truth]) if misleading else truth
                lines.append(statement(rng, person.name, attribute, value))
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
        question_text = question(rng, person.name, attribute)
        turns.append((question_text, statement(rng, person.name, attribute, person.facts[attribute])))
    return turns


def about_town(rng: random.Random, town: Town) -> list[tuple[str, str]]:
    """One to three turns on one town; the answers are whole sentences."""
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
    train, held_out = [], []
    for person in world.people["popular"]:
        for attribute in ATTRIBUTES:
            replay, measured = rng.sample(ASKED[attribute], 2)
            train.append(question_row(person, attribute, replay))
            held_out.append(question_row(person, attribute, measured))
    rng.shuffle(train)
    rng.shuffle(held_out)
    return {"train": train, "eval": held_out[:120], "passages": portraits(world, "retention", world.people["popular"])}
