"""A store of runs and the service that shows, starts and watches them. `gauntlet serve`."""
