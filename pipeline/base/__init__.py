"""What all rooms stand on: errors, files, registries, progress, devices, seeds."""
