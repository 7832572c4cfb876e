"""A trained network -> data/cache/<dump>, field affinities."""

from stages import cli
from stages.dump_field import dump_command

dump_affinities = dump_command(
    "affinities",
    "Compute the t-SNE affinities of each batch of a plan, once, and seal them in a cache.",
)

if __name__ == "__main__":
    cli.main(dump_affinities)
