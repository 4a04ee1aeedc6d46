"""The rules of the static check, one file for each part of a study."""
