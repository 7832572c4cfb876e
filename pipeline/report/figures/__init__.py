"""The pictures of numbers: accuracies, training curves, sizes, weights."""
