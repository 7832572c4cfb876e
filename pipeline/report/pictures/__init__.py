"""Pictures of what is cached and what students made of it: one a file, each a pure function arrays -> PNG.

`dump_choice` says which dumps of a study are drawn, `from_caches` reads their arrays, `canvas` and `sample_choice` are
what the pictures agree on.
"""
