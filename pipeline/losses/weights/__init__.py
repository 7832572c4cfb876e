"""How a loss's weight changes over the epochs."""
