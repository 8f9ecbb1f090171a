"""Claim: a step of PGD-7 training takes less time than robustness' own loop takes, at the same mathematics.

Every variant is a process of its own (how memory is kept is a property of a process), and the processes take turns,
A B C A B C ..., so that all of them see the same machine; medians of wall time. `robustness` runs its unchanged
`_model_loop` with its training defaults (which keep the best iterate, for one more forward pass), and once with
use_best=0, which trains on the very examples that epsilens trains on. Neither augments. The last line is JSON.
"""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from epsilens.attacks import ThreatModel, pgd
from epsilens.models import build
from epsilens.models.folding import Folded
from epsilens.processes import keep_freed_memory
from epsilens.training import TrainConfig, Trainer, World
from epsilens.training.config import Choice
from epsilens.training.recipes import Batch

STEPS, ROUNDS, WARM = 7, 9, 2
NETWORKS: dict[str, tuple[str, dict[str, int], int]] = {  # name: architecture, options, batch on a CPU
    "small": ("small_resnet", {"width": 32, "stem_stride": 2}, 64),
    "resnet18": ("resnet18", {"width": 64}, 16),
}
GPU_BATCH = 128
THREAT = ThreatModel.of("linf", 8)
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VARIANTS = ["robustness", "robustness use_best=0", "epsilens"] + ["epsilens compiled"] * (DEVICE == "cuda")


def network(name: str) -> nn.Sequential:
    architecture, options, _ = NETWORKS[name]
    return build(architecture, options, 10, MEAN, STD, seed=0)


def batch(name: str) -> tuple[Tensor, Tensor]:
    """Images away from 0 and 1, where robustness' clamp inside the network would zero gradients on this torch."""
    torch.manual_seed(0)
    size = NETWORKS[name][2] if DEVICE == "cpu" else GPU_BATCH
    return (0.1 + 0.8 * torch.rand(size, 3, 32, 32)).to(DEVICE), torch.randint(10, (size,)).to(DEVICE)


def robustness() -> Any:
    """robustness.train, and its attacker, made to work on this torchvision and without a GPU."""
    warnings.simplefilter("ignore")
    hub = types.ModuleType("torchvision.models.utils")
    hub.load_state_dict_from_url = torch.hub.load_state_dict_from_url  # type: ignore[attr-defined]
    sys.modules["torchvision.models.utils"] = hub
    if DEVICE == "cpu":
        Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign, assignment]
    from robustness import attacker, train

    class Quiet:  # its loop writes a bar; the text is still formatted
        def __init__(self, batches: Any, **_: Any) -> None:
            self.batches = batches

        def __iter__(self) -> Any:
            return iter(self.batches)

        def set_description(self, _: str) -> None: ...

        def refresh(self) -> None: ...

    train.tqdm = Quiet
    return train, attacker


class Latent(nn.Module):
    """A network that takes the extra arguments of robustness' own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, **_: bool) -> Tensor:
        return self.network(images)


class Dataset:
    """What robustness asks of a data set."""

    mean, std = torch.tensor(MEAN), torch.tensor(STD)


def their_step(name: str, use_best: bool) -> Callable[[], None]:
    """One step of robustness' training loop."""
    train, attacker = robustness()
    model = attacker.AttackerModel(Latent(network(name)[1]), Dataset()).to(DEVICE)  # it normalises by itself
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    arguments = types.SimpleNamespace(
        eps=THREAT.epsilon,
        constraint="inf",
        attack_lr=THREAT.epsilon / 4,
        attack_steps=STEPS,
        random_start=False,
        use_best=use_best,
        custom_eps_multiplier=None,
        random_restarts=0,
        regularizer=None,
        mixed_precision=False,
    )
    loader = [batch(name)]
    return lambda: train._model_loop(arguments, "train", loader, model, optimiser, 0, True, None)


def our_step(name: str, compiled: bool = False) -> Callable[[], None]:
    """One step of ours: attack, update, average of the weights, and a look at the loss."""
    keep_freed_memory()
    torch.backends.cudnn.benchmark = True
    recipe = Choice(name="pgd", options={"steps": STEPS, "step_factor": STEPS / 4, "random_start": False})
    settings = TrainConfig(
        source="training",
        recipe=recipe,
        schedule=Choice(name="cosine", options={}),
        epochs=1,
        batch_size=2,
        learning_rate=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        averaging=0.99,
        label_smoothing=0.0,
        flip=False,
        crop=0,
        validation_steps=1,
        patience=0,
        precision="auto",
    )
    wrap = (lambda net: torch.compile(net, mode="reduce-overhead")) if compiled else (lambda net: net)
    trainer = Trainer(network(name), THREAT, settings, seed=0, world=World(DEVICE), view=Folded, compiled=wrap)
    trainer.network.train()
    images, labels = batch(name)
    held = Batch(images, labels, lambda: torch.rand_like(images))

    def step() -> None:
        if not trainer.descend(held, 0.01, 1000).isfinite():
            raise ArithmeticError("the loss is not finite")

    return step


def serve(name: str, variant: str) -> None:
    """Take one step for each line on standard input, and answer with its seconds."""
    step = our_step(name, "compiled" in variant) if "epsilens" in variant else their_step(name, "=0" not in variant)
    for _ in range(WARM):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        print(time.perf_counter() - started, flush=True)


def measure(name: str) -> dict[str, float]:
    """Median seconds of a step of every variant."""
    workers = {}
    for variant in VARIANTS:
        command = [sys.executable, __file__, name, variant]
        workers[variant] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert ask(workers[variant], "") == "ready"
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(ROUNDS):
        for variant, worker in workers.items():
            times[variant].append(float(ask(worker, "\n")))
    for worker in workers.values():
        worker.kill()
        worker.communicate()
    return {variant: statistics.median(values) for variant, values in times.items()}


def ask(worker: subprocess.Popen[str], line: str) -> str:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(line)
    worker.stdin.flush()
    return worker.stdout.readline().strip()


def floor(name: str) -> float:
    """Seconds that the arithmetic of a step takes at the speed of a large matrix product, the peak of this machine."""
    images, labels = batch(name)
    net = network(name).to(DEVICE)
    with FlopCounterMode(display=False) as update:
        F.cross_entropy(net(images), labels).backward()
    frozen = net.eval().requires_grad_(False)
    with FlopCounterMode(display=False) as attack:
        F.cross_entropy(frozen(images.requires_grad_()), labels).backward()
    side = 8192 if DEVICE == "cuda" else 2048
    a = torch.rand(side, side, device=DEVICE)
    a = a.to(torch.bfloat16 if DEVICE == "cuda" else torch.float32)
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        _ = a @ a.T
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    rate = 2 * a.shape[0] ** 2 * a.shape[1] / min(seconds)
    return (STEPS * attack.get_total_flops() + update.get_total_flops()) / rate


def difference(name: str) -> tuple[float, float]:
    """Largest difference of our examples and robustness' in float64, where rounding flips no sign, and the share of
    pixels that differ in float32, where a gradient of about 0 may have either sign."""
    _, attacker = robustness()
    found = []
    for kind in (torch.float64, torch.float32):
        net = network(name).to(DEVICE, kind)
        images, labels = batch(name)
        images = images[:16].to(kind)
        net.train()(images)  # batch statistics of some kind
        plain = Latent(copy.deepcopy(net[1]).eval())
        dataset = types.SimpleNamespace(mean=Dataset.mean.to(kind), std=Dataset.std.to(kind))
        predict = Folded(net.to(memory_format=torch.channels_last)).predict  # type: ignore[call-overload]  # stubs
        step = THREAT.epsilon / 4
        ours = pgd(predict, images, labels[:16], THREAT, images, steps=STEPS, step_size=step)
        theirs = attacker.Attacker(plain, dataset)(
            images,
            labels[:16],
            True,
            constraint="inf",
            eps=THREAT.epsilon,
            step_size=step,
            iterations=STEPS,
            random_start=False,
            use_best=False,
        )
        found.append((ours - theirs).abs())
    return float(found[0].max()), float((found[1] > 1e-5).float().mean())


def main() -> None:
    if len(sys.argv) == 3:
        serve(*sys.argv[1:])
        return
    result: dict[str, float] = {}
    for name in NETWORKS if DEVICE == "cpu" else ["resnet18"]:
        medians, least, (largest, flipped) = measure(name), floor(name), difference(name)
        size = len(batch(name)[1])
        print(f"{name}, PGD-{STEPS}, batch {size}, {DEVICE}, {torch.get_num_threads()} threads")
        print(f"  FLOP floor               {1000 * least:9.1f} ms, at the speed of a large matrix product")
        for variant, seconds in medians.items():
            ratio = medians["robustness"] / seconds
            print(
                f"  {variant:24s} {1000 * seconds:9.1f} ms  x{ratio:.2f}  {least / seconds:6.1%} of the FLOP floor's speed"
            )
        print(f"  examples: largest difference {largest:.1e} in float64; {flipped:.2e} of pixels differ in float32")
        suffix = "" if name == "small" or DEVICE == "cuda" else f"_{name}"
        best = min(seconds for variant, seconds in medians.items() if "epsilens" in variant)
        result[f"ratio_{DEVICE.replace('cuda', 'gpu')}{suffix}"] = round(medians["robustness"] / best, 3)
        result[f"ratio_same_examples{suffix}"] = round(medians["robustness use_best=0"] / best, 3)
        result["max_difference"] = max(result.get("max_difference", 0.0), largest)
        result[f"differing_pixels{suffix}"] = flipped
    print(json.dumps(result))


if __name__ == "__main__":
    main()
