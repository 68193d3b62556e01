import torch
from torch import nn

from moebius.experts.ffn import FFN
from moebius.lab.bench.dense import find_best_chunk, forward_call, memory_transfers, run_in_chunks, step_call


def test_chunks_change_neither_output_nor_gradients():
    torch.manual_seed(0)
    network, x = FFN(4, 6).double(), torch.randn(10, 4, dtype=torch.float64)
    network(x).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    y = run_in_chunks(network, x, 3)
    y.square().sum().backward()
    torch.testing.assert_close(y, network(x))
    torch.testing.assert_close([parameter.grad for parameter in network.parameters()], expected)


def test_the_network_runs_on_one_chunk_at_a_time():
    sizes = []
    network = nn.Linear(4, 4)
    network.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    run_in_chunks(network, torch.zeros(10, 4), 4)
    run_in_chunks(network, torch.zeros(10, 4), 10)
    assert sizes == [4, 4, 2, 10]


def test_a_forward_keeps_no_graph_and_a_step_replaces_every_gradient():
    network, x = FFN(4, 6), torch.randn(5, 4)
    outputs = []
    network.register_forward_hook(lambda module, inputs, output: outputs.append(output.requires_grad))
    forward_call(network, x)()
    call = step_call(network, x)
    call()
    first = [parameter.grad.clone() for parameter in network.parameters()]
    call()
    assert outputs == [False, True, True]
    # Gradients that accumulate would be doubled.
    torch.testing.assert_close([parameter.grad for parameter in network.parameters()], first)


def test_rows_get_a_gradient_too():
    gradient_shapes = []

    class RecordGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, *gradients):
            gradient_shapes.append(gradients[0].shape)
            return gradients[0]

    class RecordingLinear(nn.Linear):
        def forward(self, input):
            return super().forward(RecordGradient.apply(input))  # pyright: ignore[reportArgumentType]

    step_call(RecordingLinear(4, 4), torch.zeros(5, 4))()
    assert gradient_shapes == [(5, 4)]


def test_the_fastest_number_of_rows_is_chosen():
    import time

    def make(chunk: int):
        return lambda: time.sleep(0.001 if chunk == 1024 else 0.02)

    assert find_best_chunk(make, 3000, rounds=1) == 1024
    assert find_best_chunk(make, 100, rounds=1) == 100


def test_transfers_have_the_stated_number_of_bytes():
    transfers = memory_transfers(4000, "cpu")
    assert {name: count for name, (_, count) in transfers.items()} == {"write": 4000, "copy": 8000}
    target = transfers["write"][0]()
    assert isinstance(target, torch.Tensor)
    assert target.numel() * 4 == 4000
