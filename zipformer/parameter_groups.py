"""Parameter groups for the optimizer: one per learning rate."""

from collections.abc import Iterable

from torch import nn


def get_parameter_groups(model: nn.Module, lr: float, freeze: Iterable[str] = ()) -> list[dict]:
    """Groups `{"named_params": [(name, parameter), ...], "lr": rate}` in order of first appearance.

    A module may carry a number `lr_scale`; a parameter's rate is lr times the `lr_scale` of the
    model and of every module on the way to it. `freeze` names top-level modules to leave out (those
    of the wrapped model, if the model is wrapped as `module`). Parameters that need no gradient are
    left out, too.

    Raises ValueError if a name in `freeze` is no top-level module, or if nothing is left to train.
    """
    freeze = set(freeze)
    modules = dict(model.named_modules(remove_duplicate=False))
    top_level = {name.removeprefix("module.").split(".")[0] for name in modules}
    if unknown := freeze - top_level:
        raise ValueError(
            f"cannot freeze {sorted(unknown)}: the top-level modules are {sorted(top_level - {''})}"
        )

    groups: dict[float, list] = {}
    for name, parameter in model.named_parameters():
        path = name.split(".")
        if name.removeprefix("module.").split(".")[0] in freeze or not parameter.requires_grad:
            continue
        rate = lr
        for depth in range(len(path)):
            rate *= getattr(modules[".".join(path[:depth])], "lr_scale", 1.0)
        groups.setdefault(rate, []).append((name, parameter))
    if not groups:
        raise ValueError(
            f"no parameter of {type(model).__name__} is left to train (frozen: {sorted(freeze)})"
        )
    return [{"named_params": named, "lr": rate} for rate, named in groups.items()]
