"""A trained network -> data/cache/<dump>, field logits."""

from stages import cli
from stages.dump_field import dump_command

dump_logits = dump_command("logits", "Compute a teacher's logits for every sample, once, and seal them in a cache.")

if __name__ == "__main__":
    cli.main(dump_logits)
