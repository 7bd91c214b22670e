"""Training as both frameworks do it: options, the plan of batches, the history, the report, a run's state."""
