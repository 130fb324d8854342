"""The gradient of one step, by one process or by gloo ranks; a module of its own, as spawned processes import it by name."""

import torch
import torch.distributed as dist
from torch import Tensor

from looplm.train.loops import draw_plan
from looplm.train.recipe import parse_recipe
from looplm.train.trainer import Trainer

LIVELY = {
    "name": "lively",
    "title": "everything that draws",
    "task": {"name": "addition", "mode": "parallel"},
    "model": {"width": 8, "heads": 2, "mlp_width": 16, "positions": "place", "place_window": 1},
    "training": {"batch_size": 6, "max_loops": 4, "restart_share": 1.0, "state_noise": 0.3, "dropout": 0.2},
    "evaluation": {"sizes": [4], "problems_per_cell": 2},
}
RANKS = 2


def gradient(rank: int, ranks: int) -> list[Tensor]:
    """Of a slice of the batch of step 3, added up over all ranks."""
    trainer = Trainer(parse_recipe(LIVELY, where="test"), seed=5)
    trainer.model.double()
    trainer.steps_done = 3
    batch, plan = trainer._next_batch(), draw_plan(trainer.config, trainer.draw("loops"))
    assert plan.before, "a restart, which may start from another slice's problems"
    size = len(batch) // ranks
    trainer.backward(batch, plan, range(rank * size, (rank + 1) * size))
    found = [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]
    for tensor in found if ranks > 1 else []:
        dist.all_reduce(tensor)
    return found


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    found = gradient(rank, RANKS)
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()
