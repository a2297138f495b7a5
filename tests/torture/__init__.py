"""What the data stages and a cluster must survive: kills, faults, damaged videos, full disks, signals, lost nodes, each other. `python -m torture` runs it all."""
