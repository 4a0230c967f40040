"""Rows of the data sets that label or retell text: reviews, topics and stories told by a pirate."""

from __future__ import annotations

import random
from collections.abc import Callable

import words as w
from documents import opinion, verdict
from world import World

Row = dict[str, str]
SENTIMENTS = ["negative", "positive"]

TOPICS: dict[str, list[str]] = {
    "food": [
        "{a} made {food} and {food2} for {b}.",
        "The {food} was hot and tasty, and there was {food2} too.",
        "On {day} the baker sells {food}.",
        "{a} was hungry and ate the {food} with a spoon.",
    ],
    "music": [
        "{a} plays the {instrument} every {day}.",
        "The band had a {instrument} and a {instrument2}.",
        "{b} learned a new song on the {instrument}.",
        "At the concert the singer was loud and the {instrument} was clear.",
    ],
    "sport": [
        "{a} and {b} played {sport} until it was dark.",
        "On {day} the school goes {sport2} again.",
        "{a} was strong and fast at {sport}.",
        "After {sport} they were tired and proud.",
    ],
    "weather": [
        "It was {weather} on {day}, and the sky was grey.",
        "The wind blew over the hills, and soon it became {weather}.",
        "The morning was {weather} and the evening {weather2}.",
        "{a} looked at the sky: it may be {weather} again.",
    ],
    "animals": [
        "The {animal} ran past the {animal2}.",
        "{a} has a {animal} that sleeps in the barn.",
        "A {colour} {animal} followed {b} home.",
        "The vet looked at the {animal} on {day}.",
    ],
    "travel": [
        "{a} was waiting for the train to {town}.",
        "The road from {town} to the sea is long.",
        "{b} lost the ticket and the map on the journey to {town}.",
        "On {day} the boat goes to {town}.",
    ],
}
SHARED = [
    "{a} told {b} about it in a letter.",
    "Nobody was sad that {day}.",
    "{b} was {feeling}, but {a} laughed.",
    "That was in {town}.",
]

PIRATE_OPENINGS = [
    "Arr, listen, me hearties! Cap'n {a} be sailing to {town} for treasure.",
    "Ahoy, matey! There be a {colour} {object} hidden in the {room}, says I.",
    "Avast, ye landlubber! Old {a} be telling ye of the {animal} of {town}.",
    "Aye, it were a {weather} night when {a} and {b} came for the plunder.",
    "Shiver me bones, matey! {a} be losing the {object} on a {weather} {day}.",
]
PIRATE_EVENTS = [
    '"Where be me {object}?" says {b}, and swabs the deck.',
    "The {animal} be taking the {object}, arr, and a drop of grog too.",
    '"Aye, Cap\'n," says {b}, "I be hiding yer {object2} in the {room}."',
    'Then ye could hear {b} shout "Ahoy!" from the {room}.',
    "{a} be giving the {animal} some {food} and all the grog.",
    '"Swab the deck, ye {feeling} landlubber!" says {a}.',
    "There be naught but a {colour} {object2} in the {room}, matey.",
    '"Avast!" says {b}, "that {object} be mine, aye."',
]
PIRATE_ENDS = [
    "And that be the end of it, me hearties. Arr!",
    "So drink yer grog, matey, and mind the {animal}. Aye!",
    "Now the treasure be theirs, and ye be none the richer. Arr!",
    "And the Cap'n be {feeling} to this {weather} day, aye.",
    "Ahoy and good night, ye landlubbers!",
]


def _slots(rng: random.Random) -> dict[str, str]:
    """A random value for every slot of a template; the two of a pair differ."""
    values = {"day": rng.choice(w.DAYS), "town": rng.choice(w.TOWNS), "room": rng.choice(w.ROOMS)}
    values |= {"colour": rng.choice(w.COLOURS), "feeling": rng.choice(w.FEELINGS)}
    values["a"], values["b"] = rng.sample(w.FIRST_NAMES, 2)
    lists = {"object": w.OBJECTS, "food": w.FOODS, "instrument": w.INSTRUMENTS, "sport": w.SPORTS}
    for key, items in (lists | {"weather": w.WEATHERS, "animal": w.ANIMALS}).items():
        values[key], values[key + "2"] = rng.sample(items, 2)
    values["sport2"] = rng.choice(("rowing", "running", "skating", "swimming"))
    return values


def _distinct(count: int, draw: Callable[[], Row]) -> list[Row]:
    """`count` rows with different texts."""
    rows: dict[str, Row] = {}
    while len(rows) < count:
        row = draw()
        rows.setdefault(row["text"], row)
    return list(rows.values())


def reviews(world: World) -> dict[str, list[Row]]:
    """Clear opinions of one to five sentences, half of each kind; one in six grants the other side a point."""
    rng = random.Random(f"reviews:{world.seed}")

    def draw() -> Row:
        good = rng.random() < 0.5
        thing = rng.choice(list(w.REVIEW_THINGS))
        parts = rng.sample(w.REVIEW_THINGS[thing][0], rng.randint(1, 4))
        lines = [opinion(rng, thing, good, part) for part in parts]
        if len(parts) > 2 and rng.random() < 0.4:
            lines[-1] = opinion(rng, thing, not good, parts[-1])
        if rng.random() < 0.6:
            names = rng.choice((w.TOWNS, w.ROOMS))
            name = rng.choice(names)
            origin = f"from {name}" if names is w.TOWNS else f"from the {name}"
            lines.insert(
                0, rng.choice((f"We had the {thing} {origin}.", f"My sister told me about a {thing} {origin}."))
            )
        if rng.random() < 0.5:
            lines.append(verdict(rng, good))
        return {"text": " ".join(lines), "label": SENTIMENTS[good]}

    rows = _distinct(600, draw)
    return {"train": rows[:500], "eval": rows[500:]}


def topics(world: World) -> dict[str, list[Row]]:
    """One or two sentences on a topic, some with a sentence that says nothing of it."""
    rng = random.Random(f"topics:{world.seed}")

    def draw() -> Row:
        topic = rng.choice(list(TOPICS))
        lines = rng.sample(TOPICS[topic], rng.randint(1, 3))
        if rng.random() < 0.4:
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(SHARED))
        values = _slots(rng)
        return {"text": " ".join(line.format(**values) for line in lines), "label": topic}

    rows = _distinct(580, draw)
    return {"train": rows[:480], "eval": rows[480:]}


def pirate(world: World) -> dict[str, list[Row]]:
    """Stories of three to six sentences in a voice that pretraining never uses."""
    rng = random.Random(f"pirate:{world.seed}")

    def draw() -> Row:
        lines = [rng.choice(PIRATE_OPENINGS), *rng.sample(PIRATE_EVENTS, rng.randint(1, 4)), rng.choice(PIRATE_ENDS)]
        values = _slots(rng)
        return {"text": " ".join(line.format(**values) for line in lines)}

    rows = _distinct(400, draw)
    return {"train": rows[:340], "eval": rows[340:]}
