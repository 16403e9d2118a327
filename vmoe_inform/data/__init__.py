"""Images and texts: their sources, and batches of them on the host. Each kind has a folder."""
