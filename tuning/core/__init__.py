"""The lowest layer: errors, files, paths, the machine, child processes. It imports no other package."""
