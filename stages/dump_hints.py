"""A trained network -> data/cache/<dump>, field hints."""

from stages import cli
from stages.dump_field import dump_command

dump_hints = dump_command(
    "hints",
    "Compute a network's activations at its taps for every sample, once, and seal them in a cache.",
)

if __name__ == "__main__":
    cli.main(dump_hints)
