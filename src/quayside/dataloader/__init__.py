"""DataLoader: tables of operational databases into the lake, by rows of a control database.

`request` and `result` say what one load is told and what it tells; `control` is the control database; `sources` read,
`destinations` write, `strategies` decide what is read and how it is written; `load` runs one load. No Dagster outside
the room ``dagster/``.
"""
