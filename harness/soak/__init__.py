"""A pipeline that goes on, under load and faults, cycle after cycle. `gauntlet soak`."""
