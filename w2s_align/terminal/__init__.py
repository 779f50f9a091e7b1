"""What the `w2s` command prints: runs, plans, comparisons, sweeps, the catalogue and the doctor's findings."""
