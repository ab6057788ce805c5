"""The one command, ``quayside``, with a sub-command group per system. Faces only: read arguments, call, print."""
