"""Three trained networks that have nothing in common become one model that runs the right one for each image."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import moebius as mb

digits = load_digits()  # 1,797 real images of 8×8 grey pixels, 0 … 16
x, y = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(digits.target)
train, test = slice(0, 1400), slice(1400, None)


def trained(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> nn.Module:  # stands for the models that you have
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


low, high = y[train] < 5, y[train] >= 5
resized = nn.functional.interpolate(x[train][high], (16, 16), mode="bilinear", antialias=True)
linear = trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), x[train][low], y[train][low])  # knows 0 … 4
conv = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(392, 5))
conv = trained(conv, resized, y[train][high] - 5)  # knows 5 … 9, wants 16×16
other = trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), x[:100], y[:100])  # knows all, from 100 images

experts = [
    mb.experts.Adapter(linear, classes=range(5), total=10, frozen=True),
    mb.experts.Adapter(conv, size=16, classes=range(5, 10), total=10, frozen=True),
    mb.experts.Adapter(other, frozen=True),
]
moe = mb.Mixture(mb.gates.MLP(64, experts=3), experts, combine=mb.LogMixture())
fitted = mb.fit(moe, (x[train], y[train]), trains="gate", epochs=60, patience=20)
print(f"best possible choice {fitted.oracle:.3f} of the held-out rows")

moe.router = mb.routers.Argmax()  # from now on one expert runs for an image
with mb.record(moe) as log:
    right = (moe(x[test]).argmax(-1) == y[test]).float().mean()
runs = (log[""][-1].weights > 0).float().mean(0).tolist()
print(f"test accuracy {right:.3f}; share of images by expert {', '.join(f'{share:.2f}' for share in runs)}")
