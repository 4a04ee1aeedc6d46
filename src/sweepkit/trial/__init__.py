"""One configuration being trained: its spec, its events and their log, its objective, its proof, its process."""
