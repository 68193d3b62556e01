"""A user's file: what a type checker must accept, and, where a line ends with `# wrong`, what it must refuse."""

from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn

import moebius as mb
from moebius.gates import Linear
from moebius.gates import Liner  # wrong
from moebius.routers import TopK

gate = Linear(features=4, experts=2)
assert_type(gate, Linear)
assert_type(gate, mb.routers.Soft)  # wrong

moe = mb.Mixture(gate, [nn.Linear(4, 3), mb.experts.MLP(4, 3, hidden=[8])], router=TopK(1), combine=mb.LogMixture())
assert_type(moe, mb.Mixture)
mb.Mixture(gate, [nn.Linear(4, 3)], rooter=TopK(1))  # wrong
mb.Mixture(gate, [nn.Linear(4, 3)], router=gate)  # wrong
mb.Mixtur  # wrong
mb.gates.Liner  # wrong
mb.routers.TopK("two")  # wrong
mb.experts.Linear(features=4)  # wrong

x, labels = torch.zeros(5, 4), torch.zeros(5, dtype=torch.long)
with mb.record(moe, outputs=True) as log:
    y = moe(x)
routing = log[""][-1]
assert_type(routing, mb.Routing)
assert_type(routing.weights, Tensor)
routing.weigths  # wrong
assert_type(mb.losses.batch_entropy(routing), Tensor)
mb.losses.batch_entropy(x)  # wrong

stack = mb.Stack.of(lambda: nn.Linear(4, 3), 3)
assert_type(stack[0], nn.Module)
fitted = mb.fit(moe, (x, labels), epochs=1)
assert_type(fitted.test.accuracy, float)
mb.fit(moe, (x, labels), epochs=1, lr=lambda epoch: 0.1, l2={"weight": 1e-4}, losses=[(mb.losses.z_loss, 0.1)])
mb.fit(moe, (x, labels), epochs=1, on_epoch=lambda moment: moment.metrics["train/loss"] < 0.1, progress=False)
mb.fit(moe, (x, labels), epochs=1, on_epoch=lambda moment: moment.metric)  # wrong
mb.fit(moe, (x, labels), epoch=1)  # wrong
mb.fit(moe, (x, labels), epochs="1")  # wrong
diagnosis = mb.diagnose(moe, (x, labels), rows=100)
assert_type(diagnosis, mb.lab.doctor.Diagnosis)
assert_type(diagnosis.try_remedies(["average"])[0].model, nn.Module | None)
mb.diagnose(moe, (x, labels), row=100)  # wrong
assert_type(mb.lab.run({"name": "mine"}, preset="quick", seeds=2), Path)
mb.lab.run("quickstart", sedes=2)  # wrong
mb.save(moe, "folder")
assert_type(mb.load("folder", experts={0: nn.Linear(4, 3)}), mb.Mixture)
