import torch
from torch import nn

from moebius.experts.ffn import FFN
from moebius.lab.bench.dense import best_chunk, chunked, forward, moved, step


def test_chunks_change_neither_output_nor_gradients():
    torch.manual_seed(0)
    network, x = FFN(4, 6).double(), torch.randn(10, 4, dtype=torch.float64)
    network(x).square().sum().backward()
    whole = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    y = chunked(network, x, 3)
    y.square().sum().backward()
    torch.testing.assert_close(y, network(x))
    torch.testing.assert_close([parameter.grad for parameter in network.parameters()], whole)


def test_a_chunk_is_what_the_network_sees():
    seen = []
    network = nn.Linear(4, 4)
    network.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    chunked(network, torch.zeros(10, 4), 4)
    chunked(network, torch.zeros(10, 4), 10)
    assert seen == [4, 4, 2, 10]


def test_forward_keeps_no_graph_and_a_step_gives_every_gradient_anew():
    network, x = FFN(4, 6), torch.randn(5, 4)
    outputs = []
    network.register_forward_hook(lambda module, inputs, output: outputs.append(output.requires_grad))
    forward(network, x)()
    call = step(network, x)
    call()
    first = [parameter.grad.clone() for parameter in network.parameters()]
    call()
    assert outputs == [False, True, True]
    # Twice the gradient, were it added up.
    torch.testing.assert_close([parameter.grad for parameter in network.parameters()], first)


def test_rows_get_a_gradient_too():
    reached = []

    class Seen(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, *gradients):
            reached.append(gradients[0].shape)
            return gradients[0]

    class Watched(nn.Linear):
        def forward(self, input):
            return super().forward(Seen.apply(input))  # pyright: ignore[reportArgumentType]

    step(Watched(4, 4), torch.zeros(5, 4))()
    assert reached == [(5, 4)]


def test_the_fastest_number_of_rows_is_taken():
    import time

    def make(chunk: int):
        return lambda: time.sleep(0.001 if chunk == 1024 else 0.02)

    assert best_chunk(make, 3000, rounds=1) == 1024
    assert best_chunk(make, 100, rounds=1) == 100


def test_memory_moves_as_many_bytes_as_said():
    ways = moved(4000, "cpu")
    assert {name: count for name, (_, count) in ways.items()} == {"write": 4000, "copy": 8000}
    target = ways["write"][0]()
    assert isinstance(target, torch.Tensor)
    assert target.numel() * 4 == 4000
