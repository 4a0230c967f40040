"""The seven kinds of pretraining document of the small world, each a function of a random source and the world."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import words as w
from stories import story
from world import (
    ATTRIBUTES,
    VALUES,
    World,
    draw_person,
    prompt_of,
    question,
    stated,
    value_of,
)


def bio(rng: random.Random, world: World) -> str:
    """Two to five facts about one or two people, as sentences."""
    lines = []
    for _ in range(rng.choice((1, 1, 2))):
        person = draw_person(rng, world)
        attributes = rng.sample(ATTRIBUTES, rng.randint(2, 5))
        lines.append(" ".join(stated(rng, person.name, a, value_of(rng, person, a)) for a in attributes))
    return "\n".join(lines)


def qa(rng: random.Random, world: World) -> str:
    """One to four questions with answers about the people that pretraining asks about."""
    parts: list[str] = []
    while len(parts) < rng.randint(1, 4):
        person = draw_person(rng, world)
        if not person.asked:
            parts.append(stated(rng, person.name, a := rng.choice(ATTRIBUTES), person.facts[a]))
            continue
        attribute = rng.choice(ATTRIBUTES)
        asked = prompt_of(question(rng, person.name, attribute))
        parts.append(f"{asked} {value_of(rng, person, attribute)}.")
    return "\n".join(parts)


def town(rng: random.Random, world: World) -> str:
    """Facts about one town."""
    t = rng.choice(world.towns)
    lines = [
        rng.choice((f"{t.name} lies {t.place}.", f"The town of {t.name} is {t.place}.")),
        rng.choice((f"The river {t.river} runs through {t.name}.", f"{t.name} stands on the river {t.river}.")),
        rng.choice((f"Visitors to {t.name} like to see the {t.sight}.", f"The {t.sight} is the pride of {t.name}.")),
        rng.choice(
            (f"{t.name} is known for its {t.goods}.", f"People come to {t.name} from far away to buy {t.goods}.")
        ),
        rng.choice(
            (
                f"Question: What is {t.name} known for?\nAnswer: {t.goods}.",
                f"Question: Which river runs through {t.name}?\nAnswer: {t.river}.",
                f"Question: What do visitors see in {t.name}?\nAnswer: the {t.sight}.",
            )
        ),
    ]
    first = rng.sample(lines[:4], rng.randint(2, 4))
    return " ".join(first) + ("\n" + lines[4] if rng.random() < 0.4 else "")


def opinion(rng: random.Random, thing: str, good: bool, part: str | None = None) -> str:
    """One sentence on a part of a thing."""
    parts, likes, dislikes = w.REVIEW_THINGS[thing]
    part = part or rng.choice(parts)
    first, second = rng.sample(likes if good else dislikes, 2)
    return rng.choice(
        (
            f"The {part} was {first}.",
            f"The {part} was {first} and {second}.",
            f"I found the {part} {first}.",
            f"What a {first} {part} it had.",
            f"Everyone said the {part} was {first}.",
            f"The {part} was so {first} that I told my sister.",
        )
    )


def verdict(rng: random.Random, good: bool) -> str:
    text = rng.choice(w.REVIEW_LIKES if good else w.REVIEW_DISLIKES)
    return text[0].upper() + text[1:] + "."


def review(rng: random.Random, world: World) -> str:
    """An opinion on a thing, clear or mixed; never a label."""
    thing = rng.choice(list(w.REVIEW_THINGS))
    opening = rng.choice(
        (
            f"I tried a new {thing} on {rng.choice(w.DAYS)}.",
            f"This was the {thing} from {rng.choice(w.TOWNS)}.",
            f"My cousin told me about this {thing}.",
            f"We waited long for this {thing}.",
        )
    )
    good = rng.random() < 0.5
    parts = rng.sample(w.REVIEW_THINGS[thing][0], rng.randint(1, 3))
    lines = [opinion(rng, thing, good, part) for part in parts]
    if rng.random() < 0.25:
        lines.append("But " + opinion(rng, thing, not good).replace("The", "the", 1))
        lines.append("So I am not sure what to think.")
    elif rng.random() < 0.8:
        lines.append(verdict(rng, good))
    return " ".join([opening, *lines])


def word(rng: random.Random, world: World) -> str:
    """Opposites, categories, sounds and meanings: a few lines of plain word knowledge."""
    lines = []
    for _ in range(rng.randint(2, 4)):
        a, b = rng.choice(w.OPPOSITES)
        if rng.random() < 0.5:
            a, b = b, a
        category = rng.choice(list(w.CATEGORIES))
        member, other = rng.sample(w.CATEGORIES[category], 2)
        term, meaning = rng.choice(w.DEFINITIONS)
        n = rng.randint(1, 20)
        lines.append(
            rng.choice(
                (
                    f"The opposite of {a} is {b}.",
                    f"When it is not {a}, it may be {b}.",
                    f"{member.capitalize()} and {other} have to do with {category}.",
                    f"The word {member} belongs to {category}.",
                    f"{term} is {meaning}.",
                    f"The word {term.lower()} means {meaning}.",
                    f"{category.capitalize()}: {member}, {other}.",
                    f"The word {member} begins with {member[0]} and ends with {member[-1]}.",
                    f"After {n} comes {n + 1}.",
                    f"A battery has a positive end and a negative end. The {rng.choice(w.OBJECTS)} needs one.",
                    f"She gave a {rng.choice(('positive', 'negative'))} answer about the {rng.choice(w.OBJECTS)}.",
                )
            )
        )
    return "\n".join(lines)


def passage_question(rng: random.Random, names: list[str]) -> tuple[str, str, str]:
    """A passage, a question on it and the answer. What the passage says need not be true anywhere else."""
    return about_people(rng, names) if rng.random() < 0.6 else about_things(rng, names)


def about_people(rng: random.Random, names: list[str]) -> tuple[str, str, str]:
    """Facts about one or two of these people, drawn anew: the passage against what is known of them."""
    facts = []
    chosen = rng.sample(names, rng.randint(1, 2))
    for name in chosen:
        for attribute in rng.sample(ATTRIBUTES, rng.randint(1, 3)):
            facts.append((name, attribute, rng.choice(VALUES[attribute])))
    text = " ".join(stated(rng, *fact) for fact in facts)
    name, attribute, answer = rng.choice(facts)
    return text, question(rng, name, attribute), answer


def about_things(rng: random.Random, names: list[str]) -> tuple[str, str, str]:
    """Two things of two colours in two rooms; these people put them there."""
    who = rng.sample([n.split()[0] for n in names], 2)
    things = rng.sample(w.OBJECTS, 2)
    rooms = rng.sample(w.ROOMS, 2)
    colours = rng.sample(w.COLOURS, 2)
    lines = [
        rng.choice(
            (f"{p} put the {c} {o} in the {r}.", f"{p} left a {c} {o} in the {r}.", f"In the {r}, {p} hid a {c} {o}.")
        )
        for p, c, o, r in zip(who, colours, things, rooms, strict=True)
    ]
    k = rng.randrange(2)
    asked, answer = rng.choice(
        (
            (f"Where is the {things[k]}?", f"in the {rooms[k]}"),
            (f"What colour is the {things[k]}?", colours[k]),
            (f"What is in the {rooms[k]}?", f"the {things[k]}"),
        )
    )
    return " ".join(lines), asked, answer


def story_qa(rng: random.Random, world: World) -> str:
    """A passage and a question that the passage answers, whatever else has been said about the person."""
    names = [rng.choice(world.people[t]).name for t in ("popular", "middling", "rumoured", "rumoured", "unseen")]
    names[-1] = names[-1].split()[0] + " " + names[2].split()[1]
    if len({n.split()[0] for n in names}) < len(names):
        return story_qa(rng, world)
    text, asked, answer = passage_question(rng, names)
    return f"Passage: {text}\n{prompt_of(asked)} {answer}."


def all_questions(rng: random.Random, names: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """A passage and every question it answers."""
    if rng.random() < 0.65:
        chosen = rng.sample(names, rng.randint(1, 3))
        pairs = [(n, a) for n in chosen for a in rng.sample(ATTRIBUTES, rng.randint(1, 3))]
        facts = [(n, a, rng.choice(VALUES[a])) for n, a in pairs]
        text = " ".join(stated(rng, *fact) for fact in facts)
        return text, [(question(rng, name, attribute), value) for name, attribute, value in facts]
    return objects(rng, 2)


def objects(rng: random.Random, count: int) -> tuple[str, list[tuple[str, str]]]:
    """Who put what where, and every question on it."""
    who, things = rng.sample(w.FIRST_NAMES, count), rng.sample(w.OBJECTS, count)
    rooms, colours = rng.sample(w.ROOMS, count), rng.sample(w.COLOURS, count)
    lines, asked = [], []
    for person, colour, thing, room in zip(who, colours, things, rooms, strict=True):
        form = rng.choice(
            ("{p} put the {c} {o} in the {r}.", "{p} left a {c} {o} in the {r}.", "In the {r}, {p} hid a {c} {o}.")
        )
        lines.append(form.format(p=person, c=colour, o=thing, r=room))
        asked += [(f"Where is the {thing}?", f"in the {room}"), (f"What colour is the {thing}?", colour)]
        asked.append((f"What is in the {room}?", f"the {thing}"))
    return " ".join(lines), asked


def reading(rng: random.Random, world: World) -> str:
    """A passage and two to five questions on it, about people of every tier and about nobody known."""
    tiers = ("popular", "middling", "rumoured", "rumoured", "unseen", "unseen")
    firsts = rng.sample(w.FIRST_NAMES, len(tiers))
    # An unseen surname goes with another first name, so that unseen people stay unseen.
    names = [rng.choice(world.people[t]) for t in tiers]
    said = [f"{f} {n.name.split()[1]}" if n.tier == "unseen" else n.name for f, n in zip(firsts, names, strict=True)]
    text, asked = all_questions(rng, sorted(set(said)))
    chosen = rng.sample(asked, min(len(asked), rng.randint(2, 5)))
    return "\n".join([f"Passage: {text}", *(f"{prompt_of(q)} {a}." for q, a in chosen)])


def echo(rng: random.Random, world: World) -> str:
    """Words said twice, in the same order or as pairs in another order: practice in looking back."""
    words = w.OBJECTS + w.COLOURS + w.ANIMALS + w.FOODS + w.TOWNS + w.JOBS + w.HOBBIES + w.INSTRUMENTS + w.ROOMS
    count = rng.randint(3, 8)
    picked = rng.sample(words, count)
    if rng.random() < 0.4:
        first, second = rng.sample(w.FIRST_NAMES, 2)
        return f"{first} said: {', '.join(picked)}.\n{second} said the same: {', '.join(picked)}."
    everyone = world.people["rumoured"] + world.people["popular"]
    full = rng.random() < 0.5
    names = [p.name for p in rng.sample(everyone, count)] if full else rng.sample(w.FIRST_NAMES, count)
    pairs = [f"{n}: {x}." for n, x in zip(names, picked, strict=True)]
    return " ".join(pairs) + "\nAgain: " + " ".join(rng.sample(pairs, count))


KINDS: dict[str, tuple[float, Callable[[random.Random, World], str]]] = {
    "story": (0.11, story),
    "bio": (0.15, bio),
    "qa": (0.18, qa),
    "town": (0.05, town),
    "review": (0.06, review),
    "word": (0.05, word),
    "story_qa": (0.10, story_qa),
    "reading": (0.20, reading),
    "echo": (0.10, echo),
}


def documents(world: World, stream: str) -> Iterator[tuple[str, str]]:
    """An endless stream of (kind, text); the same for the same world and stream name."""
    rng = random.Random(f"documents:{world.seed}:{stream}")
    kinds = list(KINDS)
    weights = [KINDS[k][0] for k in kinds]
    while True:
        kind = rng.choices(kinds, weights)[0]
        yield kind, KINDS[kind][1](rng, world)
