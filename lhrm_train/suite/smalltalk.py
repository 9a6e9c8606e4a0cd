"""A closed set of greetings and questions about the model, so that a first hello gets a sensible reply."""

from __future__ import annotations

import random

from lhrm_train.suite.base import Draw, Kind

HELLO = "Hello! Ask me a short question."
WHO = "I am lhrm-nano, a tiny model that decides when to think."
CAN = "I answer small questions: facts, letters, sums and short puzzles."
THANKS = "You are welcome!"
BYE = "Goodbye!"
FINE = "I am fine, thank you. Ask me a short question."

REPLIES = {
    HELLO: ("hi", "hello", "hey", "good morning", "hello there", "hi there"),
    WHO: ("who are you?", "what are you?", "what is your name?", "are you a robot?"),
    CAN: ("what can you do?", "help", "how can you help me?", "what can I ask you?"),
    THANKS: ("thanks", "thank you", "thanks a lot"),
    BYE: ("bye", "goodbye", "see you"),
    FINE: ("how are you?", "how is it going?"),
}
TRACES = {
    HELLO: "This is a greeting. I greet back and offer to answer a short question.",
    WHO: "This asks who I am. I say that I am lhrm-nano and what I decide.",
    CAN: "This asks what I can do. I list the kinds of questions that I know.",
    THANKS: "This is thanks. I answer politely that it is welcome.",
    BYE: "This is a farewell. I say goodbye politely and nothing more.",
    FINE: "This asks how I am. I say that I am fine and offer to answer.",
}


def smalltalk() -> list[Draw]:
    """List every prompt: as written, capitalised, and with an exclamation mark where it is no question."""
    out = []
    for reply, prompts in REPLIES.items():
        for prompt in prompts:
            capital = prompt[0].upper() + prompt[1:]
            variants = [prompt, capital] + ([] if prompt.endswith("?") else [capital + "!"])
            out += [Draw(f"smalltalk {prompt}", text, reply, TRACES[reply]) for text in variants]
    return out


_SMALLTALK = tuple(smalltalk())


def _draw(rng: random.Random, level: int) -> Draw:
    return rng.choice(_SMALLTALK)


KIND = Kind("smalltalk", _draw, levels=(1,), closed_levels=(1,))
