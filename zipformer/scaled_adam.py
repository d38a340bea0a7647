"""ScaledAdam: Adam whose step is proportional to the size (rms) of each parameter, plus a learnt
scale.

After Yao et al. 2024, "Zipformer: a faster and better encoder for automatic speech recognition",
section 3.5. Parameters of one shape are stacked into a batch (B, *shape) and updated together;
every reduction is over the axes of the single parameter, so the stacking changes no number and only
saves time.

    optimizer = ScaledAdam(get_parameter_groups(model, lr=0.045), clipping_scale=2.0)
    loss.backward()
    optimizer.step()
    if optimizer.last_step.skipped:
        print("gradients with NaN in", optimizer.last_step.nan_parameters)
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.optim import Optimizer

EARLY_THRESHOLD_STEPS = (10, 20, 40)  # steps at which a first, looser clipping threshold is set
EXACT_CORRECTION = 0.99  # above this the bias correction of the second moment is dropped


class Diverged(RuntimeError):
    """Gradients have been infinite or NaN for so long that training cannot recover."""


@dataclass(frozen=True)
class StepReport:
    """What the last call of `ScaledAdam.step` did; one entry per parameter group in each tuple.

    skipped: a gradient norm was NaN, so neither parameters nor optimizer state were touched.
    nan_parameters: names (or positions "group.index") of the parameters whose gradient has a NaN,
    if skipped. gradient_norms: size-weighted gradient norm before clipping; empty without clipping.
    clip_factors: factor in [0, 1] on the gradients; 0 stands for an infinite norm (gradients taken
    as zero). share_clipped: share of the steps since the threshold was last set whose factor was
    below 1.
    """

    skipped: bool = False
    nan_parameters: tuple[str, ...] = ()
    gradient_norms: tuple[float, ...] = ()
    clip_factors: tuple[float, ...] = ()
    share_clipped: tuple[float, ...] = ()


class ScaledAdam(Optimizer):
    """ScaledAdam for float32 parameters, given as tensors, (name, tensor) pairs, or groups of
    either.

    A group is a dictionary with `params` or `named_params` and any of the options below.

    lr: relative change of a parameter per step, roughly.
    clipping_scale: gradients are scaled down to this multiple of the median norm of the last
        `clipping_update_period` steps; None means no clipping, and then NaN gradients are not
        noticed either.
    betas: decay of the running mean of the update and of the squared gradient.
    scalar_lr_scale: factor on lr for one-element parameters and for the learnt scales.
    eps: added to the root of the second moment.
    param_min_rms, param_max_rms: the rms between which the learnt scale moves a parameter.
    scalar_max: largest absolute value of a one-element parameter.
    size_update_period: number of steps between two updates of the scales.

    With clipping one host synchronisation per step reads the norms of all groups; there is no
    other.

    The state of a batch of equally shaped parameters is kept under its first parameter, so a
    checkpoint can only be loaded with the same parameters in the same order and groups.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 0.03,
        clipping_scale: float | None = None,
        betas: tuple[float, float] = (0.9, 0.98),
        scalar_lr_scale: float = 0.1,
        eps: float = 1e-8,
        param_min_rms: float = 1e-5,
        param_max_rms: float = 3.0,
        scalar_max: float = 10.0,
        size_update_period: int = 4,
        clipping_update_period: int = 100,
    ):
        defaults = {
            "lr": lr,
            "clipping_scale": clipping_scale,
            "betas": betas,
            "scalar_lr_scale": scalar_lr_scale,
            "eps": eps,
            "param_min_rms": param_min_rms,
            "param_max_rms": param_max_rms,
            "scalar_max": scalar_max,
            "size_update_period": size_update_period,
            "clipping_update_period": clipping_update_period,
        }
        self.last_step = StepReport()
        self._batches: list[list[list[Tensor]]] = []
        self._scratch: dict[tuple, Tensor] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict) -> None:
        """Add a group with `params` or `named_params`; raises ValueError for half-precision
        parameters.
        """
        group = dict(param_group)
        entries = group.pop("named_params") if "named_params" in group else group["params"]
        entries = [entries] if isinstance(entries, Tensor) else list(entries)
        if any(isinstance(entry, tuple) for entry in entries):
            group["param_names"] = [name for name, _ in entries]
            entries = [parameter for _, parameter in entries]
        for parameter in entries:
            if parameter.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"ScaledAdam got a parameter of type {parameter.dtype}: keep the parameters in "
                    "float32 and use torch.autocast for mixed precision"
                )
        group["params"] = entries
        super().add_param_group(group)
        self._batches.append(_batches_by_shape(entries))

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._batches = [_batches_by_shape(group["params"]) for group in self.param_groups]
        self._scratch = {}
        self.last_step = StepReport()

    def load_state_dict(self, state_dict: dict) -> None:
        """Load what `state_dict` returned; raises ValueError if it was made with other
        parameters.
        """
        super().load_state_dict(state_dict)
        if not self.state:
            return
        for batch in chain.from_iterable(self._batches):
            expected = (len(batch), *batch[0].shape)
            found = tuple(self.state[batch[0]]["delta"].shape) if batch[0] in self.state else None
            if found != expected:
                raise ValueError(
                    f"the ScaledAdam state does not fit the model: {len(batch)} parameters of shape"
                    f" {expected[1:]} need a state of shape {expected}, found {found}; it was saved"
                    " with other parameters, another order or other groups"
                )

    @torch.no_grad()
    def step(self, closure=None):
        """One update; returns the closure's loss, if a closure is given. See `last_step` for what
        was done.

        Raises Diverged if the median gradient norm of the recent steps is infinite or NaN.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        for group, batches in zip(self.param_groups, self._batches):
            for batch in batches:
                if not self.state[batch[0]]:
                    self.state[batch[0]] = _initial_state(batch, group["size_update_period"])

        norms = self._gradient_norms()
        if any(math.isnan(norm) for norm in norms):
            self.last_step = StepReport(True, self._names_of_nan_gradients(), tuple(norms))
            return loss

        factors, shares = [], []
        for index, (group, batches) in enumerate(zip(self.param_groups, self._batches)):
            factor = 1.0
            if group["clipping_scale"] is not None:
                factor, share = _clip_factor(group, self.state[batches[0][0]], norms[index])
                shares.append(share)
            for batch in batches:
                _update(batch, factor, self.state[batch[0]], group, self._scratch_for(batch))
            factors.append(factor)
        self.last_step = StepReport(False, (), tuple(norms), tuple(factors), tuple(shares))
        return loss

    def _gradient_norms(self) -> list[float]:
        """Norm per group of the gradient times the parameter's size, 0.0 for a group without
        clipping.
        """
        if all(group["clipping_scale"] is None for group in self.param_groups):
            return []
        norms = []
        for group, batches in zip(self.param_groups, self._batches):
            if group["clipping_scale"] is None:
                norms.append(batches[0][0].new_zeros(()))
                continue
            sizes = [
                (
                    batch[0].new_full((len(batch),), group["scalar_lr_scale"])
                    if _is_scalar(batch[0])
                    else self.state[batch[0]]["param_rms"].flatten()
                )
                for batch in batches
            ]
            gradients = [_gradient(p) for batch in batches for p in batch]
            norms.append(
                torch.linalg.vector_norm(
                    torch.stack(torch._foreach_norm(gradients)) * torch.cat(sizes)
                )
            )
        return torch.stack(norms).tolist()

    def _scratch_for(self, batch: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Three uninitialised tensors (B, *shape), used again by every batch.

        On a CPU fresh memory of the size of the parameters costs more time than the arithmetic on
        it.
        """
        first = batch[0]
        size = len(batch) * first.numel()
        buffer = self._scratch.get((first.device, first.dtype))
        if buffer is None or buffer.shape[1] < size:
            largest = max(len(b) * b[0].numel() for b in chain.from_iterable(self._batches))
            buffer = self._scratch[first.device, first.dtype] = first.new_empty(3, largest)
        one, two, three = buffer[:, :size].view(3, len(batch), *first.shape).unbind()
        return one, two, three

    def _names_of_nan_gradients(self) -> tuple[str, ...]:
        found = []
        for g, group in enumerate(self.param_groups):
            names = group.get("param_names") or [f"{g}.{i}" for i in range(len(group["params"]))]
            for name, parameter in zip(names, group["params"]):
                if parameter.grad is not None and parameter.grad.isnan().any():
                    found.append(name)
        return tuple(found)


def _batches_by_shape(parameters: list[Tensor]) -> list[list[Tensor]]:
    """Parameters of equal type and shape, in the order of (type, *shape)."""
    batches: dict[tuple, list[Tensor]] = {}
    for parameter in parameters:
        batches.setdefault((str(parameter.dtype), *parameter.shape), []).append(parameter)
    return [batches[key] for key in sorted(batches)]


def _is_scalar(parameter: Tensor) -> bool:
    return parameter.numel() == 1


def _own_axes(stacked: Tensor) -> tuple[int, ...]:
    """The axes of (B, *shape) that belong to the single parameter."""
    return tuple(range(1, stacked.ndim))


def _stacked(tensors: list[Tensor], out: Tensor | None = None) -> Tensor:
    """(B, *shape): a copy, into `out` if given, or a view if there is only one tensor; never
    written to.
    """
    return torch.stack(tensors, out=out) if len(tensors) > 1 else tensors[0].detach().unsqueeze(0)


def _gradient(parameter: Tensor) -> Tensor:
    """Gradient of a parameter, zero if it has none."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _rms(stacked: Tensor) -> Tensor:
    """Root mean square (B, 1, ..., 1) of each parameter in (B, *shape)."""
    norm = torch.linalg.vector_norm(stacked, dim=_own_axes(stacked), keepdim=True)
    return norm / math.sqrt(stacked[0].numel())


def _initial_state(batch: list[Tensor], size_update_period: int) -> dict:
    parameters = _stacked(batch)
    state = {
        "step": 0,
        "delta": torch.zeros_like(parameters, memory_format=torch.contiguous_format),
        "exp_avg_sq": torch.zeros_like(parameters, memory_format=torch.contiguous_format),
    }
    if not _is_scalar(batch[0]):
        rms = _rms(parameters)
        state["param_rms"] = rms
        state["scale_exp_avg_sq"] = torch.zeros_like(rms)
        state["scale_grads"] = rms.new_zeros(size_update_period, *rms.shape)
    return state


def _clip_factor(group: dict, state: dict, norm: float) -> tuple[float, float]:
    """Factor on the gradients of a group and the share of steps clipped since the threshold was
    set.

    The threshold is `clipping_scale` times the median norm of the last `clipping_update_period`
    steps, and twice that over the few norms known at steps 10, 20 and 40. An infinite norm gives
    the factor 0.
    """
    step, period = state["step"], group["clipping_update_period"]
    if step == 0:
        return (1.0 if math.isfinite(norm) else 0.0), 0.0
    if "model_norms" not in state:
        state["model_norms"] = state["delta"].new_zeros(period)
    norms = state["model_norms"]
    norms[step % period] = norm

    early = step in EARLY_THRESHOLD_STEPS and step < period
    if early or step % period == 0:
        recent = norms.sort().values[-step:] if early else norms.sort().values
        median = recent[min(len(recent) - 1, 2 * (len(recent) // 4))].item()
        if not math.isfinite(median):
            raise Diverged(
                f"the median gradient norm of the last {len(recent)} steps is {median} at step"
                f" {step}: training has diverged; restart from an earlier checkpoint with a smaller"
                " learning rate"
            )
        state["model_norm_threshold"] = group["clipping_scale"] * median * (2.0 if early else 1.0)
        state["num_clipped"] = 0

    if "model_norm_threshold" not in state:
        return (1.0 if math.isfinite(norm) else 0.0), 0.0
    factor = min(1.0, state["model_norm_threshold"] / (norm + 1e-20))
    state["num_clipped"] += factor < 1.0
    return factor, state["num_clipped"] / (step - _threshold_step(step, period) + 1)


def _threshold_step(step: int, period: int) -> int:
    """The latest step, up to `step`, at which the clipping threshold was set."""
    early = [s for s in EARLY_THRESHOLD_STEPS if s <= step and s < period]
    return max(early + [step - step % period])


def _update(
    batch: list[Tensor],
    factor: float,
    state: dict,
    group: dict,
    scratch: tuple[Tensor, Tensor, Tensor],
) -> None:
    """One step for a batch of equally shaped parameters, with `factor` on the gradients."""
    gradient = _stacked([_gradient(parameter) for parameter in batch], out=scratch[0])
    if factor != 1.0:
        gradient = (
            torch.mul(gradient, factor, out=scratch[0]) if factor > 0.0 else scratch[0].zero_()
        )
    step, second_moment, delta = state["step"], state["exp_avg_sq"], state["delta"]
    beta1, beta2 = group["betas"]

    second_moment.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    delta.mul_(beta1)
    if _is_scalar(batch[0]):
        lr = group["lr"] * group["scalar_lr_scale"]
        denominator = _denominator(second_moment, step, group, out=scratch[1])
        delta.addcdiv_(gradient, denominator, value=-(1 - beta1) * lr)
        torch._foreach_add_(batch, list(delta.unbind()))
        torch._foreach_clamp_min_(batch, -group["scalar_max"])
        torch._foreach_clamp_max_(batch, group["scalar_max"])
    else:
        parameters = _stacked(batch, out=scratch[1])
        slope = torch.mul(parameters, gradient, out=scratch[2]).sum(
            dim=_own_axes(gradient), keepdim=True
        )
        scale = _scale_step(parameters, slope, state, group)
        denominator = _denominator(second_moment, step, group, out=scratch[2])
        denominator.div_(state["param_rms"].clamp(min=group["param_min_rms"]))
        delta.addcdiv_(gradient, denominator, value=-(1 - beta1) * group["lr"])
        if scale is not None:
            delta.addcmul_(parameters, scale, value=1 - beta1)
        torch._foreach_add_(batch, list(delta.unbind()))
    state["step"] = step + 1


def _denominator(second_moment: Tensor, step: int, group: dict, out: Tensor) -> Tensor:
    """Root of the second moment (B, *shape) plus eps, with Adam's bias correction in the first
    steps.
    """
    torch.sqrt(second_moment, out=out)
    correction = 1 - group["betas"][1] ** (step + 1)
    if correction < EXACT_CORRECTION:
        out.div_(math.sqrt(correction))
    return out.add_(group["eps"])


def _scale_step(parameters: Tensor, slope: Tensor, state: dict, group: dict) -> Tensor | None:
    """Relative change (B, 1, ..., 1) of each parameter's scale, every `size_update_period` steps,
    else None.

    `slope` is the gradient with respect to the log scale of each parameter, sum(p * g). It gets an
    Adam step of its own, whose second moment is the running mean of its square. The bias correction
    multiplies, which makes the first scale steps small on purpose.
    """
    step, period = state["step"], group["size_update_period"]
    scale_grads, second_moment = state["scale_grads"], state["scale_exp_avg_sq"]
    scale_grads[step % period] = slope
    if step % period != period - 1:
        return None
    rms = state["param_rms"].copy_(_rms(parameters))
    if step == 0:
        return None

    beta = group["betas"][1] ** period
    second_moment.mul_(beta).add_(scale_grads.square().mean(dim=0), alpha=1 - beta)
    correction = math.sqrt(1 - beta ** ((step + 1) // period))
    scale = scale_grads.sum(dim=0) / (second_moment.sqrt() + group["eps"])
    scale.mul_(-group["lr"] * group["scalar_lr_scale"] * correction)
    scale.masked_fill_(rms < group["param_min_rms"], 0.0)
    scale.clamp_(-0.1, 0.1)
    return torch.minimum(scale, (group["param_max_rms"] - rms) / rms)
