"""Values in the place of others, in nested values, in texts and in bytes."""

import random
from typing import Any

# Of JSON and YAML.
VALUES = [
    None,
    True,
    -1,
    0,
    7,
    10**12,
    10**400,
    0.5,
    1e308,
    "",
    "text",
    "../../x",
    "a\x00b",
    "\ud800",
    [],
    [[]],
    [1, "a"],
    {},
    {"a": 1},
    {"kind": "linear"},
]


def swap_value(value: Any, draw: random.Random) -> str:
    """Put another value at a random place of nested values, or take the place away."""
    places = []

    def collect_places(container: Any) -> None:
        for key in container if isinstance(container, dict) else range(len(container)):
            places.append((container, key))
            if isinstance(container[key], dict | list):
                collect_places(container[key])

    collect_places(value)
    container, key = draw.choice(places)
    if draw.random() < 0.2:
        del container[key]
        return f"without {key}"
    container[key] = draw.choice(VALUES)
    return f"{key}={container[key]!r}"[:80]


def swap_bytes(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """Change bytes at a few places: flipped, overwritten, left out, repeated, or cut off."""
    changes = []
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(max(len(content), 1))
        # Sizes and offsets are at the beginning and at the end of many files.
        place = draw.choice([place, min(place, 64), max(0, len(content) - 1 - place % 64)])
        length = draw.choice([1, 1, 2, 4, 30])
        piece = content[place : place + length]
        kind = draw.choice(["flip", "random", "ones", "zeros", "without", "twice", "cut"])
        new = {
            "flip": bytes([piece[0] ^ 1 << draw.randrange(8)]) + piece[1:] if piece else b"",
            "random": draw.randbytes(length),
            "ones": b"\xff" * length,
            "zeros": b"\0" * length,
            "without": b"",
            "twice": piece * 2,
        }
        content = content[:place] + (b"" if kind == "cut" else new[kind] + content[place + length :])
        changes.append(f"{kind} at {place}")
    return content, ", ".join(changes)


def swap_text(text: str, draw: random.Random, values: list[str], signs: str) -> str:
    """The text with a few places changed: a value in place of a word, a piece left out or repeated, another sign."""
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(max(len(text), 1))
        end = min(len(text), place + draw.randint(1, 30))
        piece = text[place:end]
        new = draw.choice([draw.choice(values), "", piece * draw.randint(2, 5), draw.choice(signs)])
        text = text[:place] + new + text[end:]
    return text
