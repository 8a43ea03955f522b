"""Watch somebody else's training loop: what another batch size would do to its learning rate.

Two lines are added to a loop that accumulates gradients; nothing else in it changes.
Run it: python examples/watch_a_loop.py
"""

import torch
from torch import nn

from noisewise import scaling

PARTS, SIZE = 4, 16  # micro-batches a step, examples in each


def main() -> None:
    """Train a small classifier for 200 steps, then ask about a batch four times as large."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 20, generator=random)
    y = (x[:, 0] * x[:, 1] + 0.5 * torch.randn(4096, generator=random) > 0).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    monitor = scaling.watch(model, optimizer, every=5)  # <- the first line
    for step in range(200):
        for _ in range(PARTS):
            chosen = torch.randint(len(x), (SIZE,), generator=random)
            loss = nn.functional.cross_entropy(model(x[chosen]), y[chosen])
            (loss / PARTS).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            print(f"step {step + 1}: loss {loss.item():.3f}")

    print(monitor.report())
    print(monitor.recommend(batch=4 * PARTS * SIZE).text())  # <- the second line


if __name__ == "__main__":
    main()
