"""A trained student in a folder of its own: weights, a card for machines and one for people, ONNX if asked for."""
