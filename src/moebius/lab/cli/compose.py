"""`moebius compose`: the mixture of trained models that is worth it."""

from pathlib import Path
from typing import Annotated

import typer

from moebius.kit.errors import ArgumentError
from moebius.lab.cli._app import Plugins, app, echo, end_command, run_plugins
from moebius.lab.console import PrintableConsole


@app.command()
@end_command()
def compose(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="What mb.save wrote, or runs: DIR/VARIANT/seed-N or DIR/VARIANT."),
    ],
    data: Annotated[
        Path,
        typer.Option(metavar="ROWS", help="Rows: a .safetensors file with x and y, or a run, for its held-out rows."),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the recommended mixture is saved.")],
    cost: Annotated[
        str | None, typer.Option(metavar="COST", help="The most that a row may cost: multiply_adds=1e6, or ms=0.5.")
    ] = None,
    rows: Annotated[str, typer.Option(metavar="PLAN", help="held_out, cross_fit:5 or in_sample.")] = "held_out",
    way: Annotated[
        list[str] | None, typer.Option(metavar="WAY", help="Try this way alone, and others named so. May be repeated.")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Also train models from the start that a mixture has to beat.")
    ] = False,
    at_most: Annotated[
        str | None, typer.Option(metavar="SHARE:MODEL", help="A cascade, at most this share of the rows to MODEL.")
    ] = None,
    abstain: Annotated[
        float | None, typer.Option(metavar="ACCURACY", help="No answer below a confidence: answers have this accuracy.")
    ] = None,
    onnx: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the saved model as ONNX.")] = None,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="What the models have learned.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of everything random.")] = 0,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with data sets in the hub's parquet layout.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    plugin: Plugins = None,
) -> None:
    """Say which mixture of trained MODELs is worth it, and save it.

    Every way to combine them is fitted to some of the rows and judged on others.
    """
    import json as json_text

    from moebius.lab.data.batches import scale_pixels
    from moebius.lab.study.compose_folders import compose_folders
    from moebius.storage.export import export

    run_plugins(plugin)
    share = _parse_share(at_most)
    if share is not None and abstain is not None:
        raise ArgumentError("abstain", "makes another model than at-most", abstain, "one of both options")
    console = PrintableConsole(stderr=True, highlight=False)
    options = {} if task is None else {"task": task}
    with console.status("reading") as status:
        composition, images = compose_folders(
            models,
            data,
            data_dir,
            cost=cost,
            rows=rows,
            ways=way,
            controls=controls,
            seed=seed,
            device="cpu",
            progress=lambda line: status.update(line),
            **options,
        )
    threshold = None
    if share is not None:
        threshold = composition.at_most(*share)
    elif abstain is not None:
        threshold = composition.abstain(abstain)
    composition.save(out)
    if threshold is not None:
        threshold.save(out)
    if onnx is not None:
        model = composition.model if threshold is None else threshold.model
        export(model, scale_pixels(images[:64], scale=composition.pool.rows.scale), onnx)
    if json:
        document = composition.to_dict()
        document |= {} if threshold is None else {"threshold": threshold.to_dict()}
        echo(json_text.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
        return
    echo(str(composition))
    if threshold is not None:
        echo(f"\nThreshold: {threshold.text}")
    echo(f"\nsaved: {out}" + ("" if onnx is None else f", {onnx}"))


def _parse_share(text: str | None) -> tuple[float, str] | None:
    if text is None:
        return None
    share, _, model = text.partition(":")
    try:
        return float(share), model
    except ValueError:
        raise ArgumentError("at-most", "needs a share and a model", text, "--at-most 0.3:conv-seed-0") from None
