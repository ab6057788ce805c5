"""What every code location shares: instance storage, resources, the failure sensor, and running the services.

Nothing is imported here, so that ``dagster.yaml`` and ``workspace.yaml`` load only the module they name.
"""
