"""What differs between the variants: the keys of the recipe whose values are not the same."""

from moebius.lab.report.blocks import Section, Table, Text
from moebius.lab.report.queries import ranking
from moebius.lab.report.settings import ABSENT, differing_settings
from moebius.lab.report.source import Study

ORDER = 20
SAME = "same"


def section(study: Study) -> Section | None:
    """A line for each variant with its values of these keys, the baseline first; None without a difference."""
    columns = differing_settings(study)
    if not columns:
        return None
    ranked = [name for name, _ in ranking(study)]
    baseline = study.baseline
    names = list(dict.fromkeys([baseline, *ranked, *study.variants]))
    rows = [[baseline, *(values[baseline] for values in columns.values())]]
    for name in names[1:]:
        cells = (SAME if values[name] == values[baseline] else values[name] for values in columns.values())
        rows.append([name, *cells])
    caption = f"The keys of the recipe whose values differ: first {baseline}, the baseline, then the best on test first"
    text = f"“{SAME}” is as in {baseline}; {ABSENT} where a variant does not have the key. All other keys are equal."
    table = Table(caption, ["variant", *columns], rows, marked=[0], wraps=True)
    return Section("settings", "What differs between the variants", [table, Text(text)])
