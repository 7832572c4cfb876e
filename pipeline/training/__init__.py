"""The engine that teachers and students share: rows, orders, batches, steps."""
