import json

import pytest
import torch

from zipformer.eden import Eden, Eden2


def optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": rate} for rate in rates]
    )


@pytest.mark.parametrize("case", [0, 1])
def test_rates_equal_the_original(golden_dir, case):
    golden = json.loads((golden_dir("zipformer_golden") / "eden.json").read_text())[case]
    options = {k: golden[k] for k in ("lr_batches", "lr_epochs", "warmup_batches", "warmup_start")}
    scheduler = Eden(optimizer(golden["base_lr"]), **options)
    series = {(epoch, batch): lr for epoch, batch, lr in golden["series_epoch_batch_lr"]}
    rates = {}
    for epoch in range(golden["epochs"]):
        scheduler.step_epoch(epoch)
        rates[epoch, scheduler.batch] = scheduler.last_lr()[0]
        for _ in range(golden["batches_per_epoch"]):
            scheduler.step_batch()
            rates[epoch, scheduler.batch] = scheduler.last_lr()[0]
    for place, lr in series.items():
        assert rates[place] == pytest.approx(lr, rel=1e-9), place
    assert scheduler.state_dict() == golden["state_dict"]


def test_construction_leaves_the_rate_and_each_group_has_its_own():
    both = optimizer(0.04, 0.02)
    scheduler = Eden(both, lr_batches=100, lr_epochs=2)
    assert scheduler.last_lr() == [0.04, 0.02]
    scheduler.step_epoch(0)
    assert scheduler.last_lr() == [0.02, 0.01]


def test_resume_continues_the_rates():
    first = optimizer(0.04)
    scheduler = Eden(first, lr_batches=100, lr_epochs=2, warmup_batches=20)
    scheduler.step_epoch(1.5)
    for _ in range(33):
        scheduler.step_batch()
    second = optimizer(0.7)
    resumed = Eden(second, lr_batches=100, lr_epochs=2, warmup_batches=20)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.last_lr() == scheduler.last_lr()
    resumed.step_batch()
    scheduler.step_batch()
    assert resumed.last_lr() == scheduler.last_lr()


def test_eden2_has_no_epochs():
    scheduler = Eden2(optimizer(0.1), lr_batches=100, warmup_batches=10, warmup_start=0.2)
    scheduler.step_batch(5)
    assert scheduler.last_lr()[0] == pytest.approx(0.1 * (1.0025**-0.5) * 0.6)
    scheduler.step_epoch(7)
    scheduler.step_batch(100)
    assert scheduler.last_lr()[0] == pytest.approx(0.1 * 2**-0.5)


@pytest.mark.parametrize("options", [{"warmup_start": 1.5}, {"lr_batches": 0}, {"lr_epochs": -1}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Eden(optimizer(0.1), **{"lr_batches": 10, "lr_epochs": 1, **options})
