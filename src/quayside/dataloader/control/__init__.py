"""The control database: its connections, its client, what is due when, and what a row of configuration may be."""
