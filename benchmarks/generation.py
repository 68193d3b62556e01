"""A language model of transformers with the experts implementation "moebius" beside transformers' own.

    python benchmarks/generation.py                    # OLMoE of 1 B random parameters, bf16 and fp32
    python benchmarks/generation.py --layers 2 --dtype fp32

The model is an `OlmoeForCausalLM` with 64 experts, 8 of them for a token, and random weights. Each implementation
computes a prompt (prefill) and then one token after another with the cache (decode), always the likeliest next one. The
implementations run in turn in one process, every round with another prompt; figures are medians over rounds, ratios are
taken within rounds. `batched_mm` copies the weights of every assignment: it decodes, and no prompt fits the memory. The
tokens of all implementations are compared; in bf16 rounding may decide between two tokens that are equally likely.
"""

import os
import time
from statistics import median

import torch
from _compare import make_parser, prepare_process, write_rows
from torch import Tensor

from moebius.lab.bench.timing import Measurement, ratio_row, value_row
from moebius.lab.bench.workload import DTYPES

OURS, PEERS = "moebius", ("eager", "grouped_mm", "batched_mm")
# It cannot compute a prompt, so that another implementation does.
ONLY_DECODES = "batched_mm"


def make_model(layers: int, dtype: torch.dtype):
    from transformers import OlmoeConfig, OlmoeForCausalLM

    from moebius.integrations.transformers import register

    register()
    torch.manual_seed(0)
    config = OlmoeConfig(
        hidden_size=1024,
        intermediate_size=512,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=16,
        num_experts=64,
        num_experts_per_tok=8,
    )
    return OlmoeForCausalLM(config).to(dtype).eval()


@torch.inference_mode()
def run(model, implementation: str, prompt: Tensor, tokens: int) -> tuple[float, float, list[int]]:
    """Seconds of the prompt, seconds of the tokens after the first, and all tokens."""
    model.set_experts_implementation("grouped_mm" if implementation == ONLY_DECODES else implementation)
    begin = time.perf_counter()
    state = model(prompt, use_cache=True, logits_to_keep=1)
    prefill = time.perf_counter() - begin
    model.set_experts_implementation(implementation)
    token, chosen = state.logits[:, -1:].argmax(-1), []
    begin = time.perf_counter()
    for _ in range(tokens):
        chosen.append(int(token))
        state = model(token, past_key_values=state.past_key_values, use_cache=True)
        token = state.logits[:, -1:].argmax(-1)
    return prefill, time.perf_counter() - begin, chosen


def measure(model, dtype: str, rounds: int, prompt_tokens: int, tokens: int) -> list[Measurement]:
    """The figures of one number format, printed as they are made."""
    names = (OURS, *PEERS)
    times: dict[str, dict[str, list[float]]] = {"prefill": {n: [] for n in names}, "decode": {n: [] for n in names}}
    same = dict.fromkeys(PEERS, 0)
    for number in range(rounds + 1):
        prompt = torch.randint(0, model.config.vocab_size, (1, prompt_tokens))
        results = {name: run(model, name, prompt, tokens) for name in names}
        # The first round warms up.
        if number:
            for name, (prefill, decode, chosen) in results.items():
                times["prefill"][name].append(prefill)
                times["decode"][name].append(decode / tokens)
                if name != OURS:
                    same[name] += chosen == results[OURS][2]
    rows = []
    for part, by_name in times.items():
        milliseconds = {name: [1e3 * value for value in values] for name, values in by_name.items()}
        rows.append(value_row(f"{dtype} {part}, {OURS}", milliseconds[OURS], "ms"))
        print(f"{dtype} {part:<8} {OURS:<12} {median(milliseconds[OURS]):9.1f} ms")
        for name in PEERS:
            if (part, name) == ("prefill", ONLY_DECODES):
                continue
            title = f"{dtype} {part}, {name}"
            ratio = ratio_row(title, milliseconds[name], f"{dtype} {part}, {OURS}", milliseconds[OURS], "ms")
            rows += [value_row(title, milliseconds[name], "ms"), ratio]
            low, high = ratio.spread
            print(
                f"{dtype} {part:<8} {name:<12} {median(milliseconds[name]):9.1f} ms   theirs / ours {ratio.ratio:5.2f} "
                f"({low:.2f} … {high:.2f})   the same tokens in {same[name]} of {rounds} rounds"
            )
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--layers", type=int, default=9)
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="default: both")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens after it")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--untuned", action="store_true", help="do not tune the allocator")
    options = parser.parse_args()
    prepare_process(options.threads, options.untuned)
    rows = []
    for dtype in options.dtype or DTYPES:
        model = make_model(options.layers, DTYPES[dtype])
        print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters, {dtype}")
        rows += measure(model, dtype, options.rounds, options.prompt, options.tokens)
        del model
    write_rows(rows, options.json)


if __name__ == "__main__":
    main()
