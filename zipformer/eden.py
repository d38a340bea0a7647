"""Learning rates that fall with the number of batches and of epochs (Zipformer, Yao et al.
2024).
"""

from torch.optim import Optimizer


class Eden:
    """Learning rate that falls as a power of both the batch and the epoch index, with a linear
    warm-up.

        lr = base_lr * ((b^2 + B^2) / B^2)^(-1/4) * ((e^2 + E^2) / E^2)^(-1/4) * warmup(b)

    b, e: batch and epoch index; both may be fractional (any measure of the data seen).
    B, E: `lr_batches`, `lr_epochs`, where the decay sets in.
    warmup: rises linearly from `warmup_start` at b = 0 to 1 at `warmup_batches`.

    `base_lr` is kept in each parameter group: its `lr` at construction, unless given. Construction
    leaves the rates alone: call `step_epoch(epoch)` when an epoch starts (from 0) and
    `step_batch()` after each update.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_batches: float,
        lr_epochs: float,
        warmup_batches: float = 500.0,
        warmup_start: float = 0.5,
    ):
        if not 0.0 <= warmup_start <= 1.0:
            raise ValueError(f"warmup_start is {warmup_start}, expected a value in [0, 1]")
        if lr_batches <= 0 or lr_epochs <= 0:
            raise ValueError(f"lr_batches {lr_batches} and lr_epochs {lr_epochs} must be positive")
        self.optimizer = optimizer
        self.lr_batches = lr_batches
        self.lr_epochs = lr_epochs
        self.warmup_batches = warmup_batches
        self.warmup_start = warmup_start
        self.batch: float = 0
        self.epoch: float = 0
        for group in optimizer.param_groups:
            group.setdefault("base_lr", group["lr"])

    def step_batch(self, batch: float | None = None) -> None:
        """Go to the given batch index, or to the next one, and write the rates to the optimizer."""
        self.batch = self.batch + 1 if batch is None else batch
        self._write_rates()

    def step_epoch(self, epoch: float | None = None) -> None:
        """Go to the given epoch index, or to the next one, and write the rates to the optimizer."""
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self._write_rates()

    def factor(self) -> float:
        """Present learning rate divided by the base rate."""
        return self._decay() * self._warmup()

    def last_lr(self) -> list[float]:
        """Present learning rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict:
        """Batch and epoch; base rates and rates are in the optimizer's own state."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state_dict: dict) -> None:
        self.epoch = state_dict["epoch"]
        self.batch = state_dict["batch"]

    def _decay(self) -> float:
        by_batch = (self.batch**2 + self.lr_batches**2) / self.lr_batches**2
        by_epoch = (self.epoch**2 + self.lr_epochs**2) / self.lr_epochs**2
        return by_batch**-0.25 * by_epoch**-0.25

    def _warmup(self) -> float:
        if self.batch >= self.warmup_batches:
            return 1.0
        return self.warmup_start + (1.0 - self.warmup_start) * self.batch / self.warmup_batches

    def _write_rates(self) -> None:
        factor = self.factor()
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


class Eden2(Eden):
    """Eden without epochs: lr = base_lr * ((b^2 + B^2) / B^2)^(-1/2) * warmup(b)."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_batches: float,
        warmup_batches: float = 500.0,
        warmup_start: float = 0.5,
    ):
        super().__init__(
            optimizer,
            lr_batches,
            lr_epochs=1.0,
            warmup_batches=warmup_batches,
            warmup_start=warmup_start,
        )

    def _decay(self) -> float:
        return ((self.batch**2 + self.lr_batches**2) / self.lr_batches**2) ** -0.5
