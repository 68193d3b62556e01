"""What differs between the variants: the keys of the recipe whose values are not the same."""

from collections.abc import Mapping, Sequence

from moebius.lab.report.blocks import Section, Table, Text
from moebius.lab.report.queries import ranking
from moebius.lab.report.settings import ABSENT, differing_settings
from moebius.lab.report.source import Study

ORDER = 20
SAME = "same"
# A value with more characters is written once; further lines refer to the first that has it.
REPEATED = 24


def section(study: Study) -> Section | None:
    """A line for each variant with its values of these keys, the baseline first; None without a difference."""
    columns = differing_settings(study)
    if not columns:
        return None
    ranked = [name for name, _ in ranking(study)]
    baseline = study.baseline
    names = list(dict.fromkeys([baseline, *ranked, *study.variants]))
    rows = [[baseline, *(values[baseline] for values in columns.values())]]
    rows += [[name, *(_cell(values, names, name) for values in columns.values())] for name in names[1:]]
    caption = f"The keys of the recipe whose values differ: first {baseline}, the baseline, then the best on test first"
    text = (
        f"“{SAME}” is as in {baseline}, “as X” as in the variant X above; {ABSENT} where a variant does not have the "
    )
    text += "key. All other keys are equal."
    table = Table(caption, ["variant", *columns], rows, marked=[0], wraps=True)
    return Section("settings", "What differs between the variants", [table, Text(text)])


def _cell(values: Mapping[str, str], names: Sequence[str], name: str) -> str:
    """The value of a variant; or that it is the baseline's, the first of `names`, or an earlier variant's.

    Example:
        >>> long = "mlp (hidden [64, 64, 64])"
        >>> [_cell({"a": "linear", "b": long, "c": long}, "abc", name) for name in "bc"]
        ['mlp (hidden [64, 64, 64])', 'as b']
    """
    first = next(each for each in names if values[each] == values[name])
    if first == names[0]:
        return SAME
    return f"as {first}" if first != name and len(values[name]) > REPEATED else values[name]
