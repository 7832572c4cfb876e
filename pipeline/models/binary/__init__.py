"""Networks with binary weights, or with binary weights and inputs."""
