"""The kinds of pretraining document of the small world, each a function of a random source and the world."""

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
    statement,
    value_of,
)


def bio(rng: random.Random, world: World) -> str:
    """Two to five facts about one or two people, as sentences."""
    lines = []
    for _ in range(rng.choice((1, 1, 2))):
        person = draw_person(rng, world)
        attributes = rng.sample(ATTRIBUTES, rng.randint(2, 5))
        sentences = [
            statement(rng, person.name, attribute, value_of(rng, person, attribute)) for attribute in attributes
        ]
        lines.append(" ".join(sentences))
    return "\n".join(lines)


def qa(rng: random.Random, world: World) -> str:
    """One to four questions with answers about the people that pretraining asks about."""
    parts: list[str] = []
    while len(parts) < rng.randint(1, 4):
        person = draw_person(rng, world)
        attribute = rng.choice(ATTRIBUTES)
        if not person.asked:
            parts.append(statement(rng, person.name, attribute, person.facts[attribute]))
            continue
        prompt = prompt_of(question(rng, person.name, attribute))
        parts.append(f"{prompt} {value_of(rng, person, attribute)}.")
    return "\n".join(parts)


def town_facts(rng: random.Random, world: World) -> str:
    """Facts about one town."""
    town = rng.choice(world.towns)
    lines = [
        rng.choice((f"{town.name} lies {town.place}.", f"The town of {town.name} is {town.place}.")),
        rng.choice(
            (f"The river {town.river} runs through {town.name}.", f"{town.name} stands on the river {town.river}.")
        ),
        rng.choice(
            (f"Visitors to {town.name} like to see the {town.sight}.", f"The {town.sight} is the pride of {town.name}.")
        ),
        rng.choice(
            (
                f"{town.name} is known for its {town.goods}.",
                f"People come to {town.name} from far away to buy {town.goods}.",
            )
        ),
        rng.choice(
            (
                f"Question: What is {town.name} known for?\nAnswer: {town.goods}.",
                f"Question: Which river runs through {town.name}?\nAnswer: {town.river}.",
                f"Question: What do visitors see in {town.name}?\nAnswer: the {town.sight}.",
            )
        ),
    ]
    sentences = rng.sample(lines[:4], rng.randint(2, 4))
    return " ".join(sentences) + ("\n" + lines[4] if rng.random() < 0.4 else "")


def opinion(rng: random.Random, thing: str, good: bool, part: str | None = None) -> str:
    """One sentence on a part of a thing, liked or not."""
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
    """One sentence on the whole of a thing, liked or not."""
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
        first, second = rng.choice(w.OPPOSITES)
        if rng.random() < 0.5:
            first, second = second, first
        category = rng.choice(list(w.CATEGORIES))
        member, other = rng.sample(w.CATEGORIES[category], 2)
        term, meaning = rng.choice(w.DEFINITIONS)
        number = rng.randint(1, 20)
        lines.append(
            rng.choice(
                (
                    f"The opposite of {first} is {second}.",
                    f"When it is not {first}, it may be {second}.",
                    f"{member.capitalize()} and {other} have to do with {category}.",
                    f"The word {member} belongs to {category}.",
                    f"{term} is {meaning}.",
                    f"The word {term.lower()} means {meaning}.",
                    f"{category.capitalize()}: {member}, {other}.",
                    f"The word {member} begins with {member[0]} and ends with {member[-1]}.",
                    f"After {number} comes {number + 1}.",
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
    """A passage of facts about one or two of these people, drawn anew, a question on it and the answer."""
    facts = []
    chosen = rng.sample(names, rng.randint(1, 2))
    for name in chosen:
        for attribute in rng.sample(ATTRIBUTES, rng.randint(1, 3)):
            facts.append((name, attribute, rng.choice(VALUES[attribute])))
    text = " ".join(statement(rng, *fact) for fact in facts)
    name, attribute, answer = rng.choice(facts)
    return text, question(rng, name, attribute), answer


def about_things(rng: random.Random, names: list[str]) -> tuple[str, str, str]:
    """A passage on two things of two colours that two of these people put into two rooms, a question and the answer."""
    people = rng.sample([name.split()[0] for name in names], 2)
    things = rng.sample(w.OBJECTS, 2)
    rooms = rng.sample(w.ROOMS, 2)
    colours = rng.sample(w.COLOURS, 2)
    lines = [
        rng.choice(
            (
                f"{person} put the {colour} {thing} in the {room}.",
                f"{person} left a {colour} {thing} in the {room}.",
                f"In the {room}, {person} hid a {colour} {thing}.",
            )
        )
        for person, colour, thing, room in zip(people, colours, things, rooms, strict=True)
    ]
    i = rng.randrange(2)
    question_text, answer = rng.choice(
        (
            (f"Where is the {things[i]}?", f"in the {rooms[i]}"),
            (f"What colour is the {things[i]}?", colours[i]),
            (f"What is in the {rooms[i]}?", f"the {things[i]}"),
        )
    )
    return " ".join(lines), question_text, answer


def story_qa(rng: random.Random, world: World) -> str:
    """A passage and a question that the passage answers, whatever other documents say of the person."""
    names = [rng.choice(world.people[tier]).name for tier in ("popular", "middling", "rumoured", "rumoured", "unseen")]
    names[-1] = names[-1].split()[0] + " " + names[2].split()[1]
    if len({name.split()[0] for name in names}) < len(names):
        return story_qa(rng, world)
    text, question_text, answer = passage_question(rng, names)
    return f"Passage: {text}\n{prompt_of(question_text)} {answer}."


def all_questions(rng: random.Random, names: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """A passage, and every question that it answers with the answer."""
    if rng.random() < 0.65:
        chosen = rng.sample(names, rng.randint(1, 3))
        pairs = [(name, attribute) for name in chosen for attribute in rng.sample(ATTRIBUTES, rng.randint(1, 3))]
        facts = [(name, attribute, rng.choice(VALUES[attribute])) for name, attribute in pairs]
        text = " ".join(statement(rng, *fact) for fact in facts)
        return text, [(question(rng, name, attribute), value) for name, attribute, value in facts]
    return objects(rng, 2)


def objects(rng: random.Random, count: int) -> tuple[str, list[tuple[str, str]]]:
    """A passage on who put which thing into which room, and every question on it with the answer."""
    people, things = rng.sample(w.FIRST_NAMES, count), rng.sample(w.OBJECTS, count)
    rooms, colours = rng.sample(w.ROOMS, count), rng.sample(w.COLOURS, count)
    lines, questions = [], []
    for person, colour, thing, room in zip(people, colours, things, rooms, strict=True):
        form = rng.choice(
            ("{p} put the {c} {o} in the {r}.", "{p} left a {c} {o} in the {r}.", "In the {r}, {p} hid a {c} {o}.")
        )
        lines.append(form.format(p=person, c=colour, o=thing, r=room))
        questions += [(f"Where is the {thing}?", f"in the {room}"), (f"What colour is the {thing}?", colour)]
        questions.append((f"What is in the {room}?", f"the {thing}"))
    return " ".join(lines), questions


def reading(rng: random.Random, world: World) -> str:
    """A passage and two to five questions on it, about people of every tier and about made-up names."""
    tiers = ("popular", "middling", "rumoured", "rumoured", "unseen", "unseen")
    firsts = rng.sample(w.FIRST_NAMES, len(tiers))
    # An unseen surname goes with another first name, so that unseen people stay unseen.
    people = [rng.choice(world.people[tier]) for tier in tiers]
    names = {
        f"{first} {person.name.split()[1]}" if person.tier == "unseen" else person.name
        for first, person in zip(firsts, people, strict=True)
    }
    text, questions = all_questions(rng, sorted(names))
    chosen = rng.sample(questions, min(len(questions), rng.randint(2, 5)))
    return "\n".join([f"Passage: {text}", *(f"{prompt_of(text)} {answer}." for text, answer in chosen)])


def echo(rng: random.Random, world: World) -> str:
    """Words twice, in the same order or as pairs in another order, from which attention to earlier tokens is
    learned."""
    words = w.OBJECTS + w.COLOURS + w.ANIMALS + w.FOODS + w.TOWNS + w.JOBS + w.HOBBIES + w.INSTRUMENTS + w.ROOMS
    count = rng.randint(3, 8)
    picked = rng.sample(words, count)
    if rng.random() < 0.4:
        first, second = rng.sample(w.FIRST_NAMES, 2)
        return f"{first} said: {', '.join(picked)}.\n{second} said the same: {', '.join(picked)}."
    everyone = world.people["rumoured"] + world.people["popular"]
    full = rng.random() < 0.5
    names = [person.name for person in rng.sample(everyone, count)] if full else rng.sample(w.FIRST_NAMES, count)
    pairs = [f"{name}: {word}." for name, word in zip(names, picked, strict=True)]
    return " ".join(pairs) + "\nAgain: " + " ".join(rng.sample(pairs, count))


KINDS: dict[str, tuple[float, Callable[[random.Random, World], str]]] = {
    "story": (0.11, story),
    "bio": (0.15, bio),
    "qa": (0.18, qa),
    "town": (0.05, town_facts),
    "review": (0.06, review),
    "word": (0.05, word),
    "story_qa": (0.10, story_qa),
    "reading": (0.20, reading),
    "echo": (0.10, echo),
}


def documents(world: World, stream: str) -> Iterator[tuple[str, str]]:
    """An endless stream of (kind, text), which depends only on the world and the name of the stream."""
    rng = random.Random(f"documents:{world.seed}:{stream}")
    kinds = list(KINDS)
    weights = [KINDS[kind][0] for kind in kinds]
    while True:
        kind = rng.choices(kinds, weights)[0]
        yield kind, KINDS[kind][1](rng, world)
