"""Closed sets: capitals, colours, sounds, opposites and what comes next in the calendar."""

from __future__ import annotations

import random

from lhrm_train.suite.base import Draw, Kind

CAPITALS = dict(
    pair.split(":")
    for pair in (
        "France:Paris Italy:Rome Spain:Madrid Germany:Berlin England:London Japan:Tokyo China:Beijing Egypt:Cairo "
        "Peru:Lima Cuba:Havana Norway:Oslo Greece:Athens Kenya:Nairobi Chile:Santiago Poland:Warsaw Austria:Vienna "
        "Ireland:Dublin Sweden:Stockholm Russia:Moscow Turkey:Ankara Iran:Tehran Portugal:Lisbon Canada:Ottawa "
        "Australia:Canberra Belgium:Brussels Denmark:Copenhagen Finland:Helsinki Hungary:Budapest Ukraine:Kyiv "
        "Thailand:Bangkok Iraq:Baghdad Switzerland:Bern"
    ).split()
)
COLOURS = dict(
    pair.split(":")
    for pair in "grass:green snow:white coal:black blood:red gold:yellow ash:gray mud:brown milk:white".split()
)
SOUNDS = dict(pair.split(":") for pair in "dog:bark cat:meow cow:moo lion:roar duck:quack bee:buzz frog:croak".split())
OPPOSITES = dict(
    pair.split(":") for pair in "hot:cold big:small up:down fast:slow old:new open:closed wet:dry full:empty".split()
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

CAPITAL_PHRASES = (
    "What is the capital of {}?",
    "What's the capital of {}?",
    "Name the capital of {}.",
    "Which city is the capital of {}?",
    "capital of {}?",
)


def facts() -> list[Draw]:
    """List every fact in every phrasing."""
    out = []
    for country, city in CAPITALS.items():
        trace = f"The capital of {country} is asked. I recall that the capital of {country} is {city}."
        out += [Draw(f"capital {country}", phrase.format(country), city, trace) for phrase in CAPITAL_PHRASES]
    for thing, colour in COLOURS.items():
        trace = f"The color of {thing} is asked. I recall that the color of {thing} is {colour}."
        for phrase in ("What is the color of {}?", "What color is {}?"):
            out.append(Draw(f"colour {thing}", phrase.format(thing), colour, trace))
    for animal, sound in SOUNDS.items():
        trace = f"The sound of a {animal} is asked. I recall that the sound of a {animal} is {sound}."
        for phrase in ("What is the sound of a {}?", "What sound does a {} make?"):
            out.append(Draw(f"sound {animal}", phrase.format(animal), sound, trace))
    for word, opposite in OPPOSITES.items():
        trace = f"The opposite of {word} is asked. I recall that the opposite of {word} is {opposite}."
        for phrase in ("What is the opposite of {}?", "Give the opposite of {}."):
            out.append(Draw(f"opposite {word}", phrase.format(word), opposite, trace))
    for day, following in zip(DAYS, DAYS[1:] + DAYS[:1], strict=True):
        trace = f"The day after {day} is asked. I recall that the day after {day} is {following}."
        for phrase in ("What day comes after {}?", "Which day follows {}?"):
            out.append(Draw(f"day {day}", phrase.format(day), following, trace))
    return out


_FACTS = tuple(facts())


def _draw(rng: random.Random, level: int) -> Draw:
    return rng.choice(_FACTS)


KIND = Kind("facts", _draw, levels=(1,), closed_levels=(1,))
