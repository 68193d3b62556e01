"""The line of facts below the title."""

from moebius.lab.report.numbers import count
from moebius.lab.report.source import Study

# With more names of data sets the line has their number.
NAMED = 3


def data_words(study: Study) -> str:
    """The data in words: names, rows of each split, classes; an empty text where study.json has nothing of them."""
    data = study.about.get("data") or {}
    splits = (("train_rows", "training"), ("validation_rows", "held-out"), ("test_rows", "test"))
    sizes = [f"{count(data[key])} {word}" for key, word in splits if data.get(key)]
    names = [str(name) for name in data.get("domains") or ()]
    sets = " + ".join(names) if len(names) <= NAMED else f"{len(names)} data sets"
    noun = "rows" if "cardinalities" in (data.get("facts") or {}) else "images"
    rows = f"{', '.join(sizes)} {noun}" if sizes else ""
    classes = f"{len(study.classes)} classes" if study.classes else ""
    return "; ".join(part for part in (sets, rows, classes) if part)


def headline(study: Study) -> str:
    """Variants, seeds and data, in a line.

    Example: `8 variants · 3 seeds each · cifar10; 20,000 training, 10,000 test images; 10 classes`.
    """
    seeds = len(study.seeds)
    parts = [f"{len(study.variants)} variants" if len(study.variants) > 1 else "1 model"]
    parts.append((f"{seeds} seeds" + " each" * (len(study.variants) > 1)) if seeds > 1 else "1 seed")
    parts += [f"{len(study.points)} points of a sweep"] if study.points else []
    return " · ".join(part for part in (*parts, data_words(study)) if part)
