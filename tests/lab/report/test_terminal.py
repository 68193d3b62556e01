import io

from rich.console import Console

from moebius.lab.report import build_results_table
from moebius.lab.report.terminal import describe_family, describe_stages
from moebius.lab.statistics.family import compare_with_baseline


def printed(runs) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(build_results_table(runs, title="linear-experts"))
    return console.export_text()


def run(variant, seed, test, **more):
    return {"variant": variant, "seed": seed, "accuracy": {"train": 0.7, "test": test}, **more}


def test_means_and_intervals_in_the_order_of_the_runs():
    runs = [run("single", seed, 0.60 + 0.01 * seed, parameters=20500, seconds=61.0) for seed in range(3)]
    text = printed([*runs, *(run("linear", seed, 0.63) for seed in range(3))])
    single, linear = [line for line in text.splitlines() if "single" in line or "linear " in line]
    # 0.61 ± t(.975, 2) · 0.01 / √3 = 0.61 ± 0.0248
    assert single.replace("│", " ").split() == [
        "single", ".610", "[.585,", ".635]", ".700", "3", "20,500", "1", "min", "1", "s",
    ]  # fmt: skip
    assert "[.630, .630]" in linear


def test_one_seed_has_no_column_of_intervals():
    assert "interval" not in printed([run("single", 0, 0.6), run("linear", 0, 0.7)])


def test_a_name_like_markup_and_missing_keys_are_printed_as_they_are():
    text = printed([{"variant": "[bold]x[/]", "seed": 0}])
    assert "[bold]x[/]" in text
    assert "–" in text


def test_stages_take_one_line():
    stages = [
        {"stage": name, "seed": seed, "accuracy": {"test": 0.9 + 0.01 * place}}
        for seed in (0, 1)
        for place, name in enumerate("abc")
    ]
    assert describe_stages(stages) == "stages: 3 finished with 2 seeds, own-test accuracy .900 – .920"
    assert describe_stages([{"stage": "a", "seed": 0}]) == "stages: 1 finished"


def test_only_what_held_out_rows_choose_is_bold():
    runs = [run("single", 0, 0.6), run("linear", 0, 0.7)]
    cells = list(build_results_table(runs).columns[1].cells)
    assert cells == [".600", ".700"]
    cells = list(build_results_table(runs, chosen="single").columns[1].cells)
    assert cells == ["[bold].600[/]", ".700"]


def test_the_comparisons_take_a_line_for_each_verdict():
    scores = {"a": [0.60, 0.62, 0.61], "b": [0.70, 0.71, 0.72], "c": [0.601, 0.619, 0.61], "d": [0.50, 0.51, 0.52]}
    family = compare_with_baseline({name: dict(enumerate(values)) for name, values in scores.items()}, "a", 0.005, "b")
    assert describe_family(family) == [
        "Better than a: b +.100 [+.075, +.125], p .010 (p after Holm for 3 comparisons).",
        "Worse than a: d −.100 [−.125, −.075], p .010.",
        "Level with a within .005: c 0 [−.002, +.002], p .020.",
        "Chosen on held-out rows: b.",
    ]
    assert describe_family(None) == []
