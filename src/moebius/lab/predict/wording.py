"""An explanation in words: lines for a terminal, tables for a notebook, cells for a table of many rows."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from moebius.kit.html import html_table
from moebius.lab.predict.explanation import Answer, ExpertView, Explanation, GateView
from moebius.lab.report.numbers import rate, signed
from moebius.lab.report.text_columns import text_columns

# Experts that did not run, of which a block shows a line each.
SHOWN_OTHERS = 6
RAN = "▸"
# Regret that is rounding.
LEAST = 1e-6


def answer_text(answer: Answer, shown: Sequence[str] | None = None) -> str:
    """An answer in a few words, such as "7 .983", "y 0.32 ± 0.1" or "worked yes .81, income 7.2".

    Arguments:
        answer: of a row.
        shown: names of the targets to show; None for all.
    """
    names = [name for name in answer if shown is None or name in shown]
    texts = [_target_text(answer[name]) for name in names]
    if len(answer) == 1:
        return texts[0] if texts else ""
    return ", ".join(f"{name} {text}" for name, text in zip(names, texts, strict=True))


def _target_text(values: Mapping[str, Any]) -> str:
    prediction = values["prediction"]
    if "shares" in values:
        shares = list(values["shares"].items())[:3]
        return ", ".join(f"{name} {share:.0%}" for name, share in shares)
    text = number(prediction) if isinstance(prediction, float) else str(prediction)
    if "scale" in values:
        return f"{text} [{number(values['lower'])}, {number(values['upper'])}]"
    return f"{text} {rate(values['probability'])}" if "probability" in values else text


def number(value: float) -> str:
    """A quantity with four digits.

    Example:
        >>> number(1234.56), number(0.0123456)
        ('1235', '0.01235')
    """
    return f"{value:.4g}"


def loss_text(value: float | None) -> str:
    """A loss with three decimals, or with four digits where it is large.

    Example:
        >>> loss_text(0.0123), loss_text(12.345678), loss_text(None)
        ('.012', '12.35', '')
    """
    if value is None:
        return ""
    return rate(value) if abs(value) < 10 else number(value)


def label_text(label: Mapping[str, Any]) -> str:
    """The label of a row in a few words."""

    def text(value: Any) -> str:
        if value is None:
            return "unknown"
        if isinstance(value, Mapping):
            return ", ".join(f"{name} {share:.0%}" for name, share in list(value.items())[:3])
        return number(value) if isinstance(value, float) else str(value)

    return ", ".join(text(value) if len(label) == 1 else f"{name} {text(value)}" for name, value in label.items())


def expert_text(expert: ExpertView) -> str:
    """The number of an expert, with its name where it has one."""
    return str(expert.expert) if expert.name is None else f"{expert.expert} {expert.name}"


def route_text(explanation: Explanation, most: int = 3) -> str:
    """The experts that ran at the first outermost gate with their weights, such as "3 (.910), 0 (.090)"."""
    route = explanation.route
    texts = [f"{expert.expert} ({expert.weight:.3f})" for expert in route[:most]]
    return ", ".join(texts) + (f", {len(route) - most} more" if len(route) > most else "")


def runner_up_text(explanation: Explanation) -> str:
    """The first runner-up of the first outermost gate with its margin, such as "2 (−.090)"; empty without any."""
    gate = next((gate for gate in explanation.gates if gate.inside is None), None)
    if gate is None or not gate.runners_up:
        return ""
    first = gate.runners_up[0]
    return f"{first.expert} ({signed(-first.margin)})"


def explanation_text(explanation: Explanation, width: int = 80) -> str:
    """The block of lines that `Explanation.text` gives."""
    lines = [explanation.row, *_facts([("says", _says(explanation)), *_label_facts(explanation)], width)]
    for gate in explanation.gates:
        if len(gate.experts) == 1:
            if gate.inside is None:
                lines += _facts([("route", "one expert: there was nothing to choose")], width)
            continue
        if gate.inside is not None and not gate.reached:
            lines += ["", f"  {gate.gate}: not reached"]
            continue
        lines += ["", *_gate_lines(gate, explanation, width)]
    if not explanation.gates:
        lines += _facts([("route", "no mixture: there was nothing to choose")], width)
    for note in explanation.notes:
        lines += _facts([("note", note)], width)
    return "\n".join(lines)


def _says(explanation: Explanation) -> str:
    if explanation.top:
        first, *others = [f"{name} {rate(value)}" for name, value in explanation.top]
        return f"{first}; then {', '.join(others)}" if others else first
    return answer_text(explanation.answer)


def _label_facts(explanation: Explanation) -> list[tuple[str, str]]:
    if explanation.label is None:
        return [("label", "not known, so there is no regret")]
    text = label_text(explanation.label)
    if len(explanation.label) == 1 and isinstance(value := next(iter(explanation.label.values())), float):
        (answer,) = explanation.answer.values()
        text += f": off by {number(abs(answer['prediction'] - value))}"
    elif explanation.score_name == "accuracy" and explanation.score is not None:
        text += ": right" if explanation.score == 1 else ": wrong"
    elif explanation.score is not None:
        text += f": {explanation.score_name.replace('_', ' ')} {rate(explanation.score)}"
    return [("label", f"{text}, {explanation.loss_name.replace('_', ' ')} {loss_text(explanation.loss)}")]


def _gate_lines(gate: GateView, explanation: Explanation, width: int) -> list[str]:
    """A table of the experts, then runner-up and regret."""
    ran = len(gate.route)
    mean = f", means of {gate.positions:,} positions" if gate.positions > 1 else ""
    weighed = "" if gate.task is None else f", for {gate.task}"
    title = f"  {gate.gate}{weighed}: {ran} of {len(gate.experts)} experts ran{mean}"
    others = [expert for expert in gate.experts if not expert.ran]
    listed = [*gate.route[: 2 * SHOWN_OTHERS], *others[:SHOWN_OTHERS]]
    listed += [expert for expert in gate.experts if expert.path == gate.best and expert not in listed]
    headings, rows = _expert_cells(listed, _shown(gate, explanation))
    lines = [title, *text_columns(headings, rows, width, "says", ["expert"])]
    if len(listed) < len(gate.experts):
        lines.append(f"    and {len(gate.experts) - len(listed)} more experts")
    return lines + _facts(_gate_facts(gate, ran), width)


def _shown(gate: GateView, explanation: Explanation) -> list[str] | None:
    """The only target that a gate's experts are weighed for; None for all."""
    return [gate.task] if gate.task is not None and gate.task in explanation.answer else None


def _expert_cells(experts: Sequence[ExpertView], shown: Sequence[str] | None) -> tuple[list[str], list[list[str]]]:
    by_class = any(expert.class_weight is not None for expert in experts)
    same = all(expert.weight == expert.score for expert in experts)
    says, losses = (any(getattr(expert, key) is not None for expert in experts) for key in ("answer", "loss"))
    headings = ["", "expert", "weight"] + ["of class"] * by_class + ["gate"] * (not same)
    headings += ["says"] * says + ["loss"] * losses
    rows = []
    for expert in experts:
        row = [RAN if expert.ran else " ", expert_text(expert), rate(expert.weight) if expert.ran else "–"]
        row += [rate(expert.class_weight)] * by_class + [rate(expert.score)] * (not same)
        row += ["" if expert.answer is None else answer_text(expert.answer, shown)] * says
        rows.append(row + [loss_text(expert.loss)] * losses)
    return headings, rows


def _gate_facts(gate: GateView, ran: int) -> list[tuple[str, str]]:
    facts = []
    if gate.runners_up:
        first = gate.runners_up[0]
        ahead = "the first" if ran == len(gate.experts) else "the last that ran"
        text = f"expert {first.expert}, {gate.scale} {rate(first.score)}, {rate(abs(first.margin))} "
        text += f"below {ahead}" if first.margin >= 0 else f"above {ahead}: the router goes by more than this"
        facts.append(("next", text))
    if gate.regret is not None:
        facts.append(("regret", regret_text(gate)))
    return facts


def regret_text(gate: GateView) -> str:
    """The regret of a gate that has one, and the expert that it is measured against."""
    assert gate.regret is not None
    amount = loss_text(gate.regret)
    if abs(gate.regret) < LEAST:
        return f"0: no expert alone, at equal work or less, is better; {gate.best} is as good"
    if gate.regret > 0:
        return f"{amount}: {gate.best} alone, at equal work or less, has the smaller loss"
    return f"{amount}: no expert alone, at equal work or less, is as good; the nearest is {gate.best}"


def _facts(facts: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Lines of names and texts, which are wrapped under their beginnings."""
    lines = []
    for name, text in facts:
        wrapped = textwrap.wrap(text, max(width - 11, 20)) or [""]
        lines += [f"  {name if place == 0 else '':<8} {part}" for place, part in enumerate(wrapped)]
    return lines


def explanation_html(explanation: Explanation) -> str:
    """Tables for a notebook: what was said, and the experts of each gate."""
    facts = [("says", _says(explanation)), *_label_facts(explanation)]
    parts = [html_table(explanation.row, ["", ""], facts)]
    for gate in explanation.gates:
        if len(gate.experts) > 1 and gate.reached:
            parts.append(html_table(gate.gate, *_expert_cells(gate.experts, _shown(gate, explanation))))
            parts.append(html_table("", ["", ""], _gate_facts(gate, len(gate.route))))
    return "".join(parts)
