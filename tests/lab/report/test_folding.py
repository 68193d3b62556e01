"""Parts about many variants behind a line to open."""

from moebius.lab.report.blocks import Details, Heading, Section, Text
from moebius.lab.report.folding import fold_section


def make_section(names, end=()):
    blocks = [block for name in names for block in (Heading(f"{name}, gate"), Text(f"about {name}"))]
    return Section("parts", "Parts", [Text("before"), *blocks, *end])


def test_the_first_variant_is_seen_and_the_others_are_behind_a_line():
    names = [f"v{place}" for place in range(6)]
    end = [Heading("Over seeds"), Text("all of them")]
    folded = fold_section(make_section(names, end), ["v3", *names[:3], *names[4:]]).blocks
    assert folded[:3] == [Text("before"), Heading("v3, gate"), Text("about v3")]
    (line,) = [block for block in folded if isinstance(block, Details)]
    assert line.summary == "5 more: v0, v1, v2, v4 and v5"
    assert [block.text for block in line.blocks if isinstance(block, Text)] == [
        f"about {name}" for name in names if name != "v3"
    ]
    assert folded[-2:] == end


def test_few_parts_stay():
    section = make_section(["a", "b", "c"])
    assert fold_section(section, ["a", "b", "c"]) == section
