"""A negative control: the reference pipeline with Beam's stock `ReadFromPubSub` on the DirectRunner as aggregator.

It writes the same idempotent rows. What it gets wrong is Beam's: the DirectRunner acknowledges messages before they
are processed, so a kill loses what the worker held. `pipeline.py` declares it, `aggregator.py` is the program.
"""
