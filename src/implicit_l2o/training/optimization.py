"""AdamW and its learning rate, as every task has them unless the configuration says otherwise."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class Optimization:
    """AdamW and its learning rate.

    Args:
        learning_rate: at the start, or after the warm-up.
        weight_decay: on matrices; biases and other vectors have none.
        schedule: `"cosine"` lets the rate fall to zero over all steps, `"constant"` keeps it.
        warmup_steps: in which the rate rises from zero, linearly.
        second_moment: decay of AdamW's average of squared gradients, in [0, 1); .95 forgets a start with large gradients
            sooner.
        decay_power: the weight decay is multiplied by `(rate / learning_rate)^decay_power`, whatever sets the rate. AdamW
            moves a weight by `rate (signal - decay weight)`: a constant decay holds for ever whatever has a weaker signal,
            one that falls with the rate only while the rate is high. 0 keeps the decay.

    Raises:
        ValueError: a value is out of its range.
    """

    learning_rate: float = 1e-2
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 0
    second_moment: float = 0.999
    decay_power: float = 0.0

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"Optimization needs learning_rate > 0; got {self.learning_rate}.")
        if not self.weight_decay >= 0:
            raise ValueError(f"Optimization needs weight_decay >= 0; got {self.weight_decay}.")
        if self.warmup_steps < 0:
            raise ValueError(f"Optimization needs warmup_steps >= 0; got {self.warmup_steps}.")
        if not 0 <= self.second_moment < 1:
            raise ValueError(f"Optimization needs 0 <= second_moment < 1; got {self.second_moment}.")
        if not 0 <= self.decay_power < float("inf"):
            raise ValueError(f"Optimization needs a finite decay_power >= 0; got {self.decay_power}.")
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f'schedule must be "cosine" or "constant"; got {self.schedule!r}.')

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """AdamW on the trainable parameters."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, self.second_moment))
        if self.decay_power and self.weight_decay:
            optimizer.register_step_pre_hook(self._fall)
        return optimizer

    def _fall(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Set the weight decay of the step from its rate."""
        matrices = optimizer.param_groups[0]
        matrices["weight_decay"] = self.weight_decay * (matrices["lr"] / self.learning_rate) ** self.decay_power

    def scheduler(self, optimizer: torch.optim.Optimizer, steps: float) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule, to be advanced after every step.

        Args:
            optimizer: whose rate it sets.
            steps: of the whole training; infinite if it has no end.

        Raises:
            ValueError: a cosine over a training without an end.
        """
        rates = torch.optim.lr_scheduler
        if self.schedule == "constant":
            main = rates.ConstantLR(optimizer, factor=1.0, total_iters=0)
        elif steps == float("inf"):
            raise ValueError("the cosine schedule needs an end: set trainer.max_epochs or trainer.max_steps.")
        else:
            main = rates.CosineAnnealingLR(optimizer, T_max=max(1, int(steps) - self.warmup_steps))
        if not self.warmup_steps:
            return main
        rise = rates.LinearLR(optimizer, start_factor=1 / (self.warmup_steps + 1), total_iters=self.warmup_steps)
        return rates.SequentialLR(optimizer, [rise, main], milestones=[self.warmup_steps])
