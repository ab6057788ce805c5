"""What the launcher starts with ``python -m``: a fork server. Apart from `server`, so that that is imported once, by name."""

from quayside.foundation.dagster.launcher.server import main

if __name__ == "__main__":
    main()
