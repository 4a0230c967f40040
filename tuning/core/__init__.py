"""What every package stands on: errors, files, paths, the machine, child processes. It imports no other package."""
