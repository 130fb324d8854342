"""Tasks: what is asked and how an answer is judged; a folder each, which nothing else in the package names."""
