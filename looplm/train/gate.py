"""A learned gate: when to halt, learnt from a finished model that it leaves as it is."""

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, cross_entropy

from looplm.draws import Draw
from looplm.models.body import Body
from looplm.models.looped import looped
from looplm.shapes import Bool, Float, Int
from looplm.train.config import GateConfig
from looplm.train.recipe import Recipe


def train_gate(model: Body, recipe: Recipe, seed: int) -> Iterator[float]:
    """Train the gate's weights and no others, a step each time the iterator is asked; gives the losses.

    The model runs as it will be used, without noise and from the state 0, and its answer tokens are scored after every
    loop.

    Spec: [training.gate][].
    """
    model = looped(model, "a gate")
    config, rows = recipe.gate, range(recipe.training.batch_size)
    assert config is not None and model.gate is not None, "the recipe has asked"
    optimizer = torch.optim.Adam(model.gate.parameters(), lr=config.learning_rate)
    for step in range(config.steps):
        batch = recipe.task.batch(rows, Draw(seed, "problems of the gate", step)).to(model.device)
        with torch.no_grad():
            states = list(model.states(batch.tokens, config.max_loops))
            logits = torch.stack([model.logits(h) for h in states])
        given = [model.halt_prob(h, l) for l, h in enumerate(states, 1)]
        halt_prob = torch.stack([probability for probability in given if probability is not None])
        optimizer.zero_grad()
        loss = gate_loss(halt_prob, logits, batch.targets, batch.scored, config)
        loss.backward()
        optimizer.step()
        yield loss.item()


def gate_loss(
    halt_prob: Annotated[Tensor, Float("L B T")],
    logits: Annotated[Tensor, Float("L B T V")],
    targets: Annotated[Tensor, Int("B T")],
    scored: Annotated[Tensor, Bool("B T")],
    config: GateConfig,
) -> Annotated[Tensor, Float("")]:
    r"""What the gate is to make small, over the scored tokens; nats.

    `right`: the cross-entropy of $\lambda_l$ against whether the most likely token after loop $l$ is right, meaned over
    loops. `ponder`: $\sum_l p_l\,\ell_l + \beta\,\mathrm{KL}(p \,\|\, g)$, with $\ell_l$ the model's own cross-entropy after
    loop $l$ and $g$ a geometric distribution, cut off at the last loop.

    Source: `right` is the LoopLM plan's, section 4.3; `ponder` is Banino et al. 2021, PonderNet, equation 4,
    arXiv:2107.05407. We differ: the model is trained before and stays as it is, only the gate learns.
    Spec: [training.gate-right][], [training.gate-ponder][].
    """
    probability, given, wanted = halt_prob[:, scored], logits[:, scored], targets[scored]
    if config.objective == "right":
        return binary_cross_entropy(probability, (given.argmax(-1) == wanted).to(probability.dtype))
    losses = torch.stack([cross_entropy(at_loop, wanted, reduction="none") for at_loop in given])
    weights = halting_weights(probability)
    prior = halting_weights(torch.full_like(probability, config.prior))
    divergence = (weights * (weights.clamp(min=1e-12) / prior).log()).sum(0)
    return ((weights * losses).sum(0) + config.prior_weight * divergence).mean()


def halting_weights(halt_prob: Annotated[Tensor, Float("L N")]) -> Annotated[Tensor, Float("L N")]:
    r"""The probability of halting after each loop: $p_l = \lambda_l \prod_{m<l} (1 - \lambda_m)$; the last takes the rest.

    Spec: [training.gate-ponder][].
    """
    goes_on = torch.cat((torch.ones_like(halt_prob[:1]), (1 - halt_prob[:-1]).cumprod(0)))
    return goes_on * torch.cat((halt_prob[:-1], torch.ones_like(halt_prob[:1])))
