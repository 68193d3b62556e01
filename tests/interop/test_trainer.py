"""transformers' Trainer: a run that goes on from a checkpoint ends as one that was not interrupted."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import moebius as mb

STEPS, HALF = 6, 3


class Network(nn.Module):
    """What a Trainer calls: rows and labels → loss and logits."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x, labels):
        logits = self.model(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


@pytest.fixture
def run(transformers, batch, tmp_path):
    class Balance(transformers.TrainerCallback):
        def on_optimizer_step(self, args, state, control, model=None, **kwargs):
            mb.step_routers(model)

    x, labels = batch(rows=48)
    rows = [{"x": row, "labels": label} for row, label in zip(x, labels, strict=True)]

    def trained(model: nn.Module, checkpoint: str | None = None) -> nn.Module:
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=STEPS,
            save_steps=HALF,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            learning_rate=1e-2,
            adam_epsilon=1e-3,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        trainer = transformers.Trainer(Network(model), arguments, train_dataset=rows, callbacks=[Balance()])
        trainer.train(resume_from_checkpoint=checkpoint)
        assert trainer.state.global_step == STEPS
        return model

    return trained


def test_a_run_that_goes_on_ends_as_one_that_was_not_interrupted(run, model, build, name, other, same, tmp_path):
    run(model)
    resumed = run(other, str(tmp_path / f"checkpoint-{HALF}"))
    same(model, resumed)
    with pytest.raises(AssertionError):
        same(build(name), model, rtol=1e-2, atol=1e-3)


def test_a_stack_trains_as_a_list(run, build, outputs):
    models = [run(build(name)) for name in ("list", "stack")]
    torch.testing.assert_close(*map(outputs, models))
    assert models[0].router.bias.equal(models[1].router.bias)
    assert models[0].router.bias.abs().sum() > 0
