"""The machine: devices, memory, processes, shards of a grid, progress. May import cells."""
