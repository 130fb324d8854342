"""`looplm convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from looplm.cli.console import notes


@dataclass(frozen=True)
class Convert:
    """Turn a static model into a Llama as Hugging Face transformers reads it, or such a folder into a model of this package.

    A model of this package needs a vocabulary: the bytes, or that of `--tokenizer`.
    """

    model: Annotated[str, tyro.conf.Positional]
    """A run, a checkpoint or a shipped model, which becomes a Llama; or a folder with a Llama's config.json."""
    out: Path
    """The new folder."""
    tokenizer: Path | None = None
    """For a Llama that becomes a model of this package: a SentencePiece model with as many pieces as it has."""

    def run(self) -> int:
        """Write the folder."""
        from looplm.errors import InputError
        from looplm.files import refuse_unwritable
        from looplm.interop.llama import CONFIG, read_llama, write_llama

        if self.out.exists():
            raise InputError(f"{self.out} is there already; give a new folder.")
        refuse_unwritable(self.out)
        folder = Path(self.model)
        if (folder / CONFIG).is_file():
            self._save(read_llama(folder))
        else:
            from looplm.models.looped import looped
            from looplm.runs.checkpoint import load

            if self.tokenizer is not None:
                raise InputError("`--tokenizer` is for a Llama that becomes a model of this package; leave it out here.")
            trained = load(self.model)
            write_llama(looped(trained.model, "Llama"), self.out, trained.recipe.task.longest().tokens.shape[1])
        notes().print(f"wrote {self.out}")
        return 0

    def _save(self, model: object) -> None:
        """With a recipe that says what the model is for; nothing is known of how it was trained."""
        from looplm.models.looped import LoopLM
        from looplm.runs.checkpoint import Trained, save
        from looplm.settings import as_table
        from looplm.train.recipe import parse_recipe

        assert isinstance(model, LoopLM)
        task = {"name": "language"} | ({"tokenizer": str(self.tokenizer)} if self.tokenizer else {})
        table = {
            "name": "llama",
            "title": f"converted from {self.model}",
            "task": task,
            "model": as_table(model.config),
            "training": {"steps": 1, "min_loops": 1, "max_loops": 1},
            "halting": {"rule": "fixed", "max_loops": 1},
            "evaluation": {"sizes": [128]},
        }
        recipe = parse_recipe(table, where=self.model, trained=True)
        save(Trained(model, recipe, {"converted_from": self.model}), self.out)
