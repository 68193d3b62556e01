import torch

from moebius.experts.linear import Linear


def test_worked():
    expert = Linear(features=2, classes=2)
    with torch.no_grad():
        expert.linear.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        expert.linear.bias.copy_(torch.tensor([0.5, 0.0]))
    assert expert(torch.tensor([[3.0, 1.0]])).tolist() == [[5.5, -1.0]]


def test_an_image_is_the_row_of_its_pixels():
    expert, x = Linear(features=12, classes=3), torch.rand(4, 3, 2, 2)
    assert torch.equal(expert(x), expert(x.flatten(1)))
