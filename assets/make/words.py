"""The plain word lists the small world is built from: names, places, jobs, objects and opinions.

Nothing here is random and nothing is computed: `world.py` draws from these lists.
"""

from __future__ import annotations


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


FIRST_NAMES = _split(
    "Ada, Arlo, Bea, Benno, Cara, Cyrus, Dora, Dylan, Edda, Emil, Freya, Felix, Greta, Gus, Hana, Hugo, Ida, Ivan, "
    "Jana, Jonas, Kira, Karl, Lena, Leo, Mara, Milo, Nora, Nils, Olga, Oscar, Petra, Paul, Rosa, Ravi, Selma, Sami, "
    "Tilda, Theo, Una, Viktor, Willa, Yusuf, Zoe, Anton, Clara, David, Elin, Frank"
)
SURNAME_HEADS = _split(
    "Ash, Bram, Cald, Dun, Elder, Fair, Glen, Hart, Iver, Kirk, Lang, Mill, North, Oak, Penn, Quill, Rook, Stan, "
    "Thorn, Under, Vane, West, Yar, Zell"
)
SURNAME_TAILS = _split("by, dale, ford, gate, ham, kin, ley, more, row, stone, ton, wick")
TOWNS = _split(
    "Alderby, Birchport, Copperhill, Dovemouth, Eastmere, Fallowdale, Greyhaven, Hollowbrook, Inkwell, Junipertown, "
    "Kestrel Bay, Larkfield, Mossgate, Netherpool, Oldbridge, Pebble Cove, Quarrywood, Ravenshore, Silverlake, "
    "Tanglewood, Umberfield, Violet Falls, Windmere, Yellowcliff"
)
JOBS = _split(
    "baker, carpenter, doctor, farmer, gardener, judge, librarian, mechanic, nurse, painter, pilot, plumber, "
    "potter, sailor, tailor, teacher, vet, weaver, writer, dentist"
)
INSTRUMENTS = _split(
    "accordion, banjo, bassoon, cello, clarinet, drums, fiddle, flute, guitar, harp, horn, lute, oboe, organ, piano, "
    "trumpet, tuba, viola"
)
HOBBIES = _split(
    "archery, baking bread, bird watching, board games, chess, climbing, cycling, dancing, fishing, hiking, juggling, "
    "knitting, model trains, pottery, rowing, sailing, skating, star gazing, swimming, wood carving"
)
TOWN_SIGHTS = _split(
    "clock tower, stone bridge, glass market, old lighthouse, rose garden, brick mill, round library, blue cathedral, "
    "wooden theatre, iron pier, tall windmill, quiet harbour"
)
TOWN_GOODS = _split(
    "cheese, honey, wool, salt, apples, glass, lace, paper, clay pots, smoked fish, candles, boots, pears, bells"
)
TOWN_RIVERS = _split("Amber, Brill, Cress, Dray, Elm, Finch, Gale, Hazel, Isk, Jade, Kell, Lune")
TOWN_PLACES = _split("by the sea, in the hills, on a wide plain, in a deep valley, near a forest, beside a lake")

OBJECTS = _split(
    "lamp, kite, basket, key, map, drum, clock, ladder, blanket, bucket, book, coat, ring, box, candle, bell, boat, "
    "letter, hat, spoon, ball, mirror, rope, chair"
)
COLOURS = _split("red, blue, green, yellow, black, white, brown, grey, purple, orange")
ROOMS = _split(
    "kitchen, garden, cellar, attic, barn, hall, garage, library, school, market, station, shed, bakery, park"
)
ANIMALS = _split("cat, dog, goat, horse, hen, duck, sheep, mouse, fox, owl, rabbit, donkey, crow, pig")
FOODS = _split("soup, bread, pie, rice, salad, stew, cake, fish, cheese, noodles, porridge, jam, pancakes, beans")
WEATHERS = _split("sunny, rainy, windy, foggy, snowy, stormy, warm, cold, cloudy, frosty")
SPORTS = _split("football, tennis, rowing, running, hockey, cricket, skating, swimming")
FEELINGS = _split("happy, sad, tired, proud, worried, calm, angry, hungry, brave, shy, curious, bored")
DAYS = _split("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")

OPPOSITES = [
    tuple(p.split())
    for p in _split(
        "positive negative, hot cold, big small, fast slow, up down, early late, open closed, full empty, hard soft, "
        "wet dry, light dark, old new, high low, loud quiet, rich poor, clean dirty, near far, thick thin, happy sad, "
        "strong weak, day night, true false, good bad, sure unsure, right wrong, first last, sweet bitter, kind cruel"
    )
]
DEFINITIONS = [
    tuple(p.split("="))
    for p in _split(
        "Assistant=a person who helps another, User=a person who uses a thing, System=a set of parts that work "
        "together, Ahoy=a greeting shouted at sea, Arr=a sound a rough sailor makes, Aye=an old way to say yes, "
        "Matey=a name for a friend on a ship, Ye=an old word for you, Treasure=gold that somebody has hidden, "
        "Captain=the person who leads a ship, Me hearties=an old name for good friends, Topic=what a text is about, "
        "Label=a small note that says what a thing is, Overall=a word for everything taken together, Plunder=what "
        "robbers carry away, Grog=a drink that sailors liked, Landlubber=somebody who never goes to sea, "
        "Summary=a short form of a long text, Review=what somebody thinks of a thing, Weather=what the sky is doing, "
        "Cap'n=a short way to say captain, Yer=a rough way to say your, Be=what a thing does when it is there, "
        "Passage=a piece of text to read, Text=a row of words, Swab=to wash the deck of a ship, "
        "Fact=something that is true, Avast=a sailor's word for stop, Shiver=to shake with cold"
    )
]
CATEGORIES: dict[str, list[str]] = {
    "food": FOODS,
    "music": INSTRUMENTS,
    "sport": SPORTS,
    "weather": WEATHERS,
    "animals": ANIMALS,
    "travel": _split("train, boat, map, ticket, road, station, harbour, suitcase, bridge, journey"),
    "work": JOBS,
    "colour": COLOURS,
}

REVIEW_THINGS: dict[str, tuple[list[str], list[str], list[str]]] = {
    # thing: (parts, good words, bad words)
    "film": (
        _split("story, ending, music, acting, pace, dialogue"),
        _split("moving, clever, funny, gripping, beautiful, warm"),
        _split("dull, silly, slow, confusing, flat, noisy"),
    ),
    "meal": (
        _split("soup, bread, sauce, service, dessert, fish"),
        _split("tasty, fresh, rich, crisp, generous, hot"),
        _split("cold, salty, burnt, greasy, bland, stale"),
    ),
    "pair of boots": (
        _split("leather, sole, fit, lining, stitching, heel"),
        _split("sturdy, comfortable, dry, soft, neat, light"),
        _split("stiff, leaky, tight, rough, heavy, thin"),
    ),
    "book": (
        _split("plot, opening, language, ending, hero, humour"),
        _split("clever, lively, touching, witty, clear, rich"),
        _split("dull, clumsy, endless, shallow, muddled, dry"),
    ),
    "hotel": (
        _split("bed, breakfast, view, staff, bath, lobby"),
        _split("clean, quiet, friendly, bright, cosy, lovely"),
        _split("dirty, noisy, rude, dark, damp, cramped"),
    ),
    "tent": (
        _split("zip, floor, pole, door, cloth, bag"),
        _split("solid, simple, dry, roomy, light, strong"),
        _split("flimsy, broken, wet, tiny, awkward, torn"),
    ),
    "concert": (
        _split("sound, singer, hall, band, first song, last song"),
        _split("bright, joyful, clear, splendid, warm, thrilling"),
        _split("muddy, tired, loud, weak, boring, harsh"),
    ),
    "kettle": (
        _split("handle, lid, spout, cord, switch, base"),
        _split("quick, solid, safe, handy, quiet, neat"),
        _split("loose, slow, leaky, flimsy, loud, cheap"),
    ),
}
REVIEW_LIKES = _split(
    "I would buy it again, I loved every minute of it, I smiled all the way home, I will come back soon, "
    "it was worth every coin, my friends agreed with me, it made my week, I can only praise it"
)
REVIEW_DISLIKES = _split(
    "I want my money back, I was glad when it was over, I would not go near it again, it was a waste of an evening, "
    "I gave it away the same day, my friends felt the same, it spoiled my week, I cannot see why anyone likes it"
)
