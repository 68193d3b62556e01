"""Says where the runs of a study were trained with unlike versions."""

from collections.abc import Mapping, Sequence
from typing import Any

# Other versions of these give other bits.
SETTLING = ("moebius", "torch")


def describe_mixing(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """What a terminal says where runs, or parts of one, were trained with unlike versions; None where all are alike.

    Arguments:
        entries: of finished runs and stages.

    Example:
        >>> old, new = {"torch": "2.12.0", "moebius": "0.2.0"}, {"torch": "2.13.0", "moebius": "0.2.0"}
        >>> describe_mixing([{"versions": [old]}, {"versions": [old, new]}])
        'Mixed versions: torch 2.12.0 (1 run), 2.12.0 then 2.13.0 (1 run). Their bits need not agree.'
    """
    texts = []
    for key in SETTLING:
        counts: dict[str, int] = {}
        for entry in entries:
            names = [str(versions.get(key)) for versions in entry.get("versions") or ()]
            text = " then ".join(dict.fromkeys(names))
            counts[text] = counts.get(text, 0) + bool(text)
        counts.pop("", None)
        if len(counts) > 1 or any(" then " in text for text in counts):
            texts.append(
                f"{key} " + ", ".join(f"{text} ({count} run{'s' * (count > 1)})" for text, count in counts.items())
            )
    return f"Mixed versions: {'; '.join(texts)}. Their bits need not agree." if texts else None
