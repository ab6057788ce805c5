"""Kill DataLoader while it loads from a source that changes, then compare every table with its source.

    python -m tests.faults.dataloader --kills 200 --seed 1

- `workload`: the tables, one of every strategy, and the writers that change their source all the time.
- `compare`: a loaded table against its source, by key and content.
- `platform`: the processes under test (PostgreSQL, code server, daemon, runs, workers) with clocks that run faster.
- `points`: what every one of those processes says of itself, and where it waits when it is told to.
- `kills`: who is killed, when, and the books that are kept of it.
- `staged`: three interleavings, made certain, that go wrong when a guard is taken out.
"""
