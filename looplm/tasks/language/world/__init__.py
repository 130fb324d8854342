"""A small world: short Korean stories and dialogues whose every sentence, and every change of hands, can be checked.

hangul.py    particles and endings, by the last syllable
lexicon.py   the words
grammar.py   sentences, written and read by the same patterns
stories.py   who has what, and stories that keep it
judge.py     what share of a model's stories is right
"""
