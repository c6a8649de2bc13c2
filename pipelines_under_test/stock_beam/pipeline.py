"""The declaration of the negative control."""

from __future__ import annotations

import dataclasses

from pipelines_under_test.kappa.pipeline import command, kappa

stock_beam = dataclasses.replace(
    kappa,
    name="stock-beam",
    about="kappa with Beam's own ReadFromPubSub on the DirectRunner, which loses what it holds when it is killed",
    workers=[
        dataclasses.replace(w, command=command("stock_beam.aggregator")) if w.name == "aggregator" else w
        for w in kappa.workers
    ],
)
