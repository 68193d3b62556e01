"""Training a gate on what frozen experts said once is the training itself, to rounding."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import moebius as mb
from moebius.experts.adapter import Adapter
from moebius.lab.data.batches import scale_pixels
from moebius.lab.training import output_caches
from moebius.lab.training.cacheable_parts import cacheable_parts
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.output_caches import OutputCaches

FLIP = [{"kind": "flip"}, {"kind": "noise", "std": 0.1}]
CLASSES = 20


class Network(nn.Module):
    """Batch normalisation and dropout, which show when they are not in eval, and a count of the rows computed."""

    def __init__(self, outputs):
        super().__init__()
        self.layers = nn.Sequential(
            # No bias, which batch normalisation takes out again: Adam would magnify its gradient's rounding errors.
            nn.Conv2d(1, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ELU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(144, outputs),
        )
        statistics = self.layers[1]
        nn.init.uniform_(statistics.running_mean, -0.1, 0.1)
        nn.init.uniform_(statistics.running_var, 0.5, 2.0)
        self.rows = 0

    def forward(self, x):
        self.rows += len(x)
        return self.layers(x)


def frozen(outputs=CLASSES, **options):
    return Adapter(Network(outputs), frozen=True, **options)


def gate(outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))


def soft():
    experts = [frozen(), frozen(3, classes=[4, 0, 7], total=CLASSES, fill=-5.0), frozen(activation="log_softmax")]
    return mb.Mixture(gate(3), experts)


def top_k():
    return mb.Mixture(gate(4), [frozen() for _ in range(4)], mb.routers.TopK(2))


def tree():
    base = frozen()
    branches = [
        mb.Mixture(gate(2 * CLASSES), [base, frozen()], mb.routers.PerClass(CLASSES), mb.combine.LogMixture())
        for _ in "ab"
    ]
    return mb.Mixture(frozen(2), branches, mb.routers.Argmax(), mb.combine.LogMixture())


def heads():
    router = mb.routers.Heads(mb.routers.Soft(normalisation="elu"), heads=2)
    experts = [frozen(activation="softmax"), frozen(2, classes=[3, 5], total=CLASSES, activation="softmax")]
    return mb.Mixture(gate(4), experts, router, mb.combine.HeadMaximum())


def half():
    """One expert is frozen, the other learns, batch statistics and all."""
    return mb.Mixture(gate(2), [frozen(), Adapter(Network(CLASSES))])


MODELS = {"soft": soft, "top_k": top_k, "tree": tree, "heads": heads, "half": half}


def networks(model):
    return [part for part in model.modules() if isinstance(part, Network)]


@pytest.fixture
def precise(small_data):
    """Rows in float64."""

    def to_double(split):
        return replace(split, images=scale_pixels(split.images).double())

    data = small_data(train_rows=70, validation_rows=30)
    splits = {name: to_double(getattr(data, name)) for name in ("train", "validation", "test")}
    return replace(data, **splits)


@pytest.fixture
def train(precise, settings, tmp_path, alone):
    """Trains a model in float64, with or without a memory; rows computed are counted in its networks."""
    count = iter(range(100))

    def trained(make, data=None, store=None, listen=lambda event: None, **changes):
        places = {}

        def build():
            model = make().double()
            places.update({part: number for number, part in enumerate(cacheable_parts(model))})
            return model

        def output_path(part, split):
            return store / f"{places[part]}-{split.split('/')[1]}.safetensors".replace(" ", "_")

        keywords = {} if store is None else {"caches": lambda call: OutputCaches(call, output_path)}
        folder = tmp_path / f"run-{next(count)}"
        return alone(build, data or precise, settings(**changes), 5, folder, listen=listen, **keywords).train()

    return trained


def assert_agree(first, second, tolerance=1e-10):
    ours, theirs = first.model.state_dict(), second.model.state_dict()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=tolerance)
    for split in ("train", "held_out", "test", "one_expert"):
        evaluation, other_evaluation = getattr(first, split), getattr(second, split)
        torch.testing.assert_close(evaluation.losses, other_evaluation.losses, rtol=0, atol=tolerance)
        for path, weights in evaluation.gates.items():
            torch.testing.assert_close(weights, other_evaluation.gates[path], rtol=0, atol=tolerance, equal_nan=True)
    for entry, other_entry in zip(first.metrics, second.metrics, strict=True):
        for split in ("train", "validation"):
            assert entry[split]["loss"] == pytest.approx(other_entry[split]["loss"], abs=tolerance)
    assert first.oracle == second.oracle


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("changes", [{}, {"augment": FLIP, "views": 2, "epochs": 3}], ids=["rows", "views"])
def test_cached_and_uncached_training_agree(case, changes, train, precise):
    with_memory = train(MODELS[case], **changes)
    without = train(MODELS[case], remember=False, **changes)
    assert with_memory.test.losses.dtype == torch.float64
    assert_agree(with_memory, without)
    assert (with_memory.remembered, without.remembered) == (True, False)
    # Every row of every split has been computed once, and each view too; without a memory in every epoch.
    rows = sum(len(split) for split in (precise.train, precise.validation, precise.test))
    rows += len(precise.train) * changes.get("views", 0)
    remembered = [part.network for part in cacheable_parts(with_memory.model)]
    assert [network.rows for network in remembered] == [rows] * len(remembered)
    assert max(network.rows for network in networks(without.model)) > 2 * rows


@pytest.mark.parametrize("case", MODELS)
def test_frozen_parts_keep_their_bits(case, train):
    torch.manual_seed(5)
    before = MODELS[case]().double().state_dict()
    trained = train(MODELS[case], optimizer={"kind": "adamw", "lr": 0.1, "weight_decay": 0.1}, l2={"weight": 0.1})
    modules = trained.model.named_modules(remove_duplicate=False)
    frozen_paths = [name for name, module in modules if isinstance(module, Adapter) and module.frozen]
    after = trained.model.state_dict()
    assert any(name.startswith(tuple(frozen_paths)) and "running_var" in name for name in after)
    for name, value in after.items():
        assert torch.equal(value, before[name]) == name.startswith(tuple(frozen_paths)), name


def test_files_are_shared_and_not_computed_again(train, tmp_path):
    store, notes = tmp_path / "outputs", []
    first = train(soft, store=store)
    files = sorted(store.glob("*.safetensors"))
    assert [path.name for path in files] == [
        f"{n}-{s}.safetensors" for n in range(3) for s in ("test", "training", "validation")
    ]
    stamps = [path.stat().st_mtime_ns for path in files]
    second = train(soft, store=store, listen=lambda event: notes.append(event.text))
    assert [network.rows for network in networks(first.model)] == [70 + 30 + 40] * 3
    assert [network.rows for network in networks(second.model)] == [0] * 3
    assert_agree(first, second, tolerance=0.0)
    assert_agree(second, train(soft, remember=False))
    assert [path.stat().st_mtime_ns for path in files] == stamps
    assert notes[0] == "3 frozen parts: computed once for every training row"
    assert not list(store.glob("*.tmp*"))


@pytest.mark.parametrize("damage", ["truncated", "no safetensors", "other rows", "other name"])
def test_a_damaged_file_is_computed_anew(damage, train, tmp_path):
    store = tmp_path / "outputs"
    first = train(soft, store=store)
    path = store / "1-training.safetensors"
    whole = path.read_bytes()
    outputs = load_file(path)["outputs"]
    if damage == "truncated":
        path.write_bytes(whole[:-9])
    elif damage == "no safetensors":
        path.write_bytes(b"x" * 100)
    else:
        save_file({"outputs": outputs[:9]} if damage == "other rows" else {"y": outputs}, path)
    second = train(soft, store=store)
    assert_agree(first, second, tolerance=0.0)
    assert [network.rows for network in networks(second.model)] == [0, 70, 0]
    assert path.read_bytes() == whole


def test_fresh_augmentation_is_not_remembered_and_the_note_says_so(train):
    notes = []

    def listen(event):
        if event.kind == "note":
            notes.append(event.text)

    fresh = train(soft, augment=FLIP, listen=listen)
    assert not fresh.remembered
    assert [network.rows for network in networks(fresh.model)] == [2 * 70 + 70 + 30 + 40] * 3  # all but the steps once
    train(soft, augment=FLIP, views=2, listen=listen)
    train(soft, remember=False, listen=listen)
    train(lambda: mb.Mixture(gate(1), [Adapter(Network(CLASSES))]), listen=listen)
    assert notes == [
        "3 frozen parts: computed in every step, because augmentation changes the rows",
        "3 frozen parts: computed once for every training row",
        "3 frozen parts: computed in every step, because caching is switched off (remember: false)",
    ]
    assert_agree(fresh, train(soft, augment=FLIP, remember=False))


def test_what_learns_is_not_remembered(train):
    model = half()
    assert cacheable_parts(model) == [model.experts[0]]
    # Frozen for this training alone is not frozen: it is in eval, and computed all the same.
    trained = train(half, experts={"freeze": True})
    looked_up, computed = networks(trained.model)
    assert looked_up.rows == 140
    assert computed.rows > 2 * 140


def test_outputs_that_are_too_many_are_not_kept(train, tmp_path, monkeypatch):
    notes, store = [], tmp_path / "outputs"
    cached = train(soft)
    # A row of 20 numbers in float64 is 160 bytes: the 70 training rows are too many, the 40 test rows are not.
    monkeypatch.setattr(output_caches, "MOST_BYTES", 50 * 160)
    trained = train(soft, store=store, listen=lambda event: notes.append(event.text))
    assert_agree(trained, cached)
    assert not trained.remembered
    assert notes[0] == "3 frozen parts: computed in every step, because the outputs take too much memory"
    assert {path.name.split("-")[1] for path in store.glob("*.safetensors")} == {
        "test.safetensors",
        "validation.safetensors",
    }


def test_frozen_parts_are_the_outermost_and_each_once():
    inner = frozen()
    whole = Adapter(mb.Mixture(gate(2), [inner, frozen()]), frozen=True)
    shared = frozen()
    model = mb.Mixture(frozen(2), [whole, mb.Mixture(gate(2), [shared, frozen()]), shared, nn.Linear(1, 1)])
    branch = model.experts[1]
    assert cacheable_parts(model) == [model.gate, whole, shared, branch.experts[1]]


def test_a_part_whose_input_is_not_the_row_is_not_remembered(train):
    """Behind a layer that learns, or behind an input transform, a frozen part sees something else."""

    def behind():
        layer = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), frozen())
        enlarged = Adapter(mb.Mixture(gate(2), [frozen(), frozen()]), transform=lambda x: x * 0.5)
        plain = Adapter(mb.Mixture(gate(2), [frozen(), frozen()]))
        return mb.Mixture(gate(3), [layer, enlarged, plain])

    model = behind()
    assert cacheable_parts(model) == list(model.experts[2].network.experts)
    assert_agree(train(behind), train(behind, remember=False))

    def both():
        shared = frozen()
        return mb.Mixture(gate(2), [shared, nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), shared)])

    assert cacheable_parts(both()) == []


def test_a_part_in_which_rows_depend_on_each_other_is_not_remembered(train):
    """What such a part says of a row changes with the rows beside it, which a step draws anew."""

    def create():
        choosing = mb.Mixture(gate(2), [Network(CLASSES), Network(CLASSES)], mb.routers.ExpertChoice())
        return mb.Mixture(gate(2), [Adapter(choosing, frozen=True), frozen()])

    model = create()
    assert cacheable_parts(model) == [model.experts[1]]
    assert_agree(train(create), train(create, remember=False))


def test_tables_are_the_part_s_outputs_in_the_split_s_order(precise):
    model = top_k().double().eval()
    memory = OutputCaches(ModelCall(model)).cache_of(precise.test, "test")
    assert list(memory.tables) == list(model.experts)
    for part, table in memory.tables.items():
        torch.testing.assert_close(table, part(precise.test.images), rtol=0, atol=1e-12)
        assert not table.requires_grad
