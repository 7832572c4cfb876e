"""A trained network -> data/cache/<dump>, field multichannel."""

from stages import cli
from stages.dump_field import dump_command

dump_multichannel = dump_command(
    "multichannel",
    "Compute the binary channel labels of a network with a head for every sample, once, and seal them in a cache.",
)

if __name__ == "__main__":
    cli.main(dump_multichannel)
