"""Three trained networks of different kinds become one model that runs one of them for each image."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import moebius as mb

torch.manual_seed(0)
digits = load_digits()  # 1,797 real images of 8×8 grey pixels, 0 … 16
x, y = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(digits.target)
train_rows, test_rows = slice(0, 1400), slice(1400, None)


def train(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> nn.Module:  # in place of models that you have
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


x_train, y_train = x[train_rows], y[train_rows]
low, high = y_train < 5, y_train >= 5
resized = nn.functional.interpolate(x_train[high], (16, 16), mode="bilinear", antialias=True)
linear = train(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), x_train[low], y_train[low])  # classes 0 … 4
conv = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(392, 5))
conv = train(conv, resized, y_train[high] - 5)  # classes 5 … 9, images of 16×16 pixels
general = train(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), x[:100], y[:100])  # all classes, from 100 images

experts = [
    mb.experts.Adapter(linear, classes=range(5), total=10, frozen=True),
    mb.experts.Adapter(conv, size=16, classes=range(5, 10), total=10, frozen=True),
    mb.experts.Adapter(general, frozen=True),
]
moe = mb.Mixture(mb.gates.MLP(64, experts=3), experts, combine=mb.LogMixture())
fit = mb.fit(moe, (x_train, y_train), trains="gate", epochs=60, patience=20)
print(f"best possible choice {fit.oracle:.3f} of the held-out rows")

moe.router = mb.routers.Argmax()  # from now on, one expert runs for an image
with mb.record(moe) as log:
    accuracy = (moe(x[test_rows]).argmax(-1) == y[test_rows]).float().mean()
shares = (log[""][-1].weights > 0).float().mean(0).tolist()
print(f"test accuracy {accuracy:.3f}; share of images by expert {', '.join(f'{share:.2f}' for share in shares)}")
