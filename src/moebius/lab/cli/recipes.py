"""`moebius recipes`, `list`, `schema` and `show`: the keys of recipes and the values of one."""

from typing import Annotated

import typer
from rich.table import Table

from moebius.lab.cli._app import (
    Overrides,
    Plugins,
    Preset,
    RecipeName,
    app,
    echo,
    end_command,
    print_table,
    run_plugins,
)
from moebius.lab.console import PrintableConsole


@app.command()
@end_command()
def recipes() -> None:
    """List the recipes that come with moebius."""
    from moebius.lab.recipe.shipped import find_recipe, read_recipe, shipped_recipes

    rows = []
    for name in shipped_recipes():
        raw = read_recipe(find_recipe(name), f"{name}.yaml")
        names = (", ".join(raw.get(key, ())) for key in ("variants", "presets"))
        rows.append((name, raw["title"], *names, raw.get("time", "")))
    print_table("moebius run RECIPE", ("recipe", "question", "variants", "presets", "time"), rows)


@app.command(name="list")
@end_command()
def list_kinds(
    room: Annotated[
        str | None, typer.Argument(metavar="ROOM", help="Such as gates, routers, losses; without one, the rooms.")
    ] = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="Print the keywords of each kind, with types and defaults.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """List the rooms, or the kinds that a recipe may name in a room, each with its source."""
    from moebius.kit.registry import catalogue

    run_plugins(plugin)
    if room is None:
        from moebius.lab.checks.keywords import list_rooms

        print_table("moebius list ROOM", ("room", "what it holds", "kinds"), list_rooms())
    elif keys:
        from moebius.lab.checks.keywords import keyword_cells

        rows = [
            (kind if place == 0 else "", *cells)
            for kind, _, _ in catalogue(room)
            for place, cells in enumerate(keyword_cells(room, kind))
        ]
        print_table(f"keywords of the kinds of room {room}", ("kind", "keyword", "type", "default", "meaning"), rows)
    else:
        print_table(f"{{kind: …}} in room {room}", ("kind", "what it does", "source"), catalogue(room))


@app.command()
@end_command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/recipe-keys.md instead.")] = False,
    plugin: Plugins = None,
) -> None:
    """Print the JSON Schema of recipes, for editors: moebius schema > recipe.schema.json.

    A recipe that begins with `# yaml-language-server: $schema=recipe.schema.json` is then completed and checked.
    """
    import json

    run_plugins(plugin)
    if markdown:
        from moebius.lab.recipe.reference import recipe_reference

        echo(recipe_reference(), nl=False)
    else:
        from moebius.lab.recipe.json_schema import recipe_schema

        echo(json.dumps(recipe_schema(), indent=1, ensure_ascii=False))


@app.command()
@end_command()
def show(recipe: RecipeName, overrides: Overrides = None, preset: Preset = None, plugin: Plugins = None) -> None:
    """Print RECIPE with all values filled in, and how large its models are.

    The YAML goes to standard output and is a recipe again: `moebius show RECIPE > mine.yaml`. The table goes to
    standard error.
    """
    from moebius.lab.recipe.load import load_recipe
    from moebius.lab.recipe.sizes import sizes
    from moebius.lab.yaml_text import write_yaml

    run_plugins(plugin)
    loaded = load_recipe(recipe, overrides or (), preset)
    echo(write_yaml(loaded.resolved()))
    table = Table("variant", title=f"{loaded.name}, with 10 classes assumed for each data set", title_justify="left")
    table.add_column("parameters", justify="right")
    table.add_column("multiply-adds per image, mean of random ones", justify="right")
    for size in sizes(loaded):
        table.add_row(size.variant, f"{size.parameters:,}", f"{size.multiply_adds:,}")
    PrintableConsole(stderr=True).print(table)
