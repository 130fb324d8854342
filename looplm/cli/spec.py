"""`looplm spec`."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Spec:
    """Look up a clause of the specification."""

    action: Annotated[Literal["show"], tyro.conf.Positional]
    """What to do."""
    id: Annotated[str, tyro.conf.Positional]
    """A clause, such as halting.kv-publish."""

    def run(self) -> int:
        """Print the clause's citation, place, sentence, code and examples."""
        from looplm.spec import citation, find, version

        clause = find(self.id)
        parts = [f"{citation(clause.id)}  (spec {version()}, {clause.file}:{clause.line})", clause.sentence]
        print("\n\n".join(parts + [text for text in (clause.code, clause.examples) if text]))
        return 0
