"""A study -> its stages -> the text of dvc.yaml."""
