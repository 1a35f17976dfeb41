"""The words of the world: synonyms, clauses and the stray words that must do no harm."""

import random
from collections.abc import Sequence
from typing import Final

UNSAID: Final = "unsaid"

SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "circle": ("circle", "circle", "circle", "disc", "disk", "ball", "dot"),
    "square": ("square", "square", "square", "box"),
    "diamond": ("diamond", "diamond", "rhombus"),
    "gray": ("gray", "grey"),
    "purple": ("purple", "purple", "violet"),
    "cyan": ("cyan", "cyan", "turquoise"),
    "small": ("small", "tiny", "little"),
    "big": ("big", "large", "huge"),
}
OPENINGS: Final = (
    "a picture of ",
    "a drawing of ",
    "an image of ",
    "a photo of ",
    "an illustration of ",
    "a painting of ",
    "draw ",
    "please draw ",
    "show me ",
    "there is ",
    "i want ",
    "simple ",
)
ENDINGS: Final = (
    ", simple",
    ", flat design",
    ", minimal",
    ", minimalist art",
    ", beautiful",
    ", highly detailed",
    ", digital art",
    ", vector art",
    ", clean",
    ", high quality",
    ".",
    " please",
)
ANY_SHAPE: Final = ("shape", "thing", "figure")
BACKGROUND_WORDS: Final = ("background", "background", "background", "backdrop", "ground")
BACKGROUND_FORMS: Final = (
    "{text} on {a_color} {word}",
    "{text} on {a_color} {word}",
    "{text} on {a_color} {word}",
    "{text} with {a_color} {word}",
    "{text} against {a_color} {word}",
    "{text} in front of {a_color} {word}",
    "{text} on a plain {color} {word}",
    "{text} on {color}",
    "{text} on {color} {word}",
    "{text}, {color} {word}",
    "{color} {word}, {text}",
    "{a_color} {word} with {text}",
    "{text}. the {word} is {color}",
)
PAIR_FORMS: Final[dict[str, tuple[str, ...]]] = {
    "left": (
        "{first} to the left of {second}",
        "{first} left of {second}",
        "{first} on the left of {second}",
        "{second} to the right of {first}",
        "{second} right of {first}",
        "{second} on the right of {first}",
        "{first} and {second}",
        "{first} next to {second}",
        "{first} beside {second}",
        "{first} and {second} side by side",
        "{first} on the left and {second} on the right",
        "{second} on the right and {first} on the left",
    ),
    "above": (
        "{first} above {second}",
        "{first} above {second}",
        "{first} over {second}",
        "{first} on top of {second}",
        "{second} below {first}",
        "{second} below {first}",
        "{second} under {first}",
        "{second} beneath {first}",
        "{second} underneath {first}",
        "{first} with {second} below it",
        "{second} with {first} above it",
        "{first} at the top and {second} at the bottom",
    ),
}
TREE_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "round": ("a tree", "a tree", "a round tree", "a green tree", "one tree"),
    "pine": ("a pine tree", "a pine tree", "a fir tree", "a pine", "a christmas tree"),
    "cactus": ("a cactus", "a cactus", "a green cactus"),
}
BOAT_NAMES: Final = (
    "{a_color} sailboat",
    "{a_color} sailboat",
    "{a_color} boat",
    "a sailboat with {color} sails",
    "a boat with {a_color} sail",
)
GROUND_CLAUSES: Final[dict[str, tuple[str, ...]]] = {
    "field": (
        " in a green field",
        " in a field",
        " on a meadow",
        " on green grass",
        " in a meadow",
    ),
    "sea": (" on the sea", " at sea", " on the ocean", " on the water"),
    "snow": (" in the snow", " in a snowy field", " on a snowy plain", " in winter", " on snow"),
    "desert": (" in the desert", " in a desert", " on the sand", " in a sandy desert"),
}
GROUND_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "field": ("a green field", "a field", "a meadow", "grassland", "green grass"),
    "sea": ("the sea", "the ocean", "a calm sea", "open water"),
    "snow": ("a snowy landscape", "a winter landscape", "snow", "a snowy plain"),
    "desert": ("the desert", "a desert", "a sandy desert", "a desert landscape"),
}
MOUNTAIN_CLAUSES: Final = (
    " with mountains",
    " with mountains behind",
    " in front of mountains",
    " and mountains",
    " with mountains in the background",
)
TIME_CLAUSES: Final[dict[str, tuple[str, ...]]] = {
    "day": (
        " by day",
        " by day",
        " during the day",
        " on a sunny day",
        " under a blue sky",
        " in daylight",
    ),
    "night": (" at night", " at night", " by night", " under a dark sky", " under a starry sky"),
    "sunset": (" at sunset", " at sunset", " at dusk", " in the evening", " during sunset"),
}
ORB_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "day": ("the sun", "the sun", "a sun", "a yellow sun"),
    "night": ("the moon", "the moon", "a moon", "a full moon"),
    "sunset": ("the setting sun", "the sun", "a low sun"),
}
_STRAY_WORDS: Final = """
    masterpiece best quality 4k 8k hd ultra detailed trending artstation cinematic lighting
    realistic photo studio professional award winning sharp focus octane render unreal engine
    cute modern retro vintage style abstract cartoon anime watercolor sketch poster wallpaper
    icon logo sticker new old fast slow happy sad funny strange weird silly magic dream dog cat
    horse robot car train city street river wizard dragon astronaut queen king ninja pirate
    banana apple coffee music guitar phone computer window door table chair paper glass metal
    stone wood gold silver very really just some my your our this that test hello world image
    number job request user
"""
STRAY_WORDS: Final = tuple(_STRAY_WORDS.split())
_OTHER_WORDS: Final = """
    a an the one and with of in on is it shape thing figure some house boat cloud clouds white
    stars starry sky landscape scene scenery trees two shapes figures red orange yellow green
    blue purple pink brown black white gray cyan triangle star heart square circle diamond sail
    sails sailboat
"""


def with_article(phrase: str) -> str:
    """``phrase`` behind "a" or "an"."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def pick(choices: Sequence[str], rng: random.Random | None) -> str:
    """One of ``choices``; the first, which is the canonical one, without ``rng``."""
    return rng.choice(choices) if rng else choices[0]


def synonym(word: str, rng: random.Random | None) -> str:
    """Another name for ``word``, or the word itself."""
    return pick(SYNONYMS.get(word, (word,)), rng)


def stray_word(rng: random.Random) -> str:
    """A word that says nothing about the picture: a common one, or letters that are no word."""
    if rng.random() < 0.5:
        return rng.choice(STRAY_WORDS)
    letters = "abcdefghijklmnopqrstuvwxyz" + "aeiou" * 3
    if rng.random() < 0.15:
        letters += "0123456789"
    return "".join(rng.choice(letters) for _ in range(rng.randint(2, 9)))


def with_stray_words(text: str, rng: random.Random) -> str:
    """``text`` with one to five stray words, mostly in front of it."""
    words = [stray_word(rng) for _ in range(rng.randint(1, 5))]
    stray = rng.choice([" ", " ", ", "]).join(words)
    joint = rng.choice([" ", " ", ", "])
    return stray + joint + text if rng.random() < 0.75 else text + joint + stray


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can hold, stray letters apart; the tokenizer knows each."""
    texts: list[str] = [*OPENINGS, *ENDINGS, *BACKGROUND_WORDS, *BACKGROUND_FORMS, *STRAY_WORDS]
    for table in (
        SYNONYMS,
        PAIR_FORMS,
        TREE_NAMES,
        GROUND_CLAUSES,
        GROUND_NAMES,
        TIME_CLAUSES,
        ORB_NAMES,
    ):
        texts += [phrase for phrases in table.values() for phrase in phrases]
    texts += [*BOAT_NAMES, *MOUNTAIN_CLAUSES]
    texts.append(_OTHER_WORDS)
    words = (
        " ".join(texts)
        .replace("{", " ")
        .replace("}", " ")
        .replace(",", " ")
        .replace(".", " ")
        .split()
    )
    return tuple(sorted({word for word in words if "_" not in word}))
