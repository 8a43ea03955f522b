"""Do the starts of adapters follow full fine-tuning as closely as theory allows? Known gradients.

One linear layer, with PEFT's own layers, whose gradient is a given matrix at every weight. The
program compares the relative residual of one infinitesimal step of SGD, at its best length, with
the bound that no step of its rank can pass. Peers: LoRA (random), PiSSA and LoRA-GA of PEFT. All
run again with a loss a hundred times as large, which should change nothing.

    python -m benchmarks.adapters.exact            about a minute; needs the extra `adapters`
    python -m benchmarks.adapters.exact --quick
"""

from __future__ import annotations

import math
from collections.abc import Callable

from benchmarks.shared import harness, summaries

TITLE = "Adapters: one step against full fine-tuning, gradients known exactly"
ROWS, COLUMNS, RANK, ALPHA = 96, 128, 4, 8
SPECTRA: dict[str, Callable[[int], float]] = {
    "rank 2r": lambda i: float(9 - i) if i <= 8 else 0.0,
    "3 / i": lambda i: 3.0 / i,
    "1 / sqrt i": lambda i: i**-0.5,
    "flat": lambda i: 1.0,
}
METHODS = (
    "LoRA",
    "PiSSA (PEFT)",
    "lora_ga (PEFT)",
    "ours, base kept",
    "ours, base moved",
    "LoRA + our LoRA-Pro",
    "ours, moved + LoRA-Pro",
)


def gradient(spectrum: str, seed: int):  # noqa: ANN201 (torch is imported late)
    """Return a matrix with these singular values and random singular vectors."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    count = min(ROWS, COLUMNS)
    values = torch.tensor([SPECTRA[spectrum](i + 1) for i in range(count)], dtype=torch.float64)
    u = torch.linalg.qr(torch.randn(ROWS, count, generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(COLUMNS, count, generator=generator, dtype=torch.float64)).Q
    return (u * values @ v.T).float()


def measure(method: str, spectrum: str, loss_scale: float, seed: int) -> harness.Values:
    """Return the residual of the first step, the change of the function, and the size of B/A."""
    import torch
    from peft import LoraConfig, LoraGAConfig, get_peft_model
    from peft.tuners.lora.loraga import preprocess_loraga
    from torch import nn

    from noisewise.adapters import bound, gradients, lora_ga, lora_pro
    from noisewise.adapters.layers import factors, lora_layers

    torch.manual_seed(seed)
    g = gradient(spectrum, seed)
    net = nn.Sequential(nn.Linear(COLUMNS, ROWS, bias=False))
    eye = torch.eye(COLUMNS)
    before = net(eye).detach()

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return loss_scale * (model(batch) * g.T).sum()

    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"])
    if method == "PiSSA (PEFT)":
        config.init_lora_weights = "pissa"
        adapted = get_peft_model(net, config)
    elif method == "lora_ga (PEFT)":
        config.init_lora_weights, config.lora_ga_config = "lora_ga", LoraGAConfig()
        preprocess_loraga(net, config, lambda: loss(net, eye).backward())
        adapted = get_peft_model(net, config)
    elif method.startswith("ours"):
        grads = gradients(net, config, [eye], loss)
        adapted = lora_ga(net, config, grads, mutate_base="moved" in method)
    else:
        adapted = get_peft_model(net, config)
    kept = float((adapted(eye) - before).detach().abs().max())
    (layer,) = lora_layers(adapted).values()
    a, b = (value.double() for value in factors(layer, "default"))
    lr = 1e-6 / loss_scale
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=lr)
    if "LoRA-Pro" in method:
        lora_pro(optimizer, adapted, damping=0.0)
    loss(adapted, eye).backward()
    # The step in first order, from the same gradients that the optimiser gets.
    for hook in optimizer._optimizer_step_pre_hooks.values():
        hook(optimizer, (), {})
    g_a, g_b = (
        p.grad.double() for p in (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
    )
    step = layer.scaling["default"] * (g_b @ a + b @ g_a)
    goal = g.double()
    length = float((step * goal).sum() / step.square().sum())
    return {
        "residual": float((goal - length * step).norm() / goal.norm()),
        "cosine": float((step * goal).sum() / (step.norm() * goal.norm())),
        "bound_r": bound(g, RANK),
        "bound_2r": bound(g, 2 * RANK),
        "kept": kept,
        "b_over_a": float(b.norm() / a.norm()),
    }


def table(results: harness.Results) -> str:
    """Return residuals by spectrum and method, and how the size of B follows the loss."""
    parts = []
    for spectrum in SPECTRA:
        rows = []
        for method in METHODS:
            cells = results.cells({"method": method, "spectrum": spectrum, "loss": 1.0})
            if not cells:
                continue
            residual = summaries.summarise([[c.number("residual") or 0.0] for c in cells])
            cosine = summaries.summarise([[c.number("cosine") or 0.0] for c in cells])
            loud = results.cells({"method": method, "spectrum": spectrum, "loss": 100.0})
            ratios = [c.number("b_over_a") or math.nan for c in (*cells[:1], *loud[:1])]
            grown = ratios[1] / ratios[0] if len(ratios) == 2 and ratios[0] else None
            rows.append(
                (
                    method,
                    residual,
                    cosine,
                    f"{max(c.number('kept') or 0.0 for c in cells):.0e}",
                    grown,
                )
            )
        if rows:
            any_cell = results.cells({"spectrum": spectrum})[0]
            one, two = any_cell.number("bound_r") or 0.0, any_cell.number("bound_2r") or 0.0
            parts.append(
                f"Spectrum {spectrum}: the smallest residual of a step of rank r is {one:.4f}, "
                f"of rank 2r {two:.4f}\n\n"
                + summaries.table(
                    ["start", "residual", "cosine", "change of function", "size B/A, loss x 100"],
                    rows,
                )
            )
    return "\n\n".join(parts)


def main() -> None:
    """Run the missing cells and print the table."""
    arguments = harness.parser(__doc__ or "").parse_args()
    threads = harness.use_threads(arguments.threads)
    names = ("noisewise", "torch", "peft", "transformers")
    conditions = harness.environment(threads, names)
    if conditions["versions"]["peft"] is None:  # pyrefly: ignore
        raise harness.UsageError("This benchmark needs PEFT: pip install noisewise[adapters].")
    results = harness.Results(
        harness.results_file(arguments, "adapters/exact"), conditions, arguments.redo
    )
    if not arguments.table_only:
        for seed in range(1 if arguments.quick else 5):
            for spectrum in list(SPECTRA)[: 1 if arguments.quick else None]:
                for method in METHODS:
                    for scale in (1.0, 100.0):
                        setting = {
                            "method": method,
                            "spectrum": spectrum,
                            "loss": scale,
                            "seed": seed,
                        }
                        results.cell(
                            setting,
                            lambda m=method, s=spectrum, x=scale, n=seed: measure(m, s, x, n),
                        )
    harness.publish(results, TITLE, [table(results)])


if __name__ == "__main__":
    harness.run_program(main)
