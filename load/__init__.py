"""Load: events that can be recognised one by one, and the Locust users that produce them."""
