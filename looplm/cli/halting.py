"""Options that choose when a token stops, shared by the commands that run a model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from looplm.choices import Choices

if TYPE_CHECKING:
    from looplm.loop.halting import ByRole

_NAMES = Choices[Any]("looplm.loop.halting", "halting rule").names()
Choice = Annotated[str, tyro.conf.arg(metavar="{" + ",".join(("preset", *_NAMES)) + ",package.module:Class}")]


@dataclass(frozen=True)
class HaltingOptions:
    """What is not given is as the model's preset says."""

    halting: Choice = "preset"
    """When a token of the answer stops (spec: halting)."""
    max_loops: int | None = None
    """Most loops of a token; not given, a question with many slots may take more than its preset says (halting.slots)."""
    min_loops: int | None = None
    """Fewest loops of a token."""
    threshold: float | None = None
    """Probability, for confidence, prefix-stability and gate."""
    epsilon: float | None = None
    """Relative change of the state, for state-change and prefix-stability."""
    in_order: bool = False
    """A token of the answer waits until all before it have halted."""
    prompt_halting: Choice = "preset"
    """When the other tokens stop; fixed: at max-loops."""
    prompt_threshold: float | None = None
    """Probability, for confidence."""
    prompt_epsilon: float | None = None
    """Relative change of the state, for state-change."""

    def resolve(self, preset: "ByRole") -> "ByRole":
        """The preset's halting with these changes.

        Raises:
            InputError: if a setting is out of its range, or means nothing for the rule.
        """
        from looplm.loop.halting import as_table, name_of, parse_halting

        old = as_table(preset)
        old_prompt = old.pop("prompt", None)
        same_rule = self.halting in ("preset", name_of(preset.answer))
        table = old if same_rule else {"rule": self.halting, "max_loops": preset.answer.max_loops}
        given = {name: getattr(self, name) for name in ("max_loops", "min_loops", "threshold", "epsilon")}
        table |= {name: value for name, value in given.items() if value is not None}
        table |= {"in_order": True} if self.in_order else {}
        prompt: dict[str, Any] | None = old_prompt
        if self.prompt_halting != "preset":
            prompt = {"rule": self.prompt_halting, "max_loops": table["max_loops"]}
        if prompt and self.max_loops is not None:
            prompt["max_loops"] = self.max_loops
        given = {"threshold": self.prompt_threshold, "epsilon": self.prompt_epsilon}
        changes = {name: value for name, value in given.items() if value is not None}
        if changes:
            prompt = (prompt or {"rule": "fixed", "max_loops": table["max_loops"]}) | changes
        return parse_halting(table | ({"prompt": prompt} if prompt else {}), where="this halting")
