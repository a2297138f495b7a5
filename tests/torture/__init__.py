"""What the data stages must survive: kills, faults, damaged videos, full disks, signals, each other. `python -m torture` runs it all."""
