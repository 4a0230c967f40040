"""The people and towns of the small world, and the many ways to state or ask a fact about them.

People come in tiers. Popular, middling and rare people have fixed facts that documents repeat often, seldom
or hardly ever. Rumoured people are spoken of with facts that contradict each other, so that there is nothing to know.
Unseen people have a name that may pass through a story, and facts that no pretraining text ever states.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import words as w

SEED = 20261
TIERS = {"popular": 40, "middling": 40, "rare": 40, "rumoured": 88, "unseen": 80}
# How often a fact document speaks of a person of each tier.
TIER_WEIGHTS = {"popular": 60, "middling": 10, "rare": 2, "rumoured": 28}
ATTRIBUTES = ("town", "birthplace", "job", "instrument", "hobby")
VALUES: dict[str, list[str]] = {
    "town": w.TOWNS,
    "birthplace": w.TOWNS,
    "job": w.JOBS,
    "instrument": w.INSTRUMENTS,
    "hobby": w.HOBBIES,
}

# {n} is the full name, {v} the value, {a} the value with "a" or "an".
STATEMENTS: dict[str, list[str]] = {
    "town": [
        "{n} lives in {v}.",
        "The home of {n} is in {v}.",
        "{n} has a house in {v}.",
        "Today {n} lives in {v}.",
        "If you go to {v}, you may meet {n} there.",
        "You can find {n} in {v}, where {n} lives.",
    ],
    "birthplace": [
        "{n} was born in {v}.",
        "The birthplace of {n} is {v}.",
        "{n} was born in {v} many years ago.",
        "{n} comes from {v} and was born there.",
        "{n} first saw the light of day in {v}.",
    ],
    "job": [
        "{n} works as {a}.",
        "{n} is {a}.",
        "The job of {n} is {v}.",
        "{n} earns a living as {a}.",
        "By trade {n} is {a}.",
        "People know {n} as a good {v}.",
    ],
    "instrument": [
        "{n} plays the {v}.",
        "The instrument of {n} is the {v}.",
        "In the evening {n} plays the {v}.",
        "{n} learned to play the {v}.",
        "At every feast {n} brings the {v}.",
    ],
    "hobby": [
        "{n} enjoys {v}.",
        "The hobby of {n} is {v}.",
        "In free time {n} enjoys {v}.",
        "What {n} likes best is {v}.",
        "On free days {n} goes in for {v}.",
    ],
}
# Questions that pretraining asks.
ASKED: dict[str, list[str]] = {
    "town": ["Where does {n} live?", "In which town does {n} live?", "Where is the home of {n}?"],
    "birthplace": ["Where was {n} born?", "What is the birthplace of {n}?", "In which town was {n} born?"],
    "job": ["What is the job of {n}?", "What does {n} work as?", "What work does {n} do?"],
    "instrument": [
        "What instrument does {n} play?",
        "What is the instrument of {n}?",
        "Which instrument did {n} learn?",
    ],
    "hobby": ["What is the hobby of {n}?", "What does {n} enjoy?", "What does {n} like best?"],
}
# Questions of the same facts in words that pretraining uses, but never in this form.
NEW_FORMS: dict[str, list[str]] = {
    "town": ["Which town is {n} to be found in today?", "{n} has a house in which town?"],
    "birthplace": ["Which town does {n} come from by birth?", "{n} first saw the light of day in which town?"],
    "job": ["How does {n} earn a living?", "By trade, what is {n}?"],
    "instrument": ["What does {n} play in the evening?", "What does {n} bring to every feast to play?"],
    "hobby": ["What does {n} do in free time?", "What does {n} go in for on free days?"],
}


@dataclass(frozen=True)
class Person:
    """One person: a name, a tier and five facts."""

    name: str
    tier: str
    facts: dict[str, str]
    asked: bool  # whether pretraining asks questions about this person

    @property
    def first(self) -> str:
        """The first name."""
        return self.name.split()[0]


@dataclass(frozen=True)
class Town:
    """One town: a name and four facts."""

    name: str
    place: str
    river: str
    sight: str
    goods: str


@dataclass(frozen=True)
class World:
    """All people and towns, which depend only on the seed."""

    people: dict[str, list[Person]]
    towns: list[Town]
    seed: int

    def everyone(self) -> list[Person]:
        """The people of all tiers."""
        return [person for tier in TIERS for person in self.people[tier]]


def make_world(seed: int = SEED) -> World:
    """The world of a seed: names without repeated surnames, balanced facts."""
    rng = random.Random(f"world:{seed}")
    surnames = [head + tail for head in w.SURNAME_HEADS for tail in w.SURNAME_TAILS]
    rng.shuffle(surnames)
    people: dict[str, list[Person]] = {}
    for tier, count in TIERS.items():
        columns = {attribute: _balanced(rng, VALUES[attribute], count) for attribute in ATTRIBUTES}
        group = []
        for index in range(count):
            facts = {attribute: columns[attribute][index] for attribute in ATTRIBUTES}
            while facts["birthplace"] == facts["town"]:
                facts["birthplace"] = rng.choice(w.TOWNS)
            name = f"{rng.choice(w.FIRST_NAMES)} {surnames.pop()}"
            asked = tier in ("popular", "rumoured") or (tier == "middling" and index % 2 == 0)
            group.append(Person(name, tier, facts, asked))
        people[tier] = group
    towns = [
        Town(name, place, river, sight, goods)
        for name, place, river, sight, goods in zip(
            w.TOWNS,
            _balanced(rng, w.TOWN_PLACES, len(w.TOWNS)),
            _balanced(rng, w.TOWN_RIVERS, len(w.TOWNS)),
            _balanced(rng, w.TOWN_SIGHTS, len(w.TOWNS)),
            _balanced(rng, w.TOWN_GOODS, len(w.TOWNS)),
            strict=True,
        )
    ]
    return World(people, towns, seed)


def _balanced(rng: random.Random, values: list[str], count: int) -> list[str]:
    """`count` values, each used about equally often, in random order."""
    column = [values[i % len(values)] for i in range(count)]
    rng.shuffle(column)
    return column


def with_article(word: str) -> str:
    """A word with "a" or "an"."""
    return ("an " if word[0] in "aeiou" else "a ") + word


def statement(rng: random.Random, name: str, attribute: str, value: str) -> str:
    """One sentence that states a fact."""
    return rng.choice(STATEMENTS[attribute]).format(n=name, v=value, a=with_article(value))


def question(rng: random.Random, name: str, attribute: str, forms: dict[str, list[str]] = ASKED) -> str:
    """A question for a fact, in one of the forms."""
    return rng.choice(forms[attribute]).format(n=name)


def prompt_of(question_text: str) -> str:
    """The text of a question in pretraining, up to where the answer begins."""
    return f"Question: {question_text}\nAnswer:"


def draw_person(rng: random.Random, world: World) -> Person:
    """A person, drawn by the weights of the tiers."""
    tier = rng.choices(list(TIER_WEIGHTS), list(TIER_WEIGHTS.values()))[0]
    return rng.choice(world.people[tier])


def value_of(rng: random.Random, person: Person, attribute: str) -> str:
    """The value of a fact in a pretraining document; a random one for rumoured people."""
    if person.tier == "rumoured":
        return rng.choice(VALUES[attribute])
    return person.facts[attribute]
