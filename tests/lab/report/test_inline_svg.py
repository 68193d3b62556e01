"""Drawings inside of a page look like their files."""

import io
import re

import altair as alt
import numpy as np
from PIL import Image
from vl_convert import svg_to_png

from moebius.lab.report.figures import FONT, Figure, render
from moebius.lab.report.frames import make_frame
from moebius.lab.report.inline_svg import inline_svg

ROWS = [(x, y, x * y / 7) for x in range(6) for y in range(6)]


def test_a_short_drawing_has_the_pixels_of_the_file():
    frame = make_frame(ROWS, ["x", "y", "value"])
    chart = alt.Chart(frame, title="0.12345 is text").mark_rect().encode(x="x:O", y="y:O", color="value:Q")
    svg, png = render(Figure("f", chart, "caption", 'a "b" \\1 <c>'))
    element, width = inline_svg(svg, Figure("f", chart, "caption", 'a "b" \\1 <c>'))
    assert width == round(float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1]))
    assert 'role="img" aria-label="a &quot;b&quot; \\1 &lt;c&gt;"' in element
    assert "0.12345 is text" in element
    assert len(element) < 0.8 * len(svg)
    # The page gives the namespace, the font and a white ground.
    alone = str(element).replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" font-family="{FONT}"', 1)
    drawn = [
        np.asarray(Image.open(io.BytesIO(each)).convert("RGBA"), dtype=float)
        for each in (png, svg_to_png(alone, scale=2.5))
    ]
    assert drawn[0].shape == drawn[1].shape
    shown = [each[..., :3] * each[..., 3:] / 255 + 255 - each[..., 3:] for each in drawn]
    assert np.abs(shown[0] - shown[1]).mean() < 0.5
