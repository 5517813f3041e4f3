"""Training step of the fast OHM layer against the literal formulation: time and peak memory, in one run.

    python benchmarks/ohm_layer.py [--batch 512] [--channels 16] [--symbols 256] [--rounds 7]

Both do forward, backward and an Adam step of the whole mnist model on the same images. Time is the median of
alternating rounds; memory is the growth of the peak resident size of a process of its own over three steps.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from literal import LiteralOhm

from ohmq.models import MnistConfig, build_model
from ohmq.training.losses import rate_distortion_loss


def make_step(kind: str, batch: int, channels: int, symbols: int, all_active: bool) -> Callable[[], float]:
    """Return a function that does one training step and returns the loss."""
    torch.manual_seed(0)
    model = build_model(MnistConfig(channels_max=channels, num_symbols=symbols))
    trained = LiteralOhm(model) if kind == "literal" else model
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3, weight_decay=1e-5)
    torch.manual_seed(1)  # the literal model drew more numbers above: the data must be the same for both
    images = torch.rand(batch, 1, 28, 28) * 2 - 1
    fraction = torch.ones(batch) if all_active else torch.rand(batch).sqrt()
    active, lagrangian = torch.ceil(fraction * channels).long(), 0.95 + 0.049 * fraction

    def step() -> float:
        output = trained(images, active)
        loss = rate_distortion_loss(images, output.reconstruction, output.bits, lagrangian).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


class Steps(NamedTuple):
    """Times and losses of training steps, by kind: "literal" and "fast".

    Attributes:
        name: setting of the comparison.
        times: seconds of the step in each round.
        losses: loss of the first step.
    """

    name: str
    times: dict[str, list[float]]
    losses: dict[str, float]


def compare_steps(batch: int, channels: int, symbols: int, rounds: int) -> Iterator[Steps]:
    """Time training steps of both kinds in turn: first with adaptive fractions, then with all channels."""
    for all_active, name in ((False, "adaptive, fraction = sqrt(U)"), (True, "all channels active")):
        steps = {kind: make_step(kind, batch, channels, symbols, all_active) for kind in ("literal", "fast")}
        losses = {kind: step() for kind, step in steps.items()}
        times: dict[str, list[float]] = {kind: [] for kind in steps}
        for _ in range(rounds):
            for kind, step in steps.items():
                start = time.perf_counter()
                step()
                times[kind].append(time.perf_counter() - start)
        yield Steps(name, times, losses)


def peak_kib() -> int:
    """Return the peak resident size of this process in KiB (Linux); unlike ru_maxrss it does not start at the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def peak_mib(arguments: argparse.Namespace, kind: str) -> float:
    """Measure the growth of the peak resident size over three steps, in MiB, in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", kind, "--batch", str(arguments.batch)]
    command += ["--channels", str(arguments.channels), "--symbols", str(arguments.symbols)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--symbols", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory-of", choices=["literal", "fast"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = (arguments.batch, arguments.channels, arguments.symbols)
    if arguments.memory_of:
        warm = make_step(arguments.memory_of, 4, *size[1:], True)
        warm()
        before = peak_kib()
        step = make_step(arguments.memory_of, *size, True)
        for _ in range(3):
            step()
        print(json.dumps((peak_kib() - before) / 1024))
        return
    print(f"mnist training step: batch {size[0]}, C {size[1]}, S {size[2]}, {torch.get_num_threads()} threads")
    for name, times, losses in compare_steps(*size, rounds=arguments.rounds):
        ratios = [slow / fast for slow, fast in zip(times["literal"], times["fast"], strict=True)]
        ratio = statistics.median(times["literal"]) / statistics.median(times["fast"])
        print(f"{name}: fast is {ratio:.1f} times faster (rounds {min(ratios):.1f} to {max(ratios):.1f}); "
              f"first loss {losses['literal']:.6f} literal, {losses['fast']:.6f} fast")  # fmt: skip
    memory = {kind: peak_mib(arguments, kind) for kind in ("literal", "fast")}
    share = f"{memory['fast'] / memory['literal']:.2f} of it" if memory["literal"] else "too little to compare"
    print(f"peak memory of the step: {memory['literal']:.0f} MiB literal, {memory['fast']:.0f} MiB fast: {share}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
