"""A pipeline that is never redeployed, under load and faults cycle after cycle. `gauntlet soak`."""
