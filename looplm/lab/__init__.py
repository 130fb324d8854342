"""Studies: models that differ in named settings, measured alike, and what the numbers say."""
