"""The page and its parts as HTML, by the templates of this room."""

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from moebius.lab.explorer.cells import row_cells
from moebius.lab.explorer.expert_summary import expert_colours, summarise_experts
from moebius.lab.explorer.group_map import group_cells
from moebius.lab.explorer.pixel_maps import pixel_maps
from moebius.lab.explorer.projection import project_rows
from moebius.lab.explorer.row_query import ORDERS, PAGE, RowQuery
from moebius.lab.explorer.row_source import RowSource
from moebius.lab.explorer.row_table import RowTable
from moebius.lab.explorer.row_view import view_row
from moebius.lab.predict.explained_rows import ExplainedRows
from moebius.lab.predict.wording import loss_text, number
from moebius.lab.report.numbers import count, rate
from moebius.lab.report.templating import make_environment

# Cells of a row of numbers that its card shows.
CARD_CELLS = 4


class PageWriter:
    """Writes the parts of the page.

    Arguments:
        source: the rows.
        table: the figures of those that are shown.
        title: of the page.
        is_offline: whether the page has no server: its rows are all on it, and scripts filter them.
        every: figures of more rows, of which facts and heat maps are; None for the same.
    """

    def __init__(
        self, source: RowSource, table: RowTable, title: str, is_offline: bool = False, every: RowTable | None = None
    ):
        self.source, self.table, self.every = source, table, every or table
        environment = make_environment("moebius.lab.explorer")
        environment.filters |= {"rate": _rate, "share": _share, "loss": _loss, "finite": _finite}
        environment.filters |= {"count": count, "number": number}
        self.colours = {name: expert_colours(columns) for name, columns in self.every.gates.items()}
        graded = table.frame["right"].notna()
        environment.globals |= {
            "title": title,
            "source": source,
            "groups": table.groups,
            "gates": table.gates,
            "colours": self.colours,
            "offline": is_offline,
            "has": {name: bool(table.frame[name].notna().any()) for name in ("right", "confidence", "error", "regret")},
            "facts": self._facts(),
            "orders": [name for name, (column, _) in ORDERS.items() if table.frame[column].notna().any()],
            "expert_name": self._expert_name,
            "is_graded": bool(graded.any()),
        }
        self.environment = environment

    def page(self, query: RowQuery, panel: str) -> str:
        """The whole page.

        Arguments:
            query: of the rows.
            panel: of the row that is open; empty for none.
        """
        gate = query.gate_of(self.table)
        parts = {"rows": self.rows(query), "views": self.views(gate), "panel": panel}
        return self._render("index.html", query=query, gate=gate, store=(), **parts)

    def offline_page(self, query: RowQuery, panels: Sequence[tuple[str, str]]) -> str:
        """The whole page with the panels of all rows, and the views of all gates.

        Arguments:
            query: of the rows.
            panels: name and HTML of each.
        """
        gate = query.gate_of(self.table)
        places = query.places(self.table)
        store = [*panels]
        for place, name in enumerate(self.table.gates if len(self.table.gates) > 1 else ()):
            store.append((f"views-{place}", self.views(name)))
            store.append((f"experts-{place}", self._render("experts.html", gate=name, query=query)))
        parts = {"rows": self._list(query, places, 0, len(places)), "views": self.views(gate), "panel": ""}
        return self._render("index.html", query=query, gate=gate, store=store, **parts)

    def rows(self, query: RowQuery) -> str:
        """The page of rows that a query asks for."""
        places = query.places(self.table)
        last = max((len(places) - 1) // PAGE, 0)
        page = min(query.page, last)
        return self._list(query, places, page, PAGE)

    def _list(self, query: RowQuery, places: Int[np.ndarray, " rows"], page: int, size: int) -> str:
        shown = places[page * size : (page + 1) * size]
        gate = query.gate_of(self.table)
        last = max((len(places) - 1) // max(size, 1), 0)
        cards = [self._card(int(place), gate) for place in shown]
        frame = {"query": query, "page": page, "last": last, "matches": len(places), "cards": cards}
        return self._render("rows.html", total=len(self.table), size=size, **frame)

    def views(self, gate: str) -> str:
        """Experts, heat map and map of a gate; nothing for a model without gates."""
        if not gate:
            return self._render("views.html", gate="", experts=(), lines=(), points=(), titles=("", ""))
        columns = self.table.gates[gate]
        map_of_rows = project_rows(columns, self.table.frame["loss"].to_numpy(dtype=float))
        return self._render(
            "views.html",
            gate=gate,
            experts=summarise_experts(self.every, gate, dict(self.source.subject.expert_names)),
            lines=group_cells(self.every, gate),
            points=list(self._points(gate, map_of_rows.points.tolist(), map_of_rows.places.tolist())),
            titles=map_of_rows.titles,
        )

    def error(self, message: str, fix: str | None = None) -> str:
        """A complaint in the place of a row."""
        return self._render("error.html", message=message, fix=fix)

    def _points(self, gate: str, points: Sequence[Sequence[float]], places: Sequence[int]) -> Any:
        top, colours = self.table.gates[gate].top, self.colours[gate]
        lines = self.table.frame[["row", "prediction", "label"]].to_numpy().tolist()
        for (x, y), place in zip(points, places, strict=True):
            row, prediction, label = lines[place]
            text = f"{self.source.name}:{row}, says {prediction}" + (f", truth {label}" if label else "")
            yield round(12 + 576 * x, 1), round(388 - 376 * y, 1), row, colours[top[place]], text, int(top[place])

    def row(
        self, rows: ExplainedRows, place: int = 0, position: int | None = None, picture: bytes | None = None
    ) -> str:
        """The panel of a row.

        Arguments:
            rows: what the model makes of it and others; the passes keep the outputs.
            place: of the row among them.
            position: of the row in the split; None for one that is not in it.
            picture: of such a row, as a file.
        """
        view, cells = view_row(rows, place), {}
        if position is not None and not self.source.are_pictures:
            cells = row_cells(self.source, position)
        return self._render(
            "row.html",
            view=view,
            position=position,
            picture=None if picture is None else data_address(picture),
            cells=cells,
            maps=[(title, data_address(image)) for title, image in pixel_maps(rows, place)],
            panel_colours={panel.view.gate: self._panel_colours(panel.view.gate, panel) for panel in view.gates},
        )

    def _panel_colours(self, gate: str, panel: Any) -> list[int]:
        return self.colours.get(gate) or [min(expert, 11) for expert in range(len(panel.experts))]

    def _card(self, place: int, gate: str) -> dict[str, Any]:
        line = self.table.frame.iloc[place].to_dict()
        tops = [int(columns.top[place]) for columns in self.table.gates.values()]
        expert = int(self.table.gates[gate].top[place]) if gate else -1
        cells: dict[str, str] = {}
        if not self.source.are_pictures:
            cells = dict(list(row_cells(self.source, int(line["row"])).items())[:CARD_CELLS])
        group = int(self.table.groups.numbers[place])
        return {
            **line,
            "row": int(line["row"]),
            "right": None if math.isnan(line["right"]) else bool(line["right"]),
            "expert": expert,
            "colour": self.colours[gate][expert] if gate and expert >= 0 else 11,
            "tops": tops,
            "group": group,
            "cells": cells,
        }

    def _expert_name(self, gate: str, expert: int) -> str:
        name = self.source.subject.expert_names.get(self.table.gates[gate].place.experts[expert])
        return f"{expert} {name}" if name else str(expert)

    def _facts(self) -> list[tuple[str, str]]:
        frame = self.every.frame
        shown, every = len(frame), len(self.source)
        of = f" of {count(every)}" if shown < every else ""
        facts = [("rows", f"{count(shown)}{of} {self.source.name}")]
        if len(self.table) < shown:
            facts.append(("on this page", count(len(self.table))))
        score = self.source.subject.task.score_name.replace("_", " ")
        for name, column in (("right", "right"), (score, "score"), ("mean error", "error"), ("mean loss", "loss")):
            if frame[column].notna().any():
                facts.append((name, rate(float(frame[column].mean()))))
        if frame["regret"].notna().any():
            facts.append(("mean regret", loss_text(float(frame["regret"].mean()))))
        return facts

    def _render(self, template: str, **values: Any) -> str:
        return self.environment.get_template(template).render(**values)


def data_address(png: bytes) -> str:
    """A PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _rate(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else rate(value)


def _share(value: float | None) -> str:
    """A share of 1 with three decimals; what rounds to nothing is 0."""
    if value is None or math.isnan(value):
        return ""
    return "0" if abs(value) < 0.0005 else rate(value)


def _loss(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else loss_text(value)


def _finite(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
