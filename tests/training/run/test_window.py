import torch

from training.distributed import World
from training.run.window import Window
from training.stages.figures import mean_by_level, mean_of
from training.stages.objective import BatchLoss

ONE_PROCESS = World(0, 1, torch.device("cpu"))


def window_of(losses, gradient_norms):
    window = Window()
    for loss, gradient_norm in zip(losses, gradient_norms, strict=True):
        window.add_step(torch.tensor(loss), torch.tensor(gradient_norm), num_tokens=10)
    return window


def test_the_first_step_whose_loss_or_gradient_is_not_finite_is_found():
    nan, inf = float("nan"), float("inf")
    assert window_of([1.0, 2.0], [1.0, 1.0]).summary(ONE_PROCESS).first_bad_step is None
    assert window_of([1.0, nan, inf], [1.0, 1.0, 1.0]).summary(ONE_PROCESS).first_bad_step == 1
    assert window_of([1.0, 2.0, nan], [1.0, inf, 1.0]).summary(ONE_PROCESS).first_bad_step == 1


def test_the_figures_of_micro_batches_add_up_to_those_of_all_rows():
    window = window_of([1.0], [1.0])
    levels = torch.tensor([0.05, 0.07, 0.99], dtype=torch.float64)
    losses = torch.tensor([1.0, 2.0, 5.0])
    for rows in (slice(0, 1), slice(1, 3)):
        figures = {"by_level": mean_by_level(losses[rows], levels[rows]), "mean": mean_of(losses[rows])}
        window.add_figures(BatchLoss(torch.tensor(1.0), figures))
    assert window.summary(ONE_PROCESS).figures == {"by_level": {"0.1": 1.5, "1.0": 5.0}, "mean": 8 / 3}
