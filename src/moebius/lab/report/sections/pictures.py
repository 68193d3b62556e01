"""The rows that show what each expert does: its surest and its least sure ones, and its mistakes."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from moebius.lab.report.blocks import Block, Details, Heading, Picture, Pictures, Section, Table, Text
from moebius.lab.report.example_files import ExampleRows, read_examples
from moebius.lab.report.expert_names import expert_label, expert_names, title_of
from moebius.lab.report.gate_rows import SplitRows
from moebius.lab.report.numbers import count, listing, rate
from moebius.lab.report.picked_rows import win_experts
from moebius.lab.report.read_rows import read_rows
from moebius.lab.report.shown_variants import others_text, shown_variants
from moebius.lab.report.source import Study

ORDER = 53
# Characters of all pictures of the page together, of which a variant has its share.
MOST_CHARACTERS = 1_800_000
LEADS = {
    "most": "Surest, the largest weights first",
    "least": "Least sure, the smallest weights first",
    "wrong": "Predicted wrong, the largest losses first",
}
LEVEL = "All its weights are equal"


@dataclass(frozen=True, eq=False)
class _Shown:
    """What is shown of a run.

    Arguments:
        study, variant, gate: whose.
        rows: its test rows.
        examples: the rows to show.
    """

    study: Study
    variant: str
    gate: str
    rows: SplitRows
    examples: ExampleRows

    @property
    def weights(self) -> Float[np.ndarray, "T E"]:
        """Of the gate."""
        return self.rows.gates[self.gate]


def section(study: Study) -> Section | None:
    """Pictures, or the cells of tables, for the first seed of the variants that matter most."""
    runs: dict[str, _Shown] = {}
    for variant in study.variants:
        shown = _read(study, variant)
        if shown is not None:
            runs[variant] = shown
    if not runs:
        return None
    names = shown_variants(study, runs)
    is_pictures = any(runs[name].examples.images is not None for name in names)
    noun = "images" if is_pictures else "rows"
    lead = (
        f"Test {noun} of each expert of the first gate, of those for which it has the largest weight. Below each are "
        "what it is, what the whole model predicts where that is wrong, and the expert's weight."
        if is_pictures
        else f"Test {noun} of each expert of the first gate, of those for which it has the largest weight."
    )
    rest = others_text(runs, names, "each run's examples.safetensors")
    blocks: list[Block] = [Text(f"{lead}{rest}")]
    for place, name in enumerate(names):
        inside = _blocks(runs[name], MOST_CHARACTERS // len(names))
        title = title_of(study, name, runs[name].gate)
        blocks += [Heading(title), *inside] if place == 0 else [Details(title, inside)]
    return Section("pictures", f"The {noun} of each expert", blocks)


def _read(study: Study, variant: str) -> _Shown | None:
    gate = study.first_gate(variant)
    if gate is None:
        return None
    for run in study.runs:
        folder = study.run_folder(run)
        if run["variant"] != variant or not (folder / "routing.parquet").is_file():
            continue
        examples = read_examples(folder)
        if examples is not None:
            splits = read_rows(folder / "routing.parquet", study.classes, study.domains)
            rows = next((split for split in splits if split.split == "test"), None)
            if rows is not None and gate in rows.gates and examples.rows.max(initial=0) < len(rows.domains):
                return _Shown(study, variant, gate, rows, examples)
    return None


def _blocks(shown: _Shown, most: int) -> list[Block]:
    study, examples = shown.study, shown.examples
    names = expert_names(study, shown.variant, shown.gate)
    winner_T = win_experts(np.nan_to_num(shown.weights))
    experts = sorted(set(examples.experts.tolist()))
    blocks: list[Block] = []
    rest = [expert for expert in range(shown.weights.shape[1]) if expert not in experts]
    if rest:
        count_of_rest = sum(int((winner_T == expert).sum()) for expert in rest)
        which = listing([expert_label(names, expert) for expert in rest]) if len(rest) <= 3 else f"{len(rest)} experts"
        blocks.append(Text(f"Left out: {which}, with {count(count_of_rest)} of {count(len(winner_T))} rows."))
    for expert in experts:
        won = winner_T == expert
        kinds = {kind: places for kind in LEADS if (places := examples.places(expert, kind))}
        label = expert_label(names, expert)
        caption = f"{label[:1].upper()}{label[1:]} takes {count(int(won.sum()))} of {count(len(won))} rows"
        caption += f"; the model's {study.measure} on them is {rate(float(shown.rows.scores[won].mean()))}"
        leads = {**LEADS, **({} if "least" in kinds else {"most": LEVEL})}
        if examples.images is not None:
            groups = {leads[kind]: [_picture(shown, place) for place in places] for kind, places in kinds.items()}
            blocks.append(Pictures(f"{caption}.", tuple(groups.items())))
            most -= sum(len(picture.url) for pictures in groups.values() for picture in pictures)
            if most < 0:
                blocks.append(Text("The pictures of the further experts are in examples.safetensors of the run."))
                break
        else:
            blocks.append(_table(shown, f"{caption}.", kinds, leads))
    return blocks


def _picture(shown: _Shown, place: int) -> Picture:
    assert shown.examples.images is not None
    row = int(shown.examples.rows[place])
    weight = float(shown.weights[row, shown.examples.experts[place]])
    label, answer = _what(shown, row), _predicted(shown, row)
    is_wrong = bool(answer and shown.rows.scores[row] < 0.5)
    alt = f"{label}{f', predicted {answer}' * is_wrong}, weight {_short(weight)}"
    # The picture tells the data set, so that the short texts need not.
    domain = f"{shown.rows.domain_names[int(shown.rows.domains[row])]} "
    lines = [label.removeprefix(domain), *([f"→ {answer.removeprefix(domain)}"] if is_wrong else []), _short(weight)]
    return Picture(_data_url(shown.examples.images[place]), alt, tuple(lines), is_wrong)


def _what(shown: _Shown, row: int) -> str:
    """The data set and the class of a row; of other tasks the number to predict."""
    rows = shown.rows
    domain = rows.domain_names[int(rows.domains[row])] if len(rows.domain_names) > 1 else ""
    label = _label(rows.class_names, rows.labels, row)
    if not label:
        return domain or f"row {row}"
    return label if not domain or label.startswith(domain) else f"{domain} {label}"


def _predicted(shown: _Shown, row: int) -> str:
    return _label(shown.rows.class_names, shown.rows.predictions, row)


def _label(names: Sequence[str], values: Int[np.ndarray, " T"] | Float[np.ndarray, " T"], row: int) -> str:
    """A class or a number; an empty text where the row has none."""
    value = values[row]
    if names:
        return names[int(value)] if 0 <= int(value) < len(names) else ""
    return f"{value:.4g}" if np.isfinite(value) else ""


def _short(weight: float) -> str:
    """A weight with two digits, rounded down to .99 where it is not 1.

    Example:
        >>> _short(1.0), _short(0.9999), _short(0.456), _short(0.001)
        ('1', '.99', '.46', '<.01')
    """
    if abs(weight) < 0.01:
        return "0" if weight == 0 else "<.01"
    if weight < 1 <= round(weight, 2):
        return ".99"
    text = f"{weight:.2f}"
    return "1" if text == "1.00" else text.replace("0.", ".", 1)


def _table(shown: _Shown, caption: str, kinds: Mapping[str, Sequence[int]], leads: Mapping[str, str]) -> Table:
    lines, examples = [], shown.examples
    for kind, places in kinds.items():
        for place in places:
            row = int(examples.rows[place])
            weight = _short(float(shown.weights[row, examples.experts[place]]))
            lead = [leads[kind].partition(",")[0].lower(), weight, _what(shown, row), _predicted(shown, row)]
            lines.append([*lead, *examples.cells[place]])
    return Table(caption, ["", "weight", "is", "predicted", *examples.columns], lines)


def _data_url(pixels: UInt8[np.ndarray, "channels height width"]) -> str:
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
