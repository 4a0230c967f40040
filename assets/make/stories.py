"""Short everyday stories: an opening, an event, a turn and an end, each drawn from templates with slots."""

from __future__ import annotations

import random

import words as w
from world import World

OPENINGS = [
    "One {weather} {day}, {a} went to the {room} with a {colour} {object}.",
    "{a} and {b} lived near {town}. On {day} they walked to the {room}.",
    "It was a {weather} morning in {town}. {a} felt {feeling}.",
    "{a} had a {animal} that liked {food}.",
    "Early on {day}, {a} found a {colour} {object} in the {room}.",
    "There was once a {animal} in {town} that followed {a} everywhere.",
    "{a} wanted to make {food} for {b}.",
    "On {day} the {job} of {town} lost a {object}.",
    "{a} wrote a letter to {b} about the {weather} days in {town}.",
    "The {room} was quiet. Only {a} and a {animal} were there.",
    "{a} was waiting for the train to {town} with {b}.",
    "{name} came to {town} on a {weather} evening.",
    "Every {day}, {a} played the {instrument} in the {room}.",
]
EVENTS = [
    "Then {b} came in and asked for the {object}.",
    "A {animal} ran past and took the {object}.",
    '"Have you seen my {object}?" asked {b}.',
    "They looked for the {object} in the {room}, but it was not there.",
    "The {job} gave them some {food} and a {colour} {object2}.",
    "{a} opened the {object} and found a {object2} inside.",
    '"I am {feeling}," said {b}, and sat down beside the {object}.',
    "The wind blew the {object} over the wall of the {room}.",
    "{b} showed {a} how to carry the {object}.",
    "At the {room} a {job} was selling {food}.",
    "They played {sport} until it was dark.",
    '"Let us go to the {room}," said {a}.',
    "{b} dropped the {object}, and it broke.",
    "The user of the {object} must be careful, said the {job}'s assistant.",
    "{a} told {b} a positive story and then a negative one.",
]
TURNS = [
    "At first nobody knew what to do.",
    "But the {animal} had hidden it in the {room}.",
    "Suddenly it became {weather}, and they had to wait.",
    "But {a} had an idea.",
    '"Do not worry," said {b}, "we can use the {object2}."',
    "{a} was {feeling}, but {b} laughed.",
    "Nobody saw the {animal} behind the {object2}.",
    "Then they heard a sound from the {room}.",
    '"It is true," said the {job}, "the {object} is mine."',
    "So they shared the {food} with the {animal}.",
    "They asked {name}, who was passing by.",
    "Soon the {object} was as good as new.",
]
ENDS = [
    "In the end they all went home and ate {food}.",
    "After that, {a} and {b} were friends.",
    "{a} slept well that night.",
    "And the {animal} was happy too.",
    '"Thank you," said {a}. "That was a good day."',
    "They put the {object} back in the {room}.",
    "From then on {b} always carried a {object2}.",
    "Overall, it was a good {day} in {town}.",
    "{a} never lost the {object} again.",
    "That is why the {animal} sleeps in the {room} now.",
    "The next day it was {weather} again.",
    '"Good night," said {b}, and closed the door.',
]


def slots(rng: random.Random, world: World) -> dict[str, str]:
    """A random value for every slot of a story template."""
    a, b = rng.sample(w.FIRST_NAMES, 2)
    first, second = rng.sample(w.OBJECTS, 2)
    return {
        "a": a,
        "b": b,
        "name": rng.choice(world.people[rng.choice(("unseen", "rumoured", "popular"))]).name,
        "object": first,
        "object2": second,
        "town": rng.choice(w.TOWNS),
        "room": rng.choice(w.ROOMS),
        "animal": rng.choice(w.ANIMALS),
        "food": rng.choice(w.FOODS),
        "weather": rng.choice(w.WEATHERS),
        "feeling": rng.choice(w.FEELINGS),
        "colour": rng.choice(w.COLOURS),
        "job": rng.choice(w.JOBS),
        "sport": rng.choice(w.SPORTS),
        "instrument": rng.choice(w.INSTRUMENTS),
        "day": rng.choice(w.DAYS),
    }


def story(rng: random.Random, world: World) -> str:
    """One story of four to six sentences."""
    values = slots(rng, world)
    chosen = [rng.choice(OPENINGS), *rng.sample(EVENTS, rng.randint(1, 2))]
    chosen += [*rng.sample(TURNS, rng.randint(1, 2)), rng.choice(ENDS)]
    return " ".join(template.format(**values) for template in chosen)
